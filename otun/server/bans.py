"""Banned networks: their clients and visitors are turned away, and those who are there are cut off."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Final

import trio

from ..access.networks import NetworkTable, has_loopback, parse_plain_network
from ..addresses import TcpAddress
from ..control.messages import Error
from ..errors import AddressError, ConfigurationError, DatabaseError
from ..http.forwarding import Network
from ..switchboard import Member, Switchboard
from . import queries
from .clients import Clients
from .database import Database
from .following import follow
from .queries import MAX_BANS, TooManyBans
from .records import Actor, Ban
from .reports import Reports

logger: logging.Logger = logging.getLogger(__name__)

MAX_REASON: Final = 200
"""Characters of a reason, which is for the operator alone."""

BANNED: Final = Error("this server's operator has banned the network that you come from", code="banned")
"""What clients are told."""


def check_reason(text: str) -> str:
    """Return why a network is banned, if it is one line that people can read.  Raises `ConfigurationError`."""
    if len(text) > MAX_REASON or not text.isprintable():
        raise ConfigurationError(f"a reason is one line of at most {MAX_REASON} printable characters")
    return text


def check_banned_network(text: str, *, is_forced: bool = False) -> str:
    """Return a network as it is compared, if it may be banned.  Raises `AddressError` and `ConfigurationError`."""
    network = parse_plain_network(text)
    if has_loopback(network) and not is_forced:
        what = "every address of its kind" if network.prefixlen == 0 else "this machine itself"
        raise ConfigurationError(f"{text!r} stands for {what}, too; to ban that all the same, use --force")
    return str(network)


class Barrable:
    """A member of the board that ends when one of the addresses that it comes from is banned."""

    __slots__ = ()

    @property
    def origins(self) -> tuple[str, ...]:
        """The other end of the connection, and whom that speaks for if it is a proxy that we trust."""
        raise NotImplementedError


class Bans:
    """The bans that are in force; in memory, so that each connection can be looked up.

    They are those of the *database*, and those for which that had no room: they last for as long as the server runs.
    """

    def __init__(self, database: Database | None, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._known: dict[str, Ban] = {}  # By network.
        self._unwritten: dict[str, Ban] = {}  # Those of them that the database does not have, or not yet.
        self._table = NetworkTable()
        self._networks_banned: Callable[[Callable[[str], bool]], None] | None = None
        self._reports = Reports(trio.current_time, called="stranger")

    def __repr__(self) -> str:
        return f"<Bans of {len(self._known)} networks>"

    def tell(self, networks_banned: Callable[[Callable[[str], bool]], None]) -> None:
        """Call *networks_banned* with each new ban, as a function that says which addresses it is about."""
        self._networks_banned = networks_banned

    async def load(self) -> None:
        """Read those of the database.  Raises `DatabaseError`."""
        if self._database is not None:
            found = await self._database.read(queries.bans, self._clock())
            self._replace({ban.network: ban for ban in found} | self._unwritten)

    async def keep_fresh(self) -> None:
        """Keep up with the database, until cancelled."""
        if self._database is not None:
            await follow(self._database, self.load, "bans")

    def covers(self, address: str) -> bool:
        """Whether *address* is banned: nothing is looked up while nobody is."""
        return len(self._table) > 0 and self._table.covers(address, self._clock())

    def covers_any(self, origins: Iterable[str]) -> bool:
        """Whether one of *origins* is banned."""
        return len(self._table) > 0 and any(map(self.covers, origins))

    def turns_away(self, peer: TcpAddress) -> bool:
        """Whether a new connection from *peer* is to be closed; if so, the log has a line, as far as it has room."""
        if not self.covers(peer.host):
            return False
        self._reports.add(peer, "turned away: its network is banned")
        return True

    def in_force(self) -> list[Ban]:
        """Return all, by network."""
        now = self._clock()
        return sorted((ban for ban in self._known.values() if not ban.has_ended(now)), key=lambda ban: ban.network)

    async def add(self, ban: Ban, by: Actor) -> bool:
        """Ban a network at once, and return whether that is written down.

        Without a disk to write to, the ban lasts for as long as the server runs.  Raises
        `otun.server.queries.TooManyBans`.
        """
        assert self._database is not None
        now = self._clock()
        known, unwritten = (
            {name: one for name, one in bans.items() if not one.has_ended(now)}
            for bans in (self._known, self._unwritten)
        )
        if ban.network not in known and len(known) >= MAX_BANS:
            raise TooManyBans
        self._unwritten = unwritten | {ban.network: ban}
        self._replace(known | {ban.network: ban})
        try:
            await self._database.write(queries.ban, ban, by, now)
        except DatabaseError as error:
            logger.error("%s has banned %s, for as long as the server runs: %s", by.who, ban.network, error)
            return False
        except TooManyBans:
            self._written(ban)
            with contextlib.suppress(DatabaseError):
                await self.load()
            raise
        self._written(ban)
        return True

    def _written(self, ban: Ban) -> None:
        """The database knows better from now on, unless another ban of the network has come in between."""
        if self._unwritten.get(ban.network) is ban:
            del self._unwritten[ban.network]

    async def remove(self, network: str, by: Actor) -> bool:
        """Let a network in again, and return whether it was banned.  Raises `DatabaseError`: then it still is."""
        assert self._database is not None
        was_known = network in self._known
        is_gone = await self._database.write(queries.unban, network, by, self._clock())
        if self._unwritten.pop(network, None) is not None and not is_gone:
            logger.info("%s has lifted the ban of %s, which was not written down", by.who, network)
        self._replace({name: ban for name, ban in self._known.items() if name != network})
        return is_gone or was_known

    def _replace(self, bans: dict[str, Ban]) -> None:
        """Have *bans* in force; only what differs costs anything."""
        before, self._known = self._known, bans
        for network in before.keys() - bans.keys():
            with contextlib.suppress(AddressError):
                self._table.remove(parse_plain_network(network))
        fresh = NetworkTable()
        for name, ban in bans.items():
            if before.get(name) != ban:
                found = _read(name)
                if found is not None:
                    self._table.put(found, _end(ban))
                    fresh.put(found, _end(ban))
        if len(fresh) and self._networks_banned is not None:
            self._networks_banned(partial(fresh.covers, now=self._clock()))


def expel(clients: Clients, board: Switchboard, is_banned: Callable[[str], bool]) -> None:
    """End the clients and the visitors who are there and banned: that costs 4 us for each who is there."""
    for client in clients:
        if is_banned(client.address.peer.host):
            client.end(BANNED)

    def is_unwanted(member: Member) -> bool:
        return isinstance(member, Barrable) and any(map(is_banned, member.origins))

    board.abort_those(is_unwanted)


def _end(ban: Ban) -> float:
    return inf if ban.until is None else ban.until


def _read(network: str) -> Network | None:
    """Return the network of a ban; None if somebody has written to the database what is none."""
    try:
        return parse_plain_network(network)
    except AddressError as error:
        logger.error("a ban is not in force: %s", error)
        return None
