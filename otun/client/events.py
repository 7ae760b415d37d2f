"""What happens to a tunnel, for programs that want to know."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

import attrs
import trio

from ..mux import SessionClosed

EVENTS_KEPT: Final = 64
"""Events for those who have not read them yet.  Whoever reads more slowly misses the oldest: a long outage has two for
each attempt, and nobody wants to read them all afterwards."""


@attrs.frozen
class Connected:
    """The tunnel is open: visitors find it at *url*, which is the same as before whenever that is possible."""

    url: str


@attrs.frozen
class Lost:
    """No visitors can come: the server is gone, or is going, and *reason* says why."""

    reason: str


@attrs.frozen
class Retrying:
    """The next attempt to reach the server comes in *delay* seconds; it is the *attempt*th of this outage.

    *reason* is why there is no connection: what was lost, or what the last attempt has failed by.
    """

    delay: float
    attempt: int
    reason: str


@attrs.frozen
class Refused:
    """The tunnel has ended for good, and it was not this side that ended it: *error* is what `Tunnel.accept` raises."""

    error: SessionClosed


TunnelEvent: TypeAlias = Connected | Lost | Retrying | Refused


class EventLog:
    """The last events of a tunnel.  It keeps no account of its readers: they know themselves how far they are."""

    def __init__(self) -> None:
        self._kept: deque[TunnelEvent] = deque(maxlen=EVENTS_KEPT)
        self._count = 0
        self._is_over = False
        self._readers = trio.lowlevel.ParkingLot()

    def add(self, event: TunnelEvent) -> None:
        """Tell *event* to all readers."""
        self._kept.append(event)
        self._count += 1
        self._readers.unpark_all()

    def end(self) -> None:
        """Tell them that there will be no more."""
        self._is_over = True
        self._readers.unpark_all()

    def read(self) -> "EventReader":
        """Return the events from the last one on that there was."""
        return EventReader(self, max(self._count - 1, 0))

    async def next_from(self, position: int) -> tuple[TunnelEvent, int]:
        """Wait for the event at *position*, or the oldest one after it that is kept; return the position behind it.

        Raises `StopAsyncIteration` when there will be none.
        """
        await trio.lowlevel.checkpoint()
        while position == self._count:
            if self._is_over:
                raise StopAsyncIteration
            await self._readers.park()
        oldest = self._count - len(self._kept)
        position = max(position, oldest)
        return self._kept[position - oldest], position + 1


class EventReader(AsyncIterator[TunnelEvent]):
    """An iterator, and no generator: one that is left half-way needs no closing."""

    def __init__(self, log: EventLog, position: int) -> None:
        self._log = log
        self._position = position

    async def __anext__(self) -> TunnelEvent:
        event, self._position = await self._log.next_from(self._position)
        return event
