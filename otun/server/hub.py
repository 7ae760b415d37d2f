"""Where clients and visitors meet: the ports by which both come in, and the tunnels that are open."""

import socket

import trio

from ..addresses import is_loopback_host
from ..switchboard import Listener, Switchboard
from .client_gate import ClientGate
from .clients import Clients
from .control_port import ControlPort
from .encryption import Encryption
from .http_port import HttpPort
from .https_port import HttpsPort
from .knowledge import Knowledge
from .listening import bound_address
from .opening import TunnelOpener
from .redirects import Redirects
from .registry import Registry
from .settings import ServerSettings
from .sockets import ListeningSockets
from .tcp_port import TcpPorts
from .urls import PublicPorts


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
        self._sockets = sockets
        bans = knowledge.bans
        self.clients, self.registry = Clients(), Registry(settings.domain, is_kept_from=knowledge.reservations.is_kept_from)
        ports = PublicPorts(
            http=_port_of(sockets.public), https=_port_of(sockets.https), has_certificate=encryption.will_cover
        )
        self.tcp_ports = TcpPorts(
            settings.tcp_ports,
            sockets.addresses("public") or sockets.addresses("https"),
            board,
            bans,
            max_streams=settings.max_streams,
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
        self.client_gate = ClientGate(
            ControlPort(self.clients, self.opener, bans),
            board,
            tasks,
            encryption,
            bans,
            is_plaintext_allowed=_takes_plaintext(settings, sockets),
        )
        redirects = None
        if sockets.https:
            redirects = Redirects(self.registry, encryption, ports.https if settings.redirect else None)
        self.http_port = HttpPort(settings, self.registry, board, redirects, tasks, bans)
        self.https_port = HttpsPort(self.http_port, encryption, self.client_gate)

    @property
    def visitors(self) -> int:
        """Connections of visitors, on all ports."""
        return self.http_port.visitors + self.tcp_ports.visitors

    def listen(self) -> None:
        """Let clients and visitors in."""
        for sock in self._sockets.control:
            Listener(self._board, sock, self.client_gate.client_connected)
        for sock in self._sockets.public:
            Listener(self._board, sock, self.http_port.visitor_connected)
        for sock in self._sockets.https:
            Listener(self._board, sock, self.https_port.visitor_connected)


def are_loopback(sockets: tuple[socket.socket, ...]) -> bool:
    """Whether only this machine can reach them."""
    return all(is_loopback_host(bound_address(sock).host) for sock in sockets)


def _takes_plaintext(settings: ServerSettings, sockets: ListeningSockets) -> bool:
    return settings.allow_plaintext or (are_loopback(sockets.control) and settings.client_ca is None)


def _port_of(sockets: tuple[socket.socket, ...]) -> int | None:
    return bound_address(sockets[0]).port if sockets else None
