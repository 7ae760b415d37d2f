"""What runs on the public machine."""

from .absence import ExpectedTunnels
from .handoff import Handoff
from .server import Server, serve
from .settings import HttpTimeouts, ServerSettings
from .sockets import ListeningSockets

__all__ = ["ExpectedTunnels", "Handoff", "HttpTimeouts", "ListeningSockets", "Server", "ServerSettings", "serve"]
