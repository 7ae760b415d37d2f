"""Streams that wait for somebody, and for how long: to be taken on this side, or to be finished by the peer."""

import math
from collections.abc import Callable
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .stream import YamuxStream

ACKNOWLEDGE_TIMEOUT: Final = 30.0
"""Seconds after which a stream that nobody took is acknowledged all the same: hashicorp/yamux gives up at 75."""


class Patience:
    """The deadlines of one connection's streams.  *close_timeout* is `SessionLimits.close_timeout`.

    *deadline_set* is called when `deadline` may have become earlier.
    Each kind has one fixed delay, so that the first entry is always the next one due.
    """

    def __init__(self, close_timeout: float, deadline_set: Callable[[], None]) -> None:
        self._close_timeout = close_timeout
        self._deadline_set = deadline_set
        self._unaccepted: dict[YamuxStream, float] = {}
        self._acknowledged: set[YamuxStream] = set()  # And not accepted for all that.
        self._unfinished: dict[YamuxStream, float] = {}

    @property
    def unaccepted_count(self) -> int:
        """How many streams the peer has opened that nobody has taken."""
        return len(self._unaccepted) + len(self._acknowledged)

    @property
    def deadline(self) -> float:
        """When one of the two methods below has something; infinity when nothing is due."""
        return min((*islice(self._unaccepted.values(), 1), *islice(self._unfinished.values(), 1)), default=math.inf)

    def opened(self, stream: "YamuxStream", now: float) -> None:
        """The peer has opened *stream*."""
        self._unaccepted[stream] = now + ACKNOWLEDGE_TIMEOUT
        if len(self._unaccepted) == 1:
            self._deadline_set()

    def accepted(self, stream: "YamuxStream") -> None:
        """Somebody has taken *stream*."""
        self._unaccepted.pop(stream, None)
        self._acknowledged.discard(stream)

    def closed(self, stream: "YamuxStream", now: float) -> None:
        """We have finished with *stream*, and the peer has not."""
        self._unfinished.setdefault(stream, now + self._close_timeout)
        if len(self._unfinished) == 1:
            self._deadline_set()

    def forget(self, stream: "YamuxStream") -> None:
        """*stream* is over."""
        self.accepted(stream)
        self._unfinished.pop(stream, None)

    def take_unacknowledged(self, now: float) -> list["YamuxStream"]:
        """Return the streams that must be acknowledged now.  They still wait to be accepted."""
        due = list(takewhile(lambda stream: self._unaccepted[stream] <= now, self._unaccepted))
        for stream in due:
            del self._unaccepted[stream]
            self._acknowledged.add(stream)
        return due

    def unfinished(self, now: float) -> list["YamuxStream"]:
        """Return the streams whose peer has not finished in time."""
        return list(takewhile(lambda stream: self._unfinished[stream] <= now, self._unfinished))

    def end(self) -> None:
        """Nobody waits any more."""
        self._unaccepted.clear()
        self._acknowledged.clear()
        self._unfinished.clear()
