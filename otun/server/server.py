"""The server as a whole."""

import socket
from contextlib import AsyncExitStack, ExitStack
from functools import partial

import attrs
import trio

from ..addresses import TcpAddress, is_loopback_host
from ..background import open_background
from ..errors import ConfigurationError
from ..switchboard import Listener, open_switchboard
from ..tls.fingerprints import Fingerprint
from .absence import Hold
from .admin.operations import Operations
from .admin.place import listening_socket
from .admin.port import AdminPort
from .authentication import Authenticator, read_identity_key
from .bans import Bans, expel
from .client_gate import ClientGate
from .clients import Clients
from .control_port import ControlPort
from .database import Database, open_database
from .encryption import Encryption
from .first_token import ensure_token, read_first_token
from .http_port import HttpPort
from .https_port import HttpsPort
from .listening import bound_address, open_listening_sockets
from .opening import TunnelOpener
from .redirects import Redirects
from .registry import Registry
from .reservations import Reservations
from .settings import ServerSettings
from .tcp_port import TcpPorts
from .traffic import Traffic
from .urls import PublicPorts


@attrs.frozen
class Server:
    """A running server: where it listens, with the real ports.

    *fingerprint* is that of the certificate by which clients can know it, if it takes TLS; they need it if the
    certificate *is_self_made*, as no authority vouches for it then.  It *is_open* if nobody needs a token, as far as is
    known now; *first_token* is the one that the server has made, as long as it is good and in the state folder.
    """

    control_addresses: tuple[TcpAddress, ...]
    public_addresses: tuple[TcpAddress, ...]
    https_addresses: tuple[TcpAddress, ...] = ()
    fingerprint: Fingerprint | None = None
    is_self_made: bool = False
    is_open: bool = False
    first_token: str | None = attrs.field(default=None, repr=False)


async def serve(
    settings: ServerSettings | None = None, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve clients and visitors until cancelled; `nursery.start` gives the `Server` once all ports listen.

    Raises `otun.errors.ListenError` when a port cannot be had, `DatabaseError`, and `ConfigurationError` for
    certificates and databases that cannot be used.  Cancelled, all connections are closed at once.
    """
    settings = settings or ServerSettings()
    async with AsyncExitStack() as stack:
        database = admin = None
        if settings.state is not None:
            database = await stack.enter_async_context(open_database(settings.state))
            admin = stack.enter_context(listening_socket(settings.state))
        with ExitStack() as unused:
            control = await _listen(settings.control, unused)
            public = await _listen(settings.public, unused)
            https = await _listen(settings.https, unused)
            is_private = _are_loopback(control)
            encryption = Encryption(settings, is_private=is_private)
            # Clients come to the HTTPS port, too.
            authenticator = await _load_tokens(settings, database, is_private=_are_loopback(control + https))
            reservations = Reservations(database, lifetime=settings.reservation)
            await reservations.load()
            bans = Bans(database)
            await bans.load()
            unused.pop_all()  # The board closes them now.
        server = Server(
            tuple(map(bound_address, control)),
            tuple(map(bound_address, public)),
            tuple(map(bound_address, https)),
            encryption.fingerprint,
            encryption.is_self_made,
            authenticator.is_open,
            _first_token(settings, authenticator),
        )
        clients = Clients()
        ports = PublicPorts(http=_port_of(public), https=_port_of(https), has_certificate=encryption.will_cover)
        board = await stack.enter_async_context(open_switchboard())
        hold = Hold(board, settings.hold) if settings.hold else None
        registry = Registry(settings.domain, hold)
        traffic = Traffic(board, database, settings.tunnel_quota)
        await traffic.load()
        background = await stack.enter_async_context(open_background())
        tcp_ports = TcpPorts(
            settings.tcp_ports,
            server.public_addresses or server.https_addresses,
            board,
            bans,
            max_streams=settings.max_streams,
            hold=hold,
        )
        opener = TunnelOpener(
            settings,
            clients,
            authenticator,
            reservations,
            registry,
            tcp_ports,
            traffic,
            ports=ports,
            certificates=encryption.automatic,
        )
        opener.expect_reserved()
        client_gate = ClientGate(
            ControlPort(clients, opener, bans),
            board,
            background,
            encryption,
            bans,
            is_plaintext_allowed=settings.allow_plaintext or (is_private and settings.client_ca is None),
        )
        redirects = Redirects(registry, encryption, ports.https if settings.redirect else None) if https else None
        http_port = HttpPort(settings, registry, board, redirects, background, bans)
        https_port = HttpsPort(http_port, encryption, client_gate)
        if admin is not None and database is not None:
            operations = Operations(server, clients, registry, http_port, tcp_ports, authenticator, bans, database)
            Listener(board, admin, AdminPort(operations, background).connected)
        for sock in control:
            Listener(board, sock, client_gate.client_connected)
        for sock in public:
            Listener(board, sock, http_port.visitor_connected)
        for sock in https:
            Listener(board, sock, https_port.visitor_connected)
        background.start_soon(encryption.store.keep_fresh)
        background.start_soon(authenticator.keep_fresh, clients.end_revoked, traffic.limits_changed)
        background.start_soon(reservations.keep_fresh, clients.names_in_use)
        bans.tell(partial(expel, clients, board))
        background.start_soon(bans.keep_fresh)
        background.start_soon(traffic.keep_fresh, clients.registrations)
        if encryption.automatic is not None:
            encryption.automatic.tell(https_port.certificate_obtained)
            background.start_soon(encryption.automatic.run)
        task_status.started(server)
        await trio.sleep_forever()


async def _load_tokens(settings: ServerSettings, database: Database | None, *, is_private: bool) -> Authenticator:
    """Return who knows the tokens; there is one at least, unless nobody needs any."""
    if not (settings.open or is_private or settings.tokens):
        if database is None or settings.state is None:
            raise ConfigurationError(
                "everybody could open tunnels on this server: it needs tokens, or a state folder (--state) to keep one "
                "in; --open lets everybody in"
            )
        await ensure_token(database, settings.state)
    authenticator = Authenticator(
        settings.tokens,
        database,
        key=read_identity_key(settings.state),
        is_open=settings.open,
        is_private=is_private,
    )
    await authenticator.load()
    return authenticator


def _first_token(settings: ServerSettings, authenticator: Authenticator) -> str | None:
    token = read_first_token(settings.state) if settings.state is not None else None
    return token if token is not None and authenticator.knows(token) else None


async def _listen(address: TcpAddress | None, unused: ExitStack) -> list[socket.socket]:
    """Listen there, if anywhere; *unused* closes the sockets again."""
    sockets = await open_listening_sockets(address) if address is not None else []
    for sock in sockets:
        unused.callback(sock.close)
    return sockets


def _are_loopback(sockets: list[socket.socket]) -> bool:
    return all(is_loopback_host(bound_address(sock).host) for sock in sockets)


def _port_of(sockets: list[socket.socket]) -> int | None:
    return bound_address(sockets[0]).port if sockets else None
