"""How many bytes each tunnel has moved today: in memory, and kept in the database for as long as somebody may ask."""

import logging
from collections.abc import Callable
from typing import Final

from ..access.rates import SECONDS_A_DAY, day_of
from ..errors import DatabaseError
from . import queries
from .database import Database
from .queries import UsageKey

logger: logging.Logger = logging.getLogger(__name__)

KEPT_DAYS: Final = 92
"""Days after which usage is removed from the database: a quarter can still be looked at."""

MAX_OF_ONE: Final = 1_000
"""Tunnels of one identity that are told apart on one day; the others count as one."""

MAX_ROWS: Final = 100_000
"""Tunnels of all, some 200 bytes each.  Those beyond are not counted."""

OTHERS: Final = ""
"""What stands for an identity's tunnels that are not told apart."""


class Usage:
    """Counts for the present day of UTC, by *clock*, which gives Unix time.

    What is added is written to the *database*, if there is one, by `save`.
    """

    def __init__(self, database: Database | None, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._day = ""
        self._today: dict[str, dict[str, int]] = {}  # By identity and tunnel.
        self._rows = 0
        self._unsaved: dict[UsageKey, int] = {}
        self._is_failing = False

    async def load(self) -> None:
        """Read what the database knows of today.  Raises `DatabaseError`."""
        self._turn_page()
        if self._database is not None:
            for (identity, tunnel), size in (await self._database.read(queries.usage, self._day)).items():
                self._count(identity, tunnel, size)

    def add(self, identity: str, tunnel: str, size: int) -> None:
        """Count *size* bytes that a tunnel of *identity* has moved."""
        if not size:
            return
        self._turn_page()
        tunnel = self._count(identity, tunnel, size)
        key = (self._day, identity, tunnel)
        if self._database is not None and (key in self._unsaved or len(self._unsaved) < MAX_ROWS):
            self._unsaved[key] = self._unsaved.get(key, 0) + size

    def of(self, identity: str) -> int:
        """Return how many bytes all tunnels of *identity* have moved today."""
        self._turn_page()
        return sum(self._today.get(identity, {}).values())

    def of_tunnel(self, identity: str, tunnel: str) -> int:
        """Return how many bytes a tunnel has moved today; if it is not told apart from others, with theirs."""
        self._turn_page()
        mine = self._today.get(identity, {})
        return mine.get(tunnel, mine.get(OTHERS, 0) if len(mine) >= MAX_OF_ONE else 0)

    async def save(self) -> None:
        """Write down what was added.  While that cannot be done, which is logged once, it is kept for the next time."""
        if self._database is None or not self._unsaved:
            return
        unsaved = self._unsaved.copy()
        oldest = day_of(self._clock() - KEPT_DAYS * SECONDS_A_DAY)
        try:
            await self._database.note(queries.add_usage, unsaved, oldest)
        except DatabaseError as error:
            if not self._is_failing:
                logger.error("usage is not written down, and counts for as long as the server runs: %s", error)
            self._is_failing = True
            return
        self._is_failing = False
        for key, size in unsaved.items():
            self._unsaved[key] -= size
            if not self._unsaved[key]:
                del self._unsaved[key]

    def _turn_page(self) -> None:
        day = day_of(self._clock())
        if day > self._day:
            self._day = day
            self._today.clear()
            self._rows = 0

    def _count(self, identity: str, tunnel: str, size: int) -> str:
        """Count for today, and return as what."""
        mine = self._today.get(identity, {})
        if tunnel not in mine and len(mine) >= MAX_OF_ONE:
            tunnel = OTHERS
        if tunnel not in mine:
            if self._rows >= MAX_ROWS:
                return tunnel
            self._rows += 1
        self._today[identity] = mine
        mine[tunnel] = mine.get(tunnel, 0) + size
        return tunnel
