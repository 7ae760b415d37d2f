"""The server as a whole."""

import logging
import socket
from functools import partial

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..mux import open_board_session
from ..switchboard import Listener, Switchboard, open_switchboard
from .control_port import CLIENT_LIMITS, ClientAddress, ControlPort
from .http_port import HttpPort
from .listening import bound_address, open_listening_sockets
from .registry import Registry
from .settings import ServerSettings
from .tcp_port import TcpPorts

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
    async with open_switchboard() as board, open_background() as clients:
        tcp_ports = TcpPorts(settings.tcp_ports, server.public_addresses, board, max_streams=settings.max_streams)
        control_port = ControlPort(settings, registry, tcp_ports, public_port=server.public_addresses[0].port)
        http_port = HttpPort(settings, registry, board)
        for sock in control:
            Listener(board, sock, partial(_client_connected, control_port, board, clients))
        for sock in public:
            Listener(board, sock, http_port.visitor_connected)
        task_status.started(server)
        await trio.sleep_forever()


def _client_connected(port: ControlPort, board: Switchboard, clients: trio.Nursery, sock: socket.socket) -> None:
    if port.is_full:
        sock.close()
    else:
        clients.start_soon(_serve_client, port, board, sock)


async def _serve_client(port: ControlPort, board: Switchboard, sock: socket.socket) -> None:
    try:
        client = ClientAddress.of(sock)
    except OSError:  # It has gone already.
        sock.close()
        return
    try:
        async with open_board_session(board, sock, "server", limits=CLIENT_LIMITS) as session:
            await port.serve_client(session, client)
    except Exception:
        logger.exception("client %s: failed", client)
