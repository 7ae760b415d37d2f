"""Who has which name, whether connected or not: a name belongs to the identity that first took it, for a while."""

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn, TypeAlias

import trio

from ..access import Identity
from ..control.names import wildcards_over
from ..errors import DatabaseError
from . import queries
from .admission import refuse
from .database import Database
from .following import follow
from .records import Actor, Reservation, ReservationKind

logger: logging.Logger = logging.getLogger(__name__)

PROLONG_INTERVAL: Final = 3600.0
"""Seconds between two times that reservations of open tunnels are prolonged: by so much less they last at worst."""

MAX_RESERVATIONS: Final = 100_000
"""Reservations at a time: some 300 bytes each."""

MAX_OF_ONE: Final = MAX_RESERVATIONS // 4
"""Those of one identity.  Names beyond are used without being reserved."""

Key: TypeAlias = tuple[ReservationKind, str]


class Reservations:
    """Keeps names, host names and ports for those who have taken them, *lifetime* seconds from their last use.

    They are in memory and, if there is one, in the *database*.  A *lifetime* of 0 reserves nothing new.
    """

    def __init__(self, database: Database | None, *, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._lifetime = lifetime
        self._prolong_interval = min(PROLONG_INTERVAL, lifetime / 2) or PROLONG_INTERVAL
        self._clock = clock
        self._known: dict[Key, Reservation] = {}
        self._counts: Counter[str] = Counter()  # By identity.

    async def load(self) -> None:
        """Read those of the database.  Raises `DatabaseError`."""
        if self._database is not None:
            found = await self._database.read(queries.reservations, self._clock())
            self._known = {(one.kind, one.name): one for one in found}
            self._counts = Counter(one.identity for one in found)

    async def keep_fresh(self, in_use: Callable[[], Iterable[tuple[Identity, Iterable[Key]]]]) -> None:
        """Keep up with the database, and prolong the reservations that are *in_use*, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._database is not None:
                nursery.start_soon(follow, self._database, self.load, "reservations")
            while True:
                await trio.sleep(self._prolong_interval)
                for identity, keys in in_use():
                    await self._reserve(identity, keys)
                await self._forget_ended()

    async def _forget_ended(self) -> None:
        if self._database is not None:
            with contextlib.suppress(DatabaseError):  # The next time will do.
                await self._database.write(queries.forget_ended_reservations, self._clock())

    def in_force(self) -> Iterator[Reservation]:
        """Return those that there are."""
        return (one for one in self._known.values() if not self._has_ended(one))

    def is_kept_for(self, identity: Identity, key: Key) -> bool:
        """Whether *identity* itself has reserved it, or the wildcard next above it."""
        found = self._find(key)
        return found is not None and _is_owner(identity, found)

    def is_free_for(self, identity: Identity, key: Key) -> bool:
        """Whether nobody else has reserved it, or the wildcard next above it."""
        found = self._find(key)
        return found is None or _is_owner(identity, found)

    def check(self, identity: Identity, keys: Iterable[Key]) -> None:
        """Raise `otun.server.admission.Refused` if somebody else has reserved one of *keys*."""
        for key in keys:
            if not self.is_free_for(identity, key):
                _refuse_taken(key)

    async def take(self, identity: Identity, keys: Iterable[Key], origin: str) -> None:
        """Reserve *keys* for whoever comes from *origin*, unless somebody else has one.

        Raises `otun.server.admission.Refused`.  Without a disk to write to, they are reserved for as long as the server
        runs.  Nobody in particular reserves nothing.
        """
        keys = list(keys)
        self.check(identity, keys)
        due = self._clock() + self._lifetime - self._prolong_interval
        wanted = [key for key in keys if (known := self._known.get(key)) is None or _ends_before(known, due)]
        for found in await self._reserve(identity, wanted, origin):
            if not _is_owner(identity, found):
                _refuse_taken((found.kind, found.name))

    async def _reserve(self, identity: Identity, keys: Iterable[Key], origin: str | None = None) -> list[Reservation]:
        """Make or prolong reservations, and return those that there are then.  New ones have come from *origin*."""
        if identity.is_anonymous or not self._lifetime:
            return []
        now = self._clock()
        until = math.ceil(now + self._lifetime)
        wanted = [Reservation(*key, identity.name, until) for key in keys if self._has_room(key, identity)]
        if not wanted:
            return []
        actor = None if origin is None else Actor(f"token {identity.name}", origin)
        found = wanted
        if self._database is not None:
            try:
                found = await self._database.write(queries.take_reservations, wanted, now, actor)
            except DatabaseError as error:
                logger.error("names are reserved for as long as the server runs, no longer: %s", error)
        for one in found:
            self._keep(one)
        return found

    def _find(self, key: Key) -> Reservation | None:
        """Return the reservation that counts for *key*: its own, or else that of the longest wildcard above it."""
        kind, name = key
        for each in (name, *(wildcards_over(name) if kind == "host" else ())):
            found = self._known.get((kind, each))
            if found is not None and not self._has_ended(found):
                return found
        return None

    def _has_room(self, key: Key, identity: Identity) -> bool:
        if key in self._known:
            return True
        if len(self._known) >= MAX_RESERVATIONS:
            for ended in [known for known, one in self._known.items() if self._has_ended(one)]:
                self._counts[self._known.pop(ended).identity] -= 1
        if len(self._known) < MAX_RESERVATIONS and self._counts[identity.name] < MAX_OF_ONE:
            return True
        logger.warning("%s %r is not reserved for %s: there are too many reservations", *key, identity.name)
        return False

    def _keep(self, reservation: Reservation) -> None:
        key: Key = (reservation.kind, reservation.name)
        before = self._known.get(key)
        if before is not None:
            self._counts[before.identity] -= 1
        self._known[key] = reservation
        self._counts[reservation.identity] += 1

    def _has_ended(self, reservation: Reservation) -> bool:
        return _ends_before(reservation, self._clock())


def _ends_before(reservation: Reservation, when: float) -> bool:
    return reservation.until is not None and reservation.until <= when


def _is_owner(identity: Identity, reservation: Reservation) -> bool:
    return not identity.is_anonymous and reservation.identity == identity.name


_WHAT: Final[dict[ReservationKind, str]] = {"name": "subdomain", "host": "hostname", "port": "port"}


def _refuse_taken(key: Key) -> NoReturn:
    kind, name = key
    shown = name if kind == "port" else f"'{name}'"
    code = "port_taken" if kind == "port" else "name_taken"
    raise refuse(f"{_WHAT[kind]} {shown} is reserved for somebody else", code)
