"""The server as a whole."""

from contextlib import AsyncExitStack

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..errors import ConfigurationError
from ..switchboard import open_switchboard
from ..tls.fingerprints import Fingerprint
from .absence import ExpectedTunnels
from .admin.handing_over import HandingOver
from .admin.operations import Operations
from .admin.place import claimed_place
from .admin.port import AdminPort
from .configuration import Configuration
from .database import open_database
from .draining import Draining
from .encryption import Encryption
from .handoff import Handoff, asked_for_handoff
from .hub import Hub, are_loopback
from .knowledge import Knowledge
from .settings import ServerSettings
from .sockets import ListeningSockets, fitting, open_sockets


@attrs.frozen
class Server:
    """A running server: where it listens, with the real ports.

    *fingerprint* is that of the certificate by which clients can know it, if it takes TLS; they need it if the
    certificate *is_self_made*, as no authority vouches for it then.  It *is_open* if nobody needs a token, as far as is
    known now; *first_token* is the one that the server has made, as long as it is good and in the state folder.
    *handoff* is what another server has handed over, if this one has replaced it.
    """

    control_addresses: tuple[TcpAddress, ...]
    public_addresses: tuple[TcpAddress, ...]
    https_addresses: tuple[TcpAddress, ...] = ()
    fingerprint: Fingerprint | None = None
    is_self_made: bool = False
    is_open: bool = False
    first_token: str | None = attrs.field(default=None, repr=False)
    handoff: Handoff | None = attrs.field(default=None, repr=False, eq=False)
    _configuration: Configuration | None = attrs.field(default=None, repr=False, eq=False)
    _draining: Draining | None = attrs.field(default=None, repr=False, eq=False)

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining is not None and self._draining.is_under_way

    def drain(self) -> None:
        """Have `serve` return once all visitors have left, and after `ServerSettings.drain` seconds at the latest.

        It does not wait.  Nobody else is let in, and clients are told to go elsewhere (GoAway); those who do not are
        told at the end.  Requests that are under way are answered, and so are those that visitors send on connections
        which they keep: these end after the next answer, or after `DRAINING_IDLE` seconds without a request.
        Connections that are relayed as bytes (TCP, TLS that passes through, WebSockets) go on while there is time.
        """
        assert self._draining is not None
        self._draining.begin()

    async def reload(self, settings: ServerSettings) -> None:
        """Put *settings* into force, as a whole, and without interrupting anybody.  Files are read again.

        What cannot change while the server runs stays as it was: where it listens, its domain, its state folder and
        whether it gets certificates automatically; a warning in the log names what takes a restart.  Names and ports of
        tunnels that are open stay theirs.  Clients whose plain token is gone are told so; others stay.

        Raises `ConfigurationError`, also once the server drains, and `DatabaseError`: nothing has changed then.
        """
        assert self._configuration is not None
        await self._configuration.change(settings)


async def serve(
    settings: ServerSettings | None = None,
    *,
    sockets: ListeningSockets | None = None,
    replace: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve clients and visitors until cancelled, or drained (`Server.drain`).

    `nursery.start` gives the `Server` once all ports listen.  *sockets* that listen already are used instead of what
    the settings say, and belong to the server.  With *replace*, the server that runs with the same state folder, if
    there is one, hands its sockets over and drains; if this one fails before it is ready, that one goes on.

    Raises `otun.errors.ListenError` when a port cannot be had, `DatabaseError`, `otun.errors.OtunError` when another
    server uses the state folder or does not hand over, and `ConfigurationError` for certificates and databases that
    cannot be used.  Cancelled, all connections are closed at once.
    """
    settings = settings or ServerSettings()
    async with AsyncExitStack() as stack:
        handoff = await _take_over(settings, stack) if replace else None
        place = database = None
        if settings.state is not None:
            place = stack.enter_context(claimed_place(settings.state, None if handoff is None else handoff.place))
            database = await stack.enter_async_context(open_database(settings.state))
        if handoff is not None:
            sockets = await fitting(settings, handoff.sockets)
        sockets = await open_sockets(settings, sockets)
        stack.callback(sockets.close)
        board = await stack.enter_async_context(open_switchboard())
        tasks = await stack.enter_async_context(open_background())
        encryption = Encryption(settings, is_private=are_loopback(sockets.control))
        # Clients come to the HTTPS port, too.
        knowledge = Knowledge(settings, database, board, is_private=are_loopback(sockets.control + sockets.https))
        await knowledge.load()
        hub = Hub(settings, sockets, board, tasks, encryption, knowledge)
        configuration = Configuration(settings, encryption, knowledge, hub)
        draining = Draining(hub, configuration)
        server = _describe(sockets, encryption, knowledge, handoff, configuration, draining)
        hub.expect(ExpectedTunnels() if handoff is None else handoff.tunnels)
        if handoff is not None:
            await handoff.complete()  # Nothing can fail any more; connections wait in the sockets.
        if place is not None and place.admin is not None:
            operations = Operations(server, hub, knowledge)
            AdminPort(operations, HandingOver(hub, place, draining), tasks).listen(board, place.admin)
        hub.listen()
        knowledge.keep_fresh(hub.clients, tasks)
        encryption.keep_fresh(hub.https_port.certificate_obtained, tasks)
        task_status.started(server)
        await draining.run()


def _describe(
    sockets: ListeningSockets,
    encryption: Encryption,
    knowledge: Knowledge,
    handoff: Handoff | None,
    configuration: Configuration,
    draining: Draining,
) -> Server:
    return Server(
        sockets.addresses("control"),
        sockets.addresses("public"),
        sockets.addresses("https"),
        fingerprint=encryption.fingerprint,
        is_self_made=encryption.is_self_made,
        is_open=knowledge.authenticator.is_open,
        first_token=knowledge.first_token,
        handoff=handoff,
        configuration=configuration,
        draining=draining,
    )


async def _take_over(settings: ServerSettings, stack: AsyncExitStack) -> Handoff | None:
    """Ask for the place of the server that runs, if one does; what it hands over is closed with *stack*."""
    if settings.state is None:
        raise ConfigurationError("the server to replace is found by its state folder: give --state DIR")
    handoff = await stack.enter_async_context(asked_for_handoff(settings.state))
    if handoff is not None:
        stack.callback(handoff.sockets.close)
    return handoff
