"""The data plane's engine: one epoll, one Trio task, plain calls (Linux).  It knows sockets, and nothing of yamux."""

from .board import HAS_SWITCHBOARD, Member, Switchboard, open_switchboard
from .endpoint import Endpoint, LingeringClose, abort_socket, unsent_bytes
from .listener import Listener

__all__ = [
    "HAS_SWITCHBOARD",
    "Endpoint",
    "LingeringClose",
    "Listener",
    "Member",
    "Switchboard",
    "abort_socket",
    "open_switchboard",
    "unsent_bytes",
]
