"""yamux sessions as Trio programs use them."""

from .answer import Answer
from .channel import ControlChannel
from .errors import SessionClosed, StreamReset, TunnelEnded, TunnelLost
from .opening import open_board_session, open_session
from .patch import Patch, PatchOwner, Tap
from .serving import serve_streams
from .session import Opener, Session
from .splice import splice
from .statistics import SessionStatistics, StreamStatistics
from .stream import Stream

__all__ = [
    "Answer",
    "ControlChannel",
    "Opener",
    "Patch",
    "PatchOwner",
    "Session",
    "SessionClosed",
    "SessionStatistics",
    "Stream",
    "StreamReset",
    "StreamStatistics",
    "Tap",
    "TunnelEnded",
    "TunnelLost",
    "open_board_session",
    "open_session",
    "serve_streams",
    "splice",
]
