"""The server as a whole."""

import logging
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..mux import Session, open_board_session, open_session
from ..switchboard import HAS_SWITCHBOARD, Listener, Switchboard, open_switchboard
from .control_port import CLIENT_LIMITS, ClientAddress, ControlPort
from .http_port import HttpPort
from .listening import bound_address, open_listening_sockets
from .registry import Registry
from .settings import ServerSettings
from .visitor_task import serve_visitor

logger: logging.Logger = logging.getLogger(__name__)


@attrs.frozen
class Server:
    """A running server: where it listens, with the real ports."""

    control_addresses: tuple[TcpAddress, ...]
    public_addresses: tuple[TcpAddress, ...]


async def serve(
    settings: ServerSettings | None = None, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve clients and visitors until cancelled; `nursery.start` gives the `Server` once both ports listen.

    Raises `otun.errors.ListenError` when a port cannot be had.  Cancelled, all connections are closed at once.
    """
    settings = settings or ServerSettings()
    control = await open_listening_sockets(settings.control)
    try:
        public = await open_listening_sockets(settings.public)
    except BaseException:
        for sock in control:
            sock.close()
        raise
    server = Server(tuple(map(bound_address, control)), tuple(map(bound_address, public)))
    registry = Registry(settings.domain)
    control_port = ControlPort(settings, registry, public_port=server.public_addresses[0].port)
    serve_on_sockets = _serve_on_board if HAS_SWITCHBOARD else _serve_with_tasks
    await serve_on_sockets(control, public, control_port, registry, partial(task_status.started, server))


async def _serve_on_board(
    control: list[socket.socket],
    public: list[socket.socket],
    control_port: ControlPort,
    registry: Registry,
    started: Callable[[], None],
) -> None:
    async with open_switchboard() as board, open_background() as clients:
        http_port = HttpPort(registry, board)
        for sock in control:
            Listener(board, sock, partial(_client_connected, control_port, board, clients))
        for sock in public:
            Listener(board, sock, http_port.visitor_connected)
        started()
        await trio.sleep_forever()


def _client_connected(port: ControlPort, board: Switchboard, clients: trio.Nursery, sock: socket.socket) -> None:
    if port.is_full:
        sock.close()
    else:
        clients.start_soon(
            _serve_client, port, sock, partial(open_board_session, board, sock, "server", limits=CLIENT_LIMITS)
        )


async def _serve_with_tasks(
    control: list[socket.socket],
    public: list[socket.socket],
    control_port: ControlPort,
    registry: Registry,
    started: Callable[[], None],
) -> None:
    async def serve_client(client: trio.SocketStream) -> None:
        if not control_port.is_full:
            await _serve_client(
                control_port, client.socket, partial(open_session, client, "server", limits=CLIENT_LIMITS)
            )

    async def serve_visitor_safely(visitor: trio.SocketStream) -> None:
        try:
            await serve_visitor(registry, visitor)
        except Exception:
            logger.exception("a visitor's task failed")

    async with open_background() as tasks:
        for handler, sockets in ((serve_client, control), (serve_visitor_safely, public)):
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
            await tasks.start(trio.serve_listeners, handler, listeners)
        started()
        await trio.sleep_forever()


async def _serve_client(
    port: ControlPort,
    sock: socket.socket | trio.socket.SocketType,
    open_its_session: Callable[[], AbstractAsyncContextManager[Session]],
) -> None:
    try:
        client = ClientAddress.of(sock)
    except OSError:  # It has gone already.
        sock.close()
        return
    try:
        async with open_its_session() as session:
            await port.serve_client(session, client)
    except Exception:
        logger.exception("client %s: failed", client)
