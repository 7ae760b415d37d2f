"""yamux without I/O: bytes in, calls to handlers and bytes out.  No clock, no socket, no Trio.

The specification is hashicorp's `spec.md`; where it is silent, this package does what the peers in the field accept.
"""

from .connection import Role, YamuxConnection
from .frames import FrameDecoder, GoAwayCode
from .handler import ConnectionHandler, StreamHandler
from .keepalive import KeepAlive
from .limits import DEFAULT_LIMITS, Allowance, SessionLimits
from .states import StreamState
from .stream import YamuxStream

__all__ = [
    "DEFAULT_LIMITS",
    "Allowance",
    "ConnectionHandler",
    "FrameDecoder",
    "GoAwayCode",
    "KeepAlive",
    "Role",
    "SessionLimits",
    "StreamHandler",
    "StreamState",
    "YamuxConnection",
    "YamuxStream",
]
