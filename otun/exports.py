"""The public API: what `import otun` offers."""

from .addresses import LocalTarget, TcpAddress, UnixAddress
from .client import (
    ProxyAddress,
    Tunnel,
    TunnelSettings,
    forward,
    open_tunnel,
    open_tunnels,
    proxy_from_environment,
)
from .errors import (
    AddressError,
    BadClientHello,
    BadMessage,
    BadProxyHeader,
    ConfigurationError,
    DatabaseError,
    InvalidName,
    LimitExceeded,
    ListenError,
    LocalProtocolError,
    OtunError,
    ProtocolError,
    RegistrationRefused,
    RemoteProtocolError,
    ServerNotTrusted,
    ServerUnreachable,
)
from .http.exchange import Exchange
from .mux import (
    ControlChannel,
    Session,
    SessionClosed,
    SessionStatistics,
    Stream,
    StreamReset,
    StreamStatistics,
    open_session,
)
from .server import HttpTimeouts, Server, ServerSettings, serve
from .tls.contexts import CertificateFiles
from .tls.fingerprints import Fingerprint
from .tls.trust import Trust
from .yamux import Allowance, Role, SessionLimits

__all__ = [
    "AddressError",
    "Allowance",
    "BadClientHello",
    "BadMessage",
    "BadProxyHeader",
    "CertificateFiles",
    "ConfigurationError",
    "ControlChannel",
    "DatabaseError",
    "Exchange",
    "Fingerprint",
    "HttpTimeouts",
    "InvalidName",
    "LimitExceeded",
    "ListenError",
    "LocalProtocolError",
    "LocalTarget",
    "OtunError",
    "ProtocolError",
    "ProxyAddress",
    "RegistrationRefused",
    "RemoteProtocolError",
    "Role",
    "Server",
    "ServerNotTrusted",
    "ServerSettings",
    "ServerUnreachable",
    "Session",
    "SessionClosed",
    "SessionLimits",
    "SessionStatistics",
    "Stream",
    "StreamReset",
    "StreamStatistics",
    "TcpAddress",
    "Trust",
    "Tunnel",
    "TunnelSettings",
    "UnixAddress",
    "forward",
    "open_session",
    "open_tunnel",
    "open_tunnels",
    "proxy_from_environment",
    "serve",
]
