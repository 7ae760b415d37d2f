"""The public API: what `import otun` offers."""

from .addresses import TcpAddress, UnixAddress
from .client import Tunnel, TunnelSettings, forward, open_tunnel, open_tunnels
from .errors import (
    AddressError,
    BadMessage,
    BadProxyHeader,
    ConfigurationError,
    InvalidName,
    LimitExceeded,
    ListenError,
    LocalProtocolError,
    OtunError,
    ProtocolError,
    RegistrationRefused,
    RemoteProtocolError,
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
from .yamux import Allowance, Role, SessionLimits

__all__ = [
    "AddressError",
    "Allowance",
    "BadMessage",
    "BadProxyHeader",
    "ConfigurationError",
    "ControlChannel",
    "Exchange",
    "HttpTimeouts",
    "InvalidName",
    "LimitExceeded",
    "ListenError",
    "LocalProtocolError",
    "OtunError",
    "ProtocolError",
    "RegistrationRefused",
    "RemoteProtocolError",
    "Role",
    "Server",
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
    "Tunnel",
    "TunnelSettings",
    "UnixAddress",
    "forward",
    "open_session",
    "open_tunnel",
    "open_tunnels",
    "serve",
]
