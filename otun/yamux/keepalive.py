"""Is the peer still there?  Any byte from it says yes; after a silence it is asked."""

from enum import Enum, auto


class KeepAliveAction(Enum):
    """What to do now."""

    NOTHING = auto()
    SEND_PING = auto()
    GIVE_UP = auto()


class KeepAlive:
    """The keep-alive's arithmetic.  All times are seconds on one clock, which the caller reads.

    After *interval* of silence the peer is pinged; it has *timeout* to say anything.
    """

    def __init__(self, now: float, *, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._last_heard = now
        self._pinged_at: float | None = None

    @property
    def deadline(self) -> float:
        """When `check` should be called next."""
        if self._pinged_at is not None:
            return self._pinged_at + self._timeout
        return self._last_heard + self._interval

    @property
    def last_heard(self) -> float:
        """When the last byte came."""
        return self._last_heard

    def bytes_received(self, now: float) -> None:
        """Take note that the peer is alive: any byte from it says so."""
        self._last_heard = now
        self._pinged_at = None

    def postpone(self, now: float) -> None:
        """Give the peer a whole time-out from *now* on to answer, if it owes one: the ping leaves only now."""
        if self._pinged_at is not None:
            self._pinged_at = now

    def check(self, now: float) -> KeepAliveAction:
        """Say what is due at *now*.  `SEND_PING` is said once in each silence, and counted as done."""
        if now < self.deadline:
            return KeepAliveAction.NOTHING
        if self._pinged_at is not None:
            return KeepAliveAction.GIVE_UP
        self._pinged_at = now
        return KeepAliveAction.SEND_PING
