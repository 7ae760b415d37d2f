"""What runs on the public machine."""

from .server import Server, serve
from .settings import ServerSettings

__all__ = ["Server", "ServerSettings", "serve"]
