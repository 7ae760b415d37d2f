"""Fixtures of the client's tests."""

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from otun import TcpAddress, Tunnel, TunnelSettings, UnixAddress
from otun.addresses import LocalAddress
from otun.client.opening import TunnelKind

from ..server.fixtures import (
    StartService,
    authority,
    edge,
    encrypted,
    engine,
    http_ports,
    nobody_listens,
    registries,
    server,
    server_log,
    server_sessions,
    start_edge,
    start_server,
    start_service,
    stranger,
)
from ..server.harness import RunningServer, make_hung_tests_fail
from ..server.services import Handler, address_of
from .support import ForwardTo, Names, Place, forward_until_end

__all__ = [
    "authority",
    "edge",
    "encrypted",
    "engine",
    "http_ports",
    "nobody_listens",
    "registries",
    "server",
    "server_log",
    "server_sessions",
    "start_edge",
    "start_server",
    "start_service",
    "stranger",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    make_hung_tests_fail(items, Path(__file__).parent)


@pytest.fixture
def forward_to(server: RunningServer, nursery: trio.Nursery) -> ForwardTo:
    """Open the tunnel `app`, of either *kind*, to a local service's address."""

    async def start(local: TcpAddress | str | int, *, kind: TunnelKind = "http", **options: object) -> Tunnel:
        settings = TunnelSettings(name="app", kind=kind)
        return await nursery.start(partial(forward_until_end, server.control, local, settings=settings, **options))

    return start


@pytest.fixture
def tunnel_to(server: RunningServer, start_service: StartService, forward_to: ForwardTo):
    """Start a service that calls a handler for each connection, and a tunnel of either kind to it."""

    async def start(handler: Handler, **options: object) -> Place:
        service = await start_service(handler)
        return Place(server, await forward_to(service.address, **options), service)

    return start


@pytest.fixture(params=["refused", "no socket", "no name"])
async def unreachable(request: pytest.FixtureRequest, nobody_listens: TcpAddress, tmp_path: Path) -> LocalAddress:
    """A local address that cannot be reached: some are found out at once, before a byte of the request is there."""
    match request.param:
        case "refused":
            return nobody_listens
        case "no socket":
            return UnixAddress(str(tmp_path / "none.sock"))
        case _:
            Names()
            return TcpAddress("printer.home", 9100)


@pytest.fixture
def full_port() -> Iterator[TcpAddress]:
    """A port whose queue is full: connecting to it is neither refused nor accepted."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            fillers.append(filler)
            filler.settimeout(0.2)
            try:
                filler.connect(sock.getsockname())
            except TimeoutError:
                break
        else:
            pytest.skip("this system queues connections without end")
        yield address_of(sock)
        for filler in fillers:
            filler.close()
