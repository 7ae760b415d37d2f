"""A server for two tenants and more, in this process: `one.tunnel.test` leads to the tunnel `one`."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from otun import TcpAddress

from ..client.support import forward_until_end
from ..server.harness import RunningServer, loopback_settings, run_server
from ..server.services import start_service
from ..server.visitors import request
from .http_peers import Origin, Visitor
from .support import LIMIT, Program, Start

DOMAIN: Final = "tunnel.test"

Serve = Callable[[Origin], Awaitable[None]]


@attrs.frozen
class Tenants:
    """The server, to which tunnels are opened."""

    server: RunningServer
    _nursery: trio.Nursery

    @property
    def port(self) -> int:
        return self.server.public.port

    async def open(self, name: str, serve: Serve) -> None:
        """Have *serve* called for each connection to a local service, and open the tunnel *name* to that."""

        async def handle(connection: trio.abc.HalfCloseableStream) -> None:
            assert isinstance(connection, trio.SocketStream)
            await serve(Origin(connection))

        service = await start_service(self._nursery, handle)
        await self.forward(name, service.address)

    async def forward(self, name: str, local: TcpAddress) -> None:
        """Open the tunnel *name* to a service that is already there."""
        await self._nursery.start(partial(forward_until_end, self.server.control, local, name=name))

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[Visitor]:
        """Connect as a visitor, for as long as the body runs."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield Visitor(stream)


@pytest.fixture
async def tenants(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Tenants]:
    """A server with a domain, and nobody on it yet.  Nothing that a visitor or an origin does is an error of ours."""
    yield Tenants(await run_server(nursery, loopback_settings(domain=DOMAIN)), nursery)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def host(name: str) -> str:
    """The host name of a tunnel."""
    return f"{name}.{DOMAIN}"


def ask(target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """A request to the tunnel `one`."""
    asked = request(target, *fields, host=host("one"), method=method, body=body)
    return asked.replace(b"HTTP/1.1\r\n", f"HTTP/{version}\r\n".encode(), 1)


def posting(*fields: str) -> bytes:
    """The head of a request with a body."""
    return ask("/", *fields, method="POST")


async def curl(start: Start, port: int, *words: str | Path, target: str = "/") -> Program:
    """Run curl to its end against the tunnel `one`.  It prints the status; its standard error has the conversation."""
    program = await start(
        "curl", "-sv", "-w", "%{http_code}\\n", "--max-time", str(LIMIT), "-H", f"Host: {host('one')}", *words,
        f"http://127.0.0.1:{port}{target}",
    )  # fmt: skip
    await program.wait_for_end()
    return program
