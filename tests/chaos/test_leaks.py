"""Server and client in one Trio program: what many lost connections leave behind, counted in tasks and descriptors."""

import gc
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import otun
from otun import TcpAddress

from ..server.harness import Engine, loopback_settings, open_descriptors, run_server
from ..server.services import answering, start_service
from ..server.visitors import ask, connect, request
from .relay import open_relay

TIMES = 20


async def wait_until_served(public: TcpAddress) -> None:
    """Visit until the answer is the service's: each visit waits for its own answer."""
    while b"hello" not in await ask(public, request("/", "Connection: close")):
        pass


async def settle(before: tuple[int, int]) -> tuple[int, int]:
    """Wait until there is no more than *before*, for a while; return what there is."""
    with trio.move_on_after(10):
        while any(now > then for now, then in zip(in_use(), before, strict=True)):  # noqa: ASYNC110 -- nobody tells
            await trio.sleep(0.01)
    return in_use()


def in_use() -> tuple[int, int]:
    """Count tasks and descriptors."""
    gc.collect()
    return trio.lowlevel.current_statistics().tasks_living, len(open_descriptors())


@pytest.mark.parametrize("with_reset", [True, False], ids=["reset", "closed"])
async def test_lost_connections_leave_no_task_and_no_descriptor_behind(
    engine: Engine, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, with_reset: bool
) -> None:
    monkeypatch.setattr("otun.client.backoff.MAX_DELAY", 0.01)  # All of it is one outage, in which waits get longer.
    server = await run_server(nursery, loopback_settings())
    service = await start_service(nursery, answering(b"hello"))
    async with open_relay(server.control) as relay, trio.open_nursery() as forwarding:
        await forwarding.start(partial(otun.forward, relay.address, service.address, name="app"))
        await wait_until_served(server.public)
        await wait_all_tasks_blocked(0.1)
        before = in_use()
        for _ in range(TIMES):
            async with await connect(server.public) as visitor:  # In the middle of something.
                await visitor.send_all(b"GET / HTTP/1.1\r\nHost: app")
                relay.cut(with_reset=with_reset)
                await wait_until_served(server.public)
        assert await settle(before) == before
        forwarding.cancel_scope.cancel()
