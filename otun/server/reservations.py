"""Who has which name, whether connected or not: a name belongs to the identity that first took it, for a while."""

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, NoReturn, TypeAlias

import trio

from ..access import Identity
from ..control.names import wildcards_over
from ..errors import DatabaseError
from . import queries
from .absence import keeper_of
from .admission import refuse
from .database import Database
from .following import follow
from .records import Actor, Claim, Reservation, ReservationKind

logger: logging.Logger = logging.getLogger(__name__)

PROLONG_INTERVAL: Final = 3600.0
"""Seconds between two times that reservations of open tunnels are prolonged: by so much less they last at worst."""

MAX_RESERVATIONS: Final = 100_000
"""Reservations at a time: some 300 bytes each."""

MAX_OF_ONE: Final = MAX_RESERVATIONS // 4
"""Those of one identity.  Names beyond are used without being reserved."""

MAX_AT_ONCE: Final = 1000
"""Reservations that are written in one transaction: some 20 ms in the database's thread."""

RETRY_INTERVAL: Final = 1.0
"""Seconds until what could not be written down is tried again."""

Key: TypeAlias = tuple[ReservationKind, str]


class Reservations:
    """Keeps names, host names and ports for those who have taken them, *lifetime* seconds from their last use.

    They are in memory: who has what is decided there, at once.  If there is a *database*, they are written down behind
    that, and what other processes write there counts, too.  A *lifetime* of 0 reserves nothing new.
    """

    def __init__(self, database: Database | None, *, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._has_changed = trio.Event()
        self._lifetime: float
        self._prolong_interval: float
        self.change_lifetime(lifetime)
        self._clock = clock
        self._known: dict[Key, Reservation] = {}
        self._counts: Counter[str] = Counter()  # By identity.
        self._unwritten: dict[Key, Claim] = {}  # Those of them that the database does not have, or not so.
        self._has_unwritten = trio.Event()
        self._is_failing = False

    def change_lifetime(self, lifetime: float) -> None:
        """Reserve for so many seconds from now on.  What is reserved already stays so for as long as it was to be."""
        self._lifetime = lifetime
        self._prolong_interval = min(PROLONG_INTERVAL, lifetime / 2) or PROLONG_INTERVAL
        self._has_changed.set()

    async def load(self) -> None:
        """Read those of the database.  Raises `DatabaseError`."""
        if self._database is not None:
            found = await self._database.read(queries.reservations, self._clock())
            unwritten = {key: claim.wanted for key, claim in self._unwritten.items()}
            self._known = {(one.kind, one.name): one for one in found} | unwritten
            self._counts = Counter(one.identity for one in self._known.values())

    async def keep_fresh(self, in_use: Callable[[], Iterable[tuple[Identity, Iterable[Key], str]]]) -> None:
        """Keep up with the database, and prolong the reservations that are *in_use*, as for `take`, until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._database is not None:
                nursery.start_soon(follow, self._database, self.load, "reservations")
                nursery.start_soon(self._keep_written, self._database)
            while True:
                self._has_changed = trio.Event()
                with trio.move_on_after(self._prolong_interval):
                    await self._has_changed.wait()
                for identity, keys, origin in in_use():
                    self._reserve(identity, keys, origin)
                await self._forget_ended()

    async def _keep_written(self, database: Database) -> None:
        """Write down what is new as soon as that can be done, until cancelled, and the last of it then."""
        try:
            while True:
                await self._has_unwritten.wait()
                if not await self._write_down(database):
                    await trio.sleep(RETRY_INTERVAL)
        finally:
            with trio.CancelScope(shield=True):
                await self._write_down(database)

    async def _write_down(self, database: Database) -> bool:
        """Return whether the database has everything now."""
        while self._unwritten:
            claims = dict(islice(self._unwritten.items(), MAX_AT_ONCE))
            try:
                found = await database.note(queries.take_reservations, claims.values(), self._clock())
            except DatabaseError as error:
                if not self._is_failing:  # It is said once.
                    logger.error("names are reserved for as long as the server runs, no longer: %s", error)
                self._is_failing = True
                return False
            for one in found:
                key: Key = (one.kind, one.name)
                if self._unwritten.get(key) is claims[key]:
                    del self._unwritten[key]
                    self._keep(one)
        self._is_failing = False
        self._has_unwritten = trio.Event()
        return True

    async def _forget_ended(self) -> None:
        if self._database is not None:
            with contextlib.suppress(DatabaseError):  # The next time will do.
                await self._database.note(queries.forget_ended_reservations, self._clock())

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

    def is_kept_from(self, keeper: str, host: str) -> bool:
        """Whether somebody else than *keeper* has reserved the host name, or the wildcard next above it."""
        found = self._find(("host", host))
        return found is not None and keeper_of(found.identity) != keeper

    def take(self, identity: Identity, keys: Iterable[Key], origin: str) -> None:
        """Reserve *keys*, which are free for *identity*, for who comes from *origin*.

        Without a disk to write to, they are reserved for as long as the server runs.  Nobody in particular reserves
        nothing.
        """
        # What was prolonged a moment ago need not be written again.
        self._reserve(identity, keys, origin, due=self._clock() + self._lifetime - self._prolong_interval)

    def _reserve(self, identity: Identity, keys: Iterable[Key], origin: str, *, due: float = math.inf) -> None:
        """Make reservations, or prolong those that end before *due*."""
        if identity.is_anonymous or not self._lifetime:
            return
        until = math.ceil(self._clock() + self._lifetime)
        for key in keys:
            if self._is_due(key, identity, min(due, until)) and self._has_room(key, identity):
                wanted = Reservation(*key, identity.name, until)
                self._keep(wanted)
                if self._database is not None:
                    self._unwritten[key] = Claim(wanted, Actor(f"token {identity.name}", origin))
                    self._has_unwritten.set()

    def _is_due(self, key: Key, identity: Identity, due: float) -> bool:
        """Whether there is no such reservation, or one of *identity* that ends before *due*."""
        known = self._known.get(key)
        if known is None or self._has_ended(known):
            return True
        return _is_owner(identity, known) and _ends_before(known, due)  # It may be somebody else's by now.

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
                self._unwritten.pop(ended, None)
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
