"""Where clients and visitors meet: the ports by which both come in, and the tunnels that are open."""

import socket
from itertools import islice
from typing import Final

import trio

from ..addresses import is_loopback_host
from ..switchboard import Listener, Switchboard
from .absence import ExpectedTunnels, Hold
from .client_gate import ClientGate
from .clients import Clients
from .control_port import ControlPort
from .encryption import Encryption
from .http_port import HttpPort
from .https_port import HttpsPort
from .knowledge import Knowledge
from .listening import bound_address
from .opening import ENDING, TunnelOpener
from .redirects import Redirects
from .registry import Registry
from .settings import ServerSettings
from .sockets import ListeningSockets
from .tcp_port import TcpPorts
from .urls import PublicPorts

MAX_HANDED_OVER: Final = 50_000
"""Hosts, each with a path, of which a server tells the one that takes its place."""


class Hub:
    """Everything between a listening socket and a tunnel.  Nobody comes in before `listen`."""

    def __init__(
        self,
        settings: ServerSettings,
        sockets: ListeningSockets,
        board: Switchboard,
        tasks: trio.Nursery,
        encryption: Encryption,
        knowledge: Knowledge,
    ) -> None:
        self._board = board
        self._tasks = tasks
        self.sockets: ListeningSockets = sockets
        self._listeners: list[Listener] = []
        bans = knowledge.bans
        self._hold = Hold(board, settings.hold)
        self.clients = Clients()
        self.registry = Registry(settings.domain, self._hold, is_kept_from=knowledge.reservations.is_kept_from)
        ports = PublicPorts(
            http=_port_of(sockets.public), https=_port_of(sockets.https), has_certificate=encryption.will_cover
        )
        self.tcp_ports = TcpPorts(
            settings.tcp_ports,
            sockets.addresses("public") or sockets.addresses("https"),
            board,
            bans,
            max_streams=settings.max_streams,
            hold=self._hold,
        )
        self.opener = TunnelOpener(
            settings,
            self.clients,
            knowledge.authenticator,
            knowledge.reservations,
            self.registry,
            self.tcp_ports,
            knowledge.traffic,
            ports=ports,
            certificates=encryption.automatic,
        )
        self.control_port = ControlPort(self.clients, self.opener, bans)
        self.client_gate = ClientGate(
            self.control_port,
            board,
            tasks,
            encryption,
            bans,
            is_plaintext_allowed=_takes_plaintext(settings, sockets),
        )
        self._redirects = Redirects(self.registry, encryption, self._redirect_port(settings)) if sockets.https else None
        self.http_port = HttpPort(settings, self.registry, board, self._redirects, tasks, bans)
        self.https_port = HttpsPort(self.http_port, encryption, self.client_gate)

    def _redirect_port(self, settings: ServerSettings) -> int | None:
        return _port_of(self.sockets.https) if settings.redirect else None

    def apply(self, settings: ServerSettings) -> None:
        """Put *settings* into force, for all who are there and all who come."""
        self.opener.apply(settings)
        self._hold.seconds = settings.hold
        self.tcp_ports.change(settings.tcp_ports, max_streams=settings.max_streams)
        self.client_gate.is_plaintext_allowed = _takes_plaintext(settings, self.sockets)
        self.http_port.apply(settings)
        if self._redirects is not None:
            self._redirects.port = self._redirect_port(settings)

    @property
    def visitors(self) -> int:
        """Connections of visitors, on all ports."""
        return self.http_port.visitors + self.tcp_ports.attendance.present

    def tunnels(self) -> ExpectedTunnels:
        """Return what a server that takes the place of this one can expect."""
        routes = islice(self.registry.routes(), MAX_HANDED_OVER)
        return ExpectedTunnels(
            routes=tuple((host, route.path.decode(), route.keeper) for host, route in routes),
            ports=tuple((tunnel.port, tunnel.route.keeper) for tunnel in self.tcp_ports),
        )

    def expect(self, tunnels: ExpectedTunnels) -> None:
        """Expect the clients that had *tunnels* with the server before this one, and those with reservations."""
        for host, path, keeper in tunnels.routes:
            self.registry.expect(host, path.encode(), keeper=keeper)
        for port, keeper in tunnels.ports:
            self.tcp_ports.expect(port, keeper=keeper, sockets=self.sockets.tcp.get(port, ()))
        if self._hold.seconds:
            self.opener.expect_reserved()

    def listen(self) -> None:
        """Let clients and visitors in."""
        for sockets, accepted in (
            (self.sockets.control, self.client_gate.client_connected),
            (self.sockets.public, self.http_port.visitor_connected),
            (self.sockets.https, self.https_port.visitor_connected),
        ):
            self._listeners += [Listener(self._board, sock, accepted) for sock in sockets]

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self.opener.is_draining

    def drain(self) -> None:
        """Let nobody else in, and have all who are there go when they can: clients elsewhere, visitors for good.

        New requests of visitors who are there still reach the clients: a GoAway is about the other side's streams.
        """
        for listener in self._listeners:
            listener.finish()
        self._listeners.clear()
        self._hold.end()
        self.tcp_ports.drain()
        self.http_port.drain()
        self.opener.is_draining = True
        for client in self.clients:
            if not client.session.is_closed:
                client.session.go_away()

    async def wait_for_visitors(self) -> None:
        """Wait until the last one has left."""
        await self.http_port.wait_nobody()
        await self.tcp_ports.attendance.wait_nobody()

    async def dismiss_clients(self) -> None:
        """Tell those who are still there that this is the end, and wait until they have heard it."""
        for client in self.clients:
            client.end(ENDING)
        await self.client_gate.attendance.wait_nobody()


def are_loopback(sockets: tuple[socket.socket, ...]) -> bool:
    """Whether only this machine can reach them."""
    return all(is_loopback_host(bound_address(sock).host) for sock in sockets)


def _takes_plaintext(settings: ServerSettings, sockets: ListeningSockets) -> bool:
    return settings.allow_plaintext or (are_loopback(sockets.control) and settings.client_ca is None)


def _port_of(sockets: tuple[socket.socket, ...]) -> int | None:
    return bound_address(sockets[0]).port if sockets else None
