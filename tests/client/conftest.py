"""Fixtures of the client's tests."""

from functools import partial
from pathlib import Path

import pytest
import trio

from otun import TcpAddress, Tunnel

from ..server.fixtures import (
    StartService,
    engine,
    nobody_listens,
    registries,
    server,
    start_server,
    start_service,
)
from ..server.harness import RunningServer, make_hung_tests_fail
from ..server.services import Handler
from .support import ForwardTo, Place, forward_until_end

__all__ = ["engine", "nobody_listens", "registries", "server", "start_server", "start_service"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    make_hung_tests_fail(items, Path(__file__).parent)


@pytest.fixture
def forward_to(server: RunningServer, nursery: trio.Nursery) -> ForwardTo:
    """Open the tunnel `app` to a local service's address."""

    async def start(local: TcpAddress | str | int, **options: object) -> Tunnel:
        return await nursery.start(partial(forward_until_end, server.control, local, name="app", **options))

    return start


@pytest.fixture
def tunnel_to(server: RunningServer, start_service: StartService, forward_to: ForwardTo):
    """Start a service that calls a handler for each connection, and a tunnel to it."""

    async def start(handler: Handler, **options: object) -> Place:
        service = await start_service(handler)
        return Place(server, await forward_to(service.address, **options), service)

    return start
