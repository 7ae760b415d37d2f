"""What the operator can do while the server runs."""

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from ...control.excerpt import excerpt
from ...control.messages import Error
from ...errors import DatabaseError
from ...version import __version__
from .. import queries
from ..clients import Client, OpenTunnel
from ..database import Database
from ..hub import Hub
from ..knowledge import Knowledge
from ..records import Actor, Ban
from .requests import AddBan, BadCommand, BansWanted, Command, Kick, RemoveBan, SessionsWanted, StatusWanted

if TYPE_CHECKING:
    from ..server import Server

logger: logging.Logger = logging.getLogger(__name__)

SESSIONS_AT_ONCE: Final = 32
"""Sessions in one answer: with 64 tunnels each, of a KiB at most, they are 2 MiB."""

BANS_AT_ONCE: Final = 500

KICKED: Final = Error("this server's operator has ended the session", code="kicked")
"""What the client is told."""

_MAX_SHOWN: Final = 10
"""Tunnels of a session that the audit names."""

Answer = dict[str, object]


@attrs.frozen(eq=False)
class Operations:
    """Carries requests out."""

    server: "Server"
    hub: Hub
    knowledge: Knowledge
    clock: Callable[[], float] = time.time
    started_at: float = attrs.field(factory=trio.current_time)

    @property
    def _database(self) -> Database:
        assert self.knowledge.database is not None  # It is in the same folder as the socket.
        return self.knowledge.database

    async def answer(self, request: Command, by: Actor) -> Answer:
        """Do what is asked *by* somebody, and return what to tell.  Raises `BadCommand`."""
        match request:
            case StatusWanted():
                return await self._status()
            case SessionsWanted(after):
                return self._sessions(after)
            case Kick(who):
                return await self._kick(who, by)
            case AddBan():
                return await self._ban(request, by)
            case RemoveBan(network):
                return await self._unban(network, by)
            case BansWanted(after):
                return self._bans(after)

    async def _status(self) -> Answer:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": int(trio.current_time() - self.started_at),
            "control": list(map(str, self.server.control_addresses)),
            "public": list(map(str, self.server.public_addresses)),
            "https": list(map(str, self.server.https_addresses)),
            "sessions": len(self.hub.clients),
            "tunnels": sum(len(client.tunnels) for client in self.hub.clients),
            "visitors": self.hub.visitors,
            "bans": len(self.knowledge.bans.in_force()),
            "open": self.knowledge.authenticator.is_open,
            "draining": self.server.is_draining,
            "database": await self._trouble(),
        }

    async def _trouble(self) -> str | None:
        try:
            await self._database.version()
        except DatabaseError as error:
            return error.reason
        return self._database.trouble

    def _sessions(self, after: int) -> Answer:
        found = sorted((client for client in self.hub.clients if client.number > after), key=lambda one: one.number)
        return {
            "sessions": list(map(self._describe, found[:SESSIONS_AT_ONCE])),
            "more": len(found) > SESSIONS_AT_ONCE,
        }

    def _describe(self, client: Client) -> Answer:
        return {
            "number": client.number,
            "identity": client.identity.name,
            "address": str(client.address),
            "since": int(self.clock() - (trio.current_time() - client.connected_at)),
            "silence": round(client.silence, 1),
            "tunnels": [
                {
                    "name": tunnel.registration.name,
                    "kind": tunnel.kind,
                    "url": tunnel.url,
                    "visitors": tunnel.registration.streams,
                    "healthy": tunnel.registration.is_healthy,
                }
                for tunnel in client.tunnels.values()
            ],
        }

    async def _kick(self, who: str, by: Actor) -> Answer:
        found = self._find(who.lower())
        if not found:
            raise BadCommand(f"no session has {excerpt(who)} open", "not_found")
        described = list(map(self._describe, found))
        details = list(map(_detail, found))
        is_recorded = True
        try:
            await self._database.write(queries.record_all, by, "session.kick", details, self.clock())
        except DatabaseError as error:  # Whoever fills the disk may be the one to be kicked.
            logger.error("the audit cannot tell that %s ends %s: %s", by.who, "; ".join(details), error)
            is_recorded = False
        for client in found:
            logger.info("client %s: ended by %s", client, by.who)
            client.end(KICKED)
        return {"sessions": described, "recorded": is_recorded}

    def _find(self, who: str) -> list[Client]:
        """Return those who have the tunnel, host name, port or number that *who* is."""
        clients, tcp_ports = self.hub.clients, self.hub.tcp_ports
        if who.startswith("#"):
            return [client for client in clients if str(client.number) == who[1:]]
        if who.isascii() and who.isdigit() and len(who) <= 5 and int(who) in tcp_ports:
            return [clients.client_of(one) for one in tcp_ports[int(who)].route.members]
        return [client for client in clients if any(self._is_called(one, who) for one in client.tunnels.values())]

    def _is_called(self, tunnel: OpenTunnel, who: str) -> bool:
        registration = tunnel.registration
        if registration.name == who:
            return True
        return tunnel.kind != "tcp" and who.removesuffix(".") in self.hub.registry.hosts_of(registration)

    async def _ban(self, request: AddBan, by: Actor) -> Answer:
        ban = Ban(request.network, request.reason, request.until)
        if ban.has_ended(self.clock()):
            raise BadCommand("until: that time is past")
        try:
            is_recorded = await self.knowledge.bans.add(ban, by)
        except queries.TooManyBans as error:
            raise BadCommand(str(error), "too_many_bans") from error
        logger.info("%s was banned by %s", ban.network, by.who)
        return {"network": ban.network, "recorded": is_recorded}

    async def _unban(self, network: str, by: Actor) -> Answer:
        try:
            was_banned = await self.knowledge.bans.remove(network, by)
        except DatabaseError as error:
            raise BadCommand(f"{network} stays banned: {error}", "database") from error
        if not was_banned:
            raise BadCommand(f"{network} is not banned", "not_found")
        logger.info("the ban of %s was lifted by %s", network, by.who)
        return {"network": network}

    def _bans(self, after: str) -> Answer:
        found = [ban for ban in self.knowledge.bans.in_force() if ban.network > after]
        return {"bans": list(map(attrs.asdict, found[:BANS_AT_ONCE])), "more": len(found) > BANS_AT_ONCE}


def _detail(client: Client) -> str:
    names = [tunnel.registration.name for tunnel in client.tunnels.values()]
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return f"session {client.number} of {client.identity.name} from {client}: {', '.join(names[:_MAX_SHOWN])}{more}"
