"""How large the receive windows of a session's streams are, and what all its streams hold together.

A window is what keeps a stream back if the reader uses up more than half of it in a round trip, and leaves little
unread: it must hold what is on its way, and what is consumed until the peer hears of it.  Then it is doubled.
"""

from collections.abc import Sized
from typing import TYPE_CHECKING, Final

from .limits import INITIAL_WINDOW, SessionLimits

if TYPE_CHECKING:
    from .stream import YamuxStream

IDLE_ROUND_TRIPS: Final = 10
"""Round trips after which a window of which not even half was used up is halved …"""

IDLE_TIME: Final = 1.0
"""… unless they are shorter than this, in seconds: a pause between two requests is no reason."""

RESERVE: Final = 4
"""A stream's window grows by at most one part in so many of what is free, so that some is left for the others."""

CROWD_SHARE: Final = 8
"""One part in so many of the limit is there for growth even if 256 KiB for each stream would fill it: many are idle."""


class ReceiveWindows:
    """The receive windows of one session, whose streams are *live*.  See `otun.yamux.SessionLimits.max_held`."""

    def __init__(self, limits: SessionLimits, live: Sized) -> None:
        self.held: int = 0
        """Bytes that were received and not used up yet."""
        self.granted: int = 0
        """Bytes of all windows beyond the first 256 KiB of each."""
        self.ended_unread: dict[YamuxStream, None] = {}
        """Streams that are over, while what they brought is not: they are out of the connection's table."""
        self.most: int = limits.max_held
        """What both may come to together."""
        self.round_trip: float = 0.0
        """Seconds that the last ping took that was sent for the windows' sake; 0 before.

        On purpose not the shortest one: what delays a ping delays the news of a window, too.
        """
        self.is_round_trip_under_way: bool = False
        self._limits = limits
        self._live = live

    @property
    def excess(self) -> int:
        """Bytes that must go until an eighth of the limit is free again, so that this is not done for each frame."""
        return self.held + self.granted - self.most * 7 // 8

    @property
    def _free(self) -> int:
        """Bytes by which windows may still grow; negative when streams have come, or bytes, since they have grown.

        Each counts twice, as it may be filled, and what every stream is promised is kept for it.  Then readers who
        stall cost nobody his stream, not even all at once, unless there are so many streams that their 256 KiB alone
        come to more than 7/8 of the limit.
        """
        promised = INITIAL_WINDOW * (len(self._live) + len(self.ended_unread))
        room = min(self.most - self.held, max(self.most - promised, self.most // CROWD_SHARE))
        return room - 2 * self.granted

    def first_delta(self, stream: "YamuxStream") -> int:
        """Give a new *stream* its first window, and return by how much it is larger than the specification's."""
        return self._widen(stream, self._limits.receive_window)

    def _widen(self, stream: "YamuxStream", window: int) -> int:
        delta = max(0, min(window - stream.window, self._free // RESERVE))
        stream.window += delta
        self.granted += delta
        return delta

    def resize(self, stream: "YamuxStream", now: float) -> int:
        """Return the change of *stream*'s window, now that at least half of it has been used up again."""
        elapsed = now - stream.window_used_at
        stream.window_used_at = now
        if self._free < 0:
            return self._narrow(stream)
        is_reader_keeping_up = stream.unread * 4 <= stream.window
        if is_reader_keeping_up and 2 * stream.ungranted * self.round_trip > stream.window * elapsed:
            return self._widen(stream, min(2 * stream.window, self._limits.max_receive_window))
        if elapsed > max(IDLE_TIME, IDLE_ROUND_TRIPS * self.round_trip):
            return self._narrow(stream)
        return 0

    def _narrow(self, stream: "YamuxStream") -> int:
        delta = min(stream.window // 2, max(0, stream.window - self._limits.receive_window))
        stream.window -= delta
        self.granted -= delta
        return -delta

    @property
    def can_grow(self) -> bool:
        """Whether round trips are of interest."""
        return self._limits.max_receive_window > self._limits.receive_window

    def round_trip_ended(self, seconds: float) -> None:
        """A ping has been answered."""
        self.round_trip = seconds
        self.is_round_trip_under_way = False

    def release(self, stream: "YamuxStream") -> None:
        """*stream* has left the table: its window is worth nothing any more."""
        self.granted -= stream.window - INITIAL_WINDOW
        if stream.unread:
            self.ended_unread[stream] = None
