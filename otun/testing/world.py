"""A server, its clients and its visitors in one program, without a port; made for `trio.testing.MockClock`."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..client.connecting import SERVER_LIMITS
from ..client.opening import TunnelSettings, open_tunnels_over
from ..client.tunnel import Tunnel
from ..errors import ServerUnreachable
from ..mux import Session, open_session
from ..server import ServerSettings
from ..server.clients import ClientAddress
from ..server.configuration import Configuration
from ..server.control_port import CLIENT_LIMITS
from ..server.draining import Draining
from ..server.encryption import Encryption
from ..server.hub import Hub
from ..server.knowledge import Knowledge
from ..server.sockets import ListeningSockets
from ..switchboard import open_switchboard
from .network import Network

DOMAIN: Final = "tunnel.test"
"""The domain of a server that is given no settings: its tunnels are `http://NAME.tunnel.test`."""

SERVER: Final = TcpAddress("server.test", 4443)
"""What clients call the server; there is no such address."""

CLIENT: Final = ClientAddress(TcpAddress("198.51.100.7", 40_000), SERVER.host)
VISITOR: Final = "192.0.2.7"
"""Where clients and visitors come from (RFC 5737)."""

SEED: Final = 1
"""Of what is random: each run of a test is the same."""


@attrs.frozen(eq=False)
class _Server:
    hub: Hub
    draining: Draining
    tasks: trio.Nursery
    scope: trio.CancelScope


class World:
    """A server that clients and visitors reach in memory, and what can happen to them.  Made by `open_world`.

    It is the whole server, but has no ports for raw TCP, no TLS, and no state folder: what it knows ends with it.
    """

    def __init__(self, settings: ServerSettings, tasks: trio.Nursery) -> None:
        self._settings = settings
        self._tasks = tasks
        self._network = Network()
        self._random = Random(SEED).random
        self._server: _Server | None = None

    # Those who come

    @asynccontextmanager
    async def open_tunnel(
        self,
        settings: TunnelSettings | None = None,
        *,
        name: str | None = None,
        token: str | None = None,
        reconnect: bool = True,
        max_retries: int | None = None,
    ) -> AsyncIterator[Tunnel]:
        """Open a tunnel on the server, as `otun.open_tunnel` does, and raise what that raises."""
        settings = settings or TunnelSettings()
        if name is not None:
            settings = attrs.evolve(settings, name=name)
        async with (
            open_switchboard() as board,
            open_tunnels_over(
                self._open_session,
                board,
                SERVER,
                [settings],
                token=token,
                reconnect=reconnect,
                max_retries=max_retries,
                random=self._random,
            ) as (tunnel,),
        ):
            yield tunnel

    @asynccontextmanager
    async def visit(self, address: str = VISITOR) -> AsyncIterator[trio.SocketStream]:
        """Connect to the server's public port from *address*, until the body ends.

        Raises `ConnectionRefusedError` while there is no server.
        """
        if self._server is None:
            raise ConnectionRefusedError("there is no server")
        near, far = socket.socketpair()
        far.setblocking(False)
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as visitor:
            self._server.hub.http_port.visitor_connected(far, TcpAddress(address, 40_000))
            yield visitor

    # What can happen

    def break_connections(self) -> None:
        """Break every connection between clients and the server, as by resets; they can connect anew."""
        self._network.break_all()

    def stall(self) -> None:
        """Have nothing pass between clients and the server, and nobody connect, without anybody being told."""
        self._network.stall()

    def go_on(self) -> None:
        """Have everything pass again, first what was sent meanwhile."""
        self._network.go_on()

    def kill_server(self) -> None:
        """End the server on the spot, with all connections.  Then there is none until `start_server`."""
        self._network.break_all()
        if self._server is not None:
            self._server.scope.cancel()
            self._server = None

    def drain_server(self) -> None:
        """Have the server let nobody else in, and end when it can: see `otun.Server.drain`.  Then there is none."""
        if self._server is not None:
            self._server.draining.begin()
            self._server = None

    async def start_server(self) -> None:
        """Start a server; one that runs drains, and this one takes its place as with `otun.serve(replace=True)`."""
        old, self._server = self._server, None
        server: _Server = await self._tasks.start(self._serve)
        if old is not None:
            server.hub.expect(old.hub.tunnels())
            old.draining.begin()
        self._server = server

    # How they meet

    async def _serve(self, *, task_status: trio.TaskStatus[_Server]) -> None:
        settings = self._settings
        with trio.CancelScope() as scope:
            async with open_switchboard() as board, open_background() as tasks:
                knowledge = Knowledge(settings, None, board, is_private=True)
                await knowledge.load()
                encryption = Encryption(settings, is_private=True)
                hub = Hub(settings, ListeningSockets(), board, tasks, encryption, knowledge)
                knowledge.keep_fresh(hub.clients, tasks)
                draining = Draining(hub, Configuration(settings, encryption, knowledge, hub))
                task_status.started(_Server(hub, draining, tasks, scope))
                await draining.run()

    @asynccontextmanager
    async def _open_session(self, timeout: float) -> AsyncIterator[Session]:
        """Do what `otun.client.connecting.Connector` does."""
        with trio.move_on_after(timeout):
            await self._network.wait_passing()
        server = self._server
        if server is None or not self._network.passes:
            reason = "connection refused" if self._network.passes else f"no answer within {timeout:.0f} seconds"
            raise ServerUnreachable(f"cannot reach the server at {SERVER}: {reason}")
        near, far = self._network.connect()
        server.tasks.start_soon(self._serve_client, server.hub, far)
        async with open_session(near, "client", limits=SERVER_LIMITS) as session:
            yield session

    async def _serve_client(self, hub: Hub, stream: trio.abc.Stream) -> None:
        async with open_session(stream, "server", limits=CLIENT_LIMITS) as session:
            await hub.control_port.serve_client(session, CLIENT)


@asynccontextmanager
async def open_world(settings: ServerSettings | None = None) -> AsyncIterator[World]:
    """Start a server, by *settings* as far as they do not say where it listens, until the body ends.

    Nobody needs a token, unless *settings* have some.
    """
    settings = settings or ServerSettings(domain=DOMAIN)
    if settings.public_url is None:
        settings = attrs.evolve(settings, public_url=f"http://{{name}}.{settings.domain or 'localhost'}")
    async with open_background() as tasks:
        world = World(settings, tasks)
        await world.start_server()
        yield world
