"""What runs on the public machine."""

from .server import Server, serve
from .settings import HttpTimeouts, ServerSettings

__all__ = ["HttpTimeouts", "Server", "ServerSettings", "serve"]
