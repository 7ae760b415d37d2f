"""The server as a whole."""

import socket
from contextlib import ExitStack
from pathlib import Path

import attrs
import trio

from ..addresses import TcpAddress, is_loopback_host
from ..background import open_background
from ..errors import ConfigurationError
from ..switchboard import Listener, open_switchboard
from ..tls.fingerprints import Fingerprint
from .client_gate import ClientGate
from .control_port import ControlPort
from .encryption import Encryption
from .http_port import HttpPort
from .https_port import HttpsPort
from .listening import bound_address, open_listening_sockets
from .redirects import Redirects
from .registry import Registry
from .settings import ServerSettings
from .tcp_port import TcpPorts
from .urls import PublicPorts


@attrs.frozen
class Server:
    """A running server: where it listens, with the real ports.

    *fingerprint* is that of the certificate by which clients can know it, if it takes TLS; they need it if the
    certificate *is_self_made*, as no authority vouches for it then.
    """

    control_addresses: tuple[TcpAddress, ...]
    public_addresses: tuple[TcpAddress, ...]
    https_addresses: tuple[TcpAddress, ...] = ()
    fingerprint: Fingerprint | None = None
    is_self_made: bool = False


async def serve(
    settings: ServerSettings | None = None, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve clients and visitors until cancelled; `nursery.start` gives the `Server` once all ports listen.

    Raises `otun.errors.ListenError` when a port cannot be had, and `ConfigurationError` for certificates that cannot be
    used.  Cancelled, all connections are closed at once.
    """
    settings = settings or ServerSettings()
    if settings.state is not None:
        _make_folder(settings.state)
    with ExitStack() as unused:
        control = await _listen(settings.control, unused)
        public = await _listen(settings.public, unused)
        https = await _listen(settings.https, unused)
        is_private = all(is_loopback_host(bound_address(sock).host) for sock in control)
        encryption = Encryption(settings, is_private=is_private)
        unused.pop_all()  # The board closes them now.
    server = Server(
        tuple(map(bound_address, control)),
        tuple(map(bound_address, public)),
        tuple(map(bound_address, https)),
        encryption.fingerprint,
        encryption.is_self_made,
    )
    registry = Registry(settings.domain)
    ports = PublicPorts(http=_port_of(public), https=_port_of(https), has_certificate=encryption.will_cover)
    async with open_switchboard() as board, open_background() as background:
        tcp_ports = TcpPorts(
            settings.tcp_ports,
            server.public_addresses or server.https_addresses,
            board,
            max_streams=settings.max_streams,
        )
        control_port = ControlPort(settings, registry, tcp_ports, ports=ports, certificates=encryption.automatic)
        clients = ClientGate(
            control_port,
            board,
            background,
            encryption,
            is_plaintext_allowed=settings.allow_plaintext or (is_private and settings.client_ca is None),
        )
        redirects = Redirects(registry, encryption, ports.https if settings.redirect else None) if https else None
        http_port = HttpPort(settings, registry, board, redirects, background)
        https_port = HttpsPort(http_port, encryption, clients)
        for sock in control:
            Listener(board, sock, clients.client_connected)
        for sock in public:
            Listener(board, sock, http_port.visitor_connected)
        for sock in https:
            Listener(board, sock, https_port.visitor_connected)
        background.start_soon(encryption.store.keep_fresh)
        if encryption.automatic is not None:
            encryption.automatic.tell(https_port.certificate_obtained)
            background.start_soon(encryption.automatic.run)
        task_status.started(server)
        await trio.sleep_forever()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"state folder {folder}: {error.strerror}") from error


async def _listen(address: TcpAddress | None, unused: ExitStack) -> list[socket.socket]:
    """Listen there, if anywhere; *unused* closes the sockets again."""
    sockets = await open_listening_sockets(address) if address is not None else []
    for sock in sockets:
        unused.callback(sock.close)
    return sockets


def _port_of(sockets: list[socket.socket]) -> int | None:
    return bound_address(sockets[0]).port if sockets else None
