"""A self-hosted reverse tunnel on Trio: sessions, streams, tunnels, and a server to embed."""

from .addresses import TcpAddress, UnixAddress
from .client import Tunnel, forward, open_tunnel
from .errors import (
    AddressError,
    BadMessage,
    ConfigurationError,
    InvalidName,
    ListenError,
    LocalProtocolError,
    OtunError,
    ProtocolError,
    RegistrationRefused,
    RemoteProtocolError,
    ServerUnreachable,
)
from .http.exchange import Exchange
from .mux import ControlChannel, Session, SessionClosed, Stream, StreamReset, open_session
from .server import Server, ServerSettings, serve
from .yamux import Role

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "BadMessage",
    "ConfigurationError",
    "ControlChannel",
    "Exchange",
    "InvalidName",
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
    "Stream",
    "StreamReset",
    "TcpAddress",
    "Tunnel",
    "UnixAddress",
    "__version__",
    "forward",
    "open_session",
    "open_tunnel",
    "serve",
]
