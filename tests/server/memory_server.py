"""A server whose clients come by streams in memory, and its visitors by pairs of sockets, for a clock that jumps."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import trio
import trio.testing

from otun import ServerSettings, TcpAddress, open_session
from otun.control.messages import Register
from otun.server.absence import Hold
from otun.server.authentication import Authenticator
from otun.server.bans import Bans
from otun.server.clients import ClientAddress, Clients, keeper_of
from otun.server.control_port import CLIENT_LIMITS, ControlPort
from otun.server.http_port import HttpPort
from otun.server.opening import TunnelOpener
from otun.server.registry import Registry
from otun.server.reservations import Reservations
from otun.server.tcp_port import TcpPorts
from otun.server.traffic import Traffic
from otun.server.urls import PublicPorts
from otun.server.visitor import Visitor
from otun.switchboard import open_switchboard

from .conversation import Conversation
from .harness import LOOPBACK, TCP_PORTS
from .raw_client import RawClient


def free_port() -> int:
    """One of the ports for TCP tunnels that nobody on this machine has."""
    for port in random.sample(TCP_PORTS, len(TCP_PORTS)):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("all ports for TCP tunnels are taken")


class Line(trio.abc.Stream):
    """One end of a connection, on which nothing passes while it is frozen, as when its program is stopped."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._passes = trio.Event()
        self._passes.set()

    def freeze(self) -> None:
        self._passes = trio.Event()

    def thaw(self) -> None:
        self._passes.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._passes.wait()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._passes.wait()
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._inner.receive_some(max_bytes)
        await self._passes.wait()
        return data

    async def aclose(self) -> None:
        await self._inner.aclose()


@attrs.define(eq=False)
class MemoryServer:
    """Serves clients until the end of its context."""

    registry: Registry
    tcp_ports: TcpPorts
    _opener: TunnelOpener
    _port: ControlPort
    _http_port: HttpPort
    _nursery: trio.Nursery

    @asynccontextmanager
    async def connect(self, host: str = "127.0.0.1") -> AsyncIterator[tuple[RawClient, Line]]:
        """Be a client that comes from *host*."""
        near, far = trio.testing.memory_stream_pair()
        line = Line(near)
        await self._nursery.start(self._serve, far, ClientAddress(TcpAddress(host, 50_000), host))
        async with open_session(line, "client") as session:
            yield RawClient(session, line, await session.open_stream()), line
            line.thaw()

    def keeper(self, token: str) -> str:
        """Who may come back to the tunnels of a token."""
        return keeper_of(self._opener.authenticate(Register(token=token)).name)

    @asynccontextmanager
    async def visit(self, host: str = "192.0.2.7") -> AsyncIterator[Conversation]:
        """Be a visitor that comes from *host*."""
        near, far = socket.socketpair()
        far.setblocking(False)
        self._http_port._attendance.come()
        Visitor(self._http_port, far, TcpAddress(host, 50_000)).start()
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as stream:
            yield Conversation(stream)

    def cut_visitors(self) -> None:
        """Cut everybody off, as when they are banned."""
        self._http_port.board.abort_those(lambda member: isinstance(member, Visitor))

    async def _serve(self, stream: trio.abc.Stream, address: ClientAddress, task_status: trio.TaskStatus[None]) -> None:
        async with open_session(stream, "server", limits=CLIENT_LIMITS) as session:
            task_status.started()
            await self._port.serve_client(session, address)


@asynccontextmanager
async def memory_server(
    *tokens: str, is_open: bool = False, domain: str | None = "tunnel.test", **changes: object
) -> AsyncIterator[MemoryServer]:
    """Give a server for these plain *tokens*, which reserves names on Trio's clock."""
    settings = ServerSettings(domain=domain, allow_hostnames=("*.example.org",), **changes)  # type: ignore[arg-type]
    clients, bans = Clients(), Bans(None)
    async with AsyncExitStack() as stack:
        board = await stack.enter_async_context(open_switchboard())
        hold = Hold(board, settings.hold)
        registry = Registry(settings.domain, hold)
        tcp_ports = TcpPorts((TCP_PORTS,), (LOOPBACK,), board, bans, max_streams=settings.max_streams, hold=hold)
        nursery = await stack.enter_async_context(trio.open_nursery())
        opener = TunnelOpener(
            settings,
            clients,
            Authenticator(tokens, key=b"", is_open=is_open),
            Reservations(None, lifetime=settings.reservation, clock=trio.current_time),
            registry,
            tcp_ports,
            Traffic(board, None, settings.tunnel_quota),
            ports=PublicPorts(http=8080),
        )
        http_port = HttpPort(settings, registry, board, None, nursery, bans)
        yield MemoryServer(registry, tcp_ports, opener, ControlPort(clients, opener, bans), http_port, nursery)
        with trio.fail_after(60):
            while http_port.visitors:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.01)  # Those who wait have a time limit.
        nursery.cancel_scope.cancel()
