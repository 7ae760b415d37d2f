"""The server as a whole."""

from contextlib import AsyncExitStack

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..switchboard import Listener, open_switchboard
from ..tls.fingerprints import Fingerprint
from .admin.operations import Operations
from .admin.place import listening_socket
from .admin.port import AdminPort
from .database import open_database
from .encryption import Encryption
from .hub import Hub, are_loopback
from .knowledge import Knowledge
from .settings import ServerSettings
from .sockets import open_sockets


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
        sockets = await open_sockets(settings)
        stack.callback(sockets.close)
        board = await stack.enter_async_context(open_switchboard())
        tasks = await stack.enter_async_context(open_background())
        encryption = Encryption(settings, is_private=are_loopback(sockets.control))
        # Clients come to the HTTPS port, too.
        knowledge = Knowledge(settings, database, board, is_private=are_loopback(sockets.control + sockets.https))
        await knowledge.load()
        hub = Hub(settings, sockets, board, tasks, encryption, knowledge)
        server = Server(
            sockets.addresses("control"),
            sockets.addresses("public"),
            sockets.addresses("https"),
            encryption.fingerprint,
            encryption.is_self_made,
            knowledge.authenticator.is_open,
            knowledge.first_token,
        )
        if admin is not None and database is not None:
            operations = Operations(server, hub, knowledge, database)
            Listener(board, admin, AdminPort(operations, tasks).connected)
        hub.listen()
        knowledge.keep_fresh(hub.clients, tasks)
        encryption.keep_fresh(hub.https_port.certificate_obtained, tasks)
        task_status.started(server)
        await trio.sleep_forever()
