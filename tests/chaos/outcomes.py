"""What visitors saw: one outcome for each visit, and what is to be told of all."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

import attrs
import trio

RIGHT: Final = "right"
"""The answer, whole, with every byte as it was sent."""

LEFT: Final = "left"
"""It was the visitor who went away in the middle, on purpose."""

WRONG: Final = "wrong"
"""A byte that was not sent: no fault may bring that about."""

STAYING: Final = ("websocket", "echo")
"""Kinds of visits on connections that stay: each message is one visit."""

PROBE: Final = "probe"
"""A small request on a connection of its own.  Probes come at a steady pace, and tell when service has returned."""


@attrs.frozen
class Visit:
    """One visit.  *began* and *ended* are seconds of the monotonic clock, which all processes share."""

    kind: str
    outcome: str
    began: float
    ended: float
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return self.outcome in (RIGHT, LEFT)


@attrs.define(eq=False)
class Visits:
    """Visits, as they end."""

    all: list[Visit] = attrs.field(factory=list)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def add(self, visit: Visit) -> None:
        self.all.append(visit)
        self._news.unpark_all()

    async def wait_for_probe(self, *, since: float) -> Visit:
        """Wait for the first good answer to a probe that began after *since*: they come ten times a second."""
        position = 0
        while True:
            for visit in self.all[position:]:
                if visit.kind == PROBE and visit.outcome == RIGHT and visit.began > since:
                    return visit
            position = len(self.all)
            await self._news.park()

    def between(self, begin: float, end: float) -> list[Visit]:
        """Those that were there at any time between *begin* and *end*."""
        return [visit for visit in self.all if visit.ended >= begin and visit.began <= end]


def describe(visits: Iterable[Visit]) -> str:
    """Say how often there was which outcome, the good ones first."""
    counts = Counter(visit.outcome for visit in visits)
    order = sorted(counts, key=lambda outcome: (outcome not in (RIGHT, LEFT), -counts[outcome], outcome))
    return ", ".join(f"{counts[outcome]:,}{' x' if outcome.isdigit() else ''} {outcome}" for outcome in order)


def longest_gap(visits: Iterable[Visit], begin: float, end: float) -> float:
    """Return the longest time between *begin* and *end* in which no probe had a good answer, in seconds."""
    times = sorted(visit.ended for visit in visits if visit.kind == PROBE and visit.outcome == RIGHT)
    marks = [begin, *(time for time in times if begin < time < end), end]
    return max(later - earlier for earlier, later in pairwise(marks))
