"""Visitors who wait: for a free slot in their tunnel's session, or for each other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio import SocketStream

from .harness import RunningServer
from .raw_client import RawClient, registered_client, stream_count
from .services import answer_with_target, answering, receive_all
from .visitors import connect, fetch, parse, receive_answer, request, reset

BACKLOG = 256
"""Streams that may wait to be accepted."""


@asynccontextmanager
async def waiting_visitors(server: RunningServer, client: RawClient, count: int) -> AsyncIterator[list[SocketStream]]:
    """Have so many visitors ask, more than the client's backlog holds, of a client that accepts nobody yet."""
    async with AsyncExitStack() as stack:
        visitors = []
        for number in range(count):
            visitors.append(await stack.enter_async_context(await connect(server.public)))
            await visitors[-1].send_all(request(f"/{number}"))
        while stream_count(client.session) < 1 + BACKLOG:
            await client.session.ping()
        yield visitors


async def test_visitors_beyond_the_backlog_wait_until_the_client_accepts(
    server: RunningServer, nursery: trio.Nursery
) -> None:
    async with registered_client(server.control) as client, waiting_visitors(server, client, BACKLOG + 50) as visitors:
        nursery.start_soon(client.serve, answer_with_target)
        for number, visitor in enumerate(visitors):
            await visitor.send_eof()
            assert parse(await receive_all(visitor)).text == f"/{number}"
        await client.see_no_streams_but_control()


@pytest.mark.parametrize("is_polite", [True, False], ids=["closing", "resetting"])
async def test_visitors_who_leave_while_they_wait_are_forgotten(
    server: RunningServer, nursery: trio.Nursery, is_polite: bool
) -> None:
    async with registered_client(server.control) as client, waiting_visitors(server, client, BACKLOG + 50) as visitors:
        for visitor in visitors[::2]:
            if is_polite:
                await visitor.aclose()
            else:
                reset(visitor)
        await client.session.ping()
        nursery.start_soon(client.serve, answering(b"served"))
        for visitor in visitors[1::2]:
            assert (await receive_answer(visitor)).body == b"served"
            await visitor.aclose()
        assert (await fetch(server.public)).body == b"served"
        await client.see_no_streams_but_control()


async def test_visitors_who_wait_for_a_slot_are_told_when_the_client_goes(server: RunningServer) -> None:
    async with registered_client(server.control) as client, waiting_visitors(server, client, BACKLOG + 20) as visitors:
        await client.session.aclose()
        with trio.fail_after(10):
            for visitor in visitors:
                assert parse(await receive_all(visitor)).status == 502


async def test_50_tunnels_with_visitors_each_are_kept_apart(server: RunningServer, nursery: trio.Nursery) -> None:
    async with AsyncExitStack() as stack:
        for number in range(50):
            client = await stack.enter_async_context(registered_client(server.control, f"app{number}"))
            nursery.start_soon(client.serve, answering(f"app{number}".encode()))

        async def visit(number: int) -> None:
            for _ in range(3):
                assert (await fetch(server.public, host=f"app{number}.localhost")).text == f"app{number}"

        async with trio.open_nursery() as visitors:
            for number in range(50):
                visitors.start_soon(visit, number)


async def test_an_idle_visitor_stays_connected(server: RunningServer, nursery: trio.Nursery) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answer_with_target)
        async with await connect(server.public) as idle:
            for target in ("/1", "/2"):
                await idle.send_all(request(target))
                assert (await receive_answer(idle)).text == target
                for _ in range(50):
                    async with await connect(server.public) as other:
                        await other.send_all(request("/o"))
                        assert (await receive_answer(other)).text == "/o"
