"""Visitors, clients and moments by which a limit might be passed by, or one take what is another's."""

from contextlib import AsyncExitStack, suppress

import pytest
import trio
import trio.testing

from otun import Stream, StreamReset
from otun.cli.running_server import ask
from otun.http import pages
from otun.server.registry import Registration
from otun.server.upstream import Upstream

from .conversation import Tenant, conversation
from .harness import Engine
from .limited import Limited, StartLimited
from .raw_client import RawClient, port_of, raw_client
from .services import response
from .visitors import connect, receive_exactly, request, reset

A_FAIR_SHARE = 0.25
"""Of two who have the same turns: half, less what one misses whose socket has nothing at that moment."""


async def swallow(stream: trio.abc.ReceiveStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for _ in stream:
            pass


async def send_for_ever(stream: trio.abc.SendStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while True:
            await stream.send_all(bytes(100_000))


async def answer_for_ever(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    await send_for_ever(stream)


async def open_port(client: RawClient) -> int:
    answer = await client.register(kind="tcp", token="ci-secret", id="port")
    return port_of(answer)


def find(here: Limited, name: str) -> Registration:
    return next(one for one in here.registrations if one.name.startswith(name))


async def have_waiters(here: Limited, count: int = 1) -> None:
    """Wait until so many wait for a turn."""
    while sum(len(throttle._waiters) for throttle in here.traffic._accounts["ci"].tunnels.values()) < count:
        await trio.testing.wait_all_tasks_blocked(0.01)


# Turns


async def test_those_who_send_have_as_many_turns_as_those_who_receive(
    start_limited: StartLimited, nursery: trio.Nursery
) -> None:
    here = await start_limited("bandwidth=2MB")
    async with here.tenant("down", answer_for_ever), raw_client(here.server.control) as client:
        port = await open_port(client)
        nursery.start_soon(client.serve, swallow)
        down, up = await connect(here.server.public), await trio.open_tcp_stream("127.0.0.1", port)
        async with down, up:
            await down.send_all(request(host="down.localhost"))
            nursery.start_soon(swallow, down)
            nursery.start_soon(send_for_ever, up)
            await have_waiters(here, 2)
            ways = find(here, "down"), find(here, "tcp")
            before = [one.count_moved() for one in ways]
            moved = [0, 0]
            while sum(moved) < 3_000_000:
                await trio.sleep(0.01)
                moved = [one.count_moved() - was for one, was in zip(ways, before, strict=True)]
            assert min(moved) >= A_FAIR_SHARE * sum(moved), moved
        nursery.cancel_scope.cancel()


async def test_bodies_of_requests_have_as_many_turns_as_those_of_responses(
    start_limited: StartLimited, nursery: trio.Nursery
) -> None:
    here = await start_limited("bandwidth=2MB")
    async with raw_client(here.server.control) as client:
        assert (await client.register("app", token="ci-secret"))["type"] == "registered"

        async def serve(stream: trio.abc.HalfCloseableStream) -> None:
            head = bytes(await stream.receive_some())
            if head.startswith(b"POST"):
                await swallow(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            await send_for_ever(stream)

        nursery.start_soon(client.serve, serve)
        down, up = await connect(here.server.public), await connect(here.server.public)
        async with down, up:
            await down.send_all(request("/down"))
            nursery.start_soon(swallow, down)
            await up.send_all(request("/up", "Content-Length: 1000000000", method="POST"))
            nursery.start_soon(send_for_ever, up)
            while len(find(here, "app").owners) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await have_waiters(here, 2)
            ways = list(find(here, "app").owners)
            before = [one.moved for one in ways]
            moved = [0, 0]
            while sum(moved) < 3_000_000:
                await trio.sleep(0.01)
                moved = [one.moved - was for one, was in zip(ways, before, strict=True)]
            assert min(moved) >= A_FAIR_SHARE * sum(moved), moved
        nursery.cancel_scope.cancel()


# Bytes


async def test_a_reset_is_no_way_around_the_bandwidth(
    start_limited: StartLimited, engine: Engine, nursery: trio.Nursery
) -> None:
    if engine == "tasks":
        pytest.skip("without epoll, a reset shows to those who read only")
    here = await start_limited("bandwidth=1kB")
    async with raw_client(here.server.control) as client:
        port = await open_port(client)
        nursery.start_soon(client.serve, swallow)
        for _ in range(5):
            visitor = await trio.open_tcp_stream("127.0.0.1", port)
            await visitor.send_all(bytes(50_000))
            await have_waiters(here)
            reset(visitor)
            await here.see_nobody()
        (throttle,) = here.traffic._accounts["ci"].tunnels.values()
        assert throttle.count() <= 2_000 + 5 * 1024  # The burst, a piece that is one too many, and some seconds.
        nursery.cancel_scope.cancel()


async def test_what_comes_with_an_upgrade_is_counted_once(start_limited: StartLimited, nursery: trio.Nursery) -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    sizes = []

    async def serve(stream: trio.abc.HalfCloseableStream) -> None:
        sizes.append(len(await stream.receive_some()))
        await stream.send_all(answer + bytes(10_000))
        await swallow(stream)

    here = await start_limited("bandwidth=1MB")
    async with raw_client(here.server.control) as client:
        assert (await client.register("app", token="ci-secret"))["type"] == "registered"
        nursery.start_soon(client.serve, serve)
        async with await connect(here.server.public) as visitor:
            await visitor.send_all(request("/", "Connection: Upgrade", "Upgrade: echo"))
            await receive_exactly(visitor, 10_000)
        await here.see_nobody()
        assert find(here, "app").count_moved() == sizes[0] + len(answer) + 10_000
        nursery.cancel_scope.cancel()


def test_a_stream_whose_answer_is_still_on_its_way_at_the_end_of_the_day_is_not_used_again() -> None:
    class SlowVisitor:
        def owes(self, upstream: Upstream) -> bool:
            return True

    upstream = Upstream(SlowVisitor(), Registration("app", session=None))
    upstream.cut(pages.daily_limit(1))
    assert not upstream.is_persistent, "the visitor would leave it open"


# Visitors


@pytest.mark.parametrize("limits", ["visitors=3", "tunnel.visitors=3"])
async def test_those_who_have_waited_for_a_stream_are_not_too_many_then(
    start_limited: StartLimited, limits: str, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr("otun.yamux.connection.OPEN_BACKLOG", 2)
    go_on = trio.Event()

    async def serve(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        await go_on.wait()
        await stream.send_all(response(b"hello"))
        await swallow(stream)

    answers = []

    async def visit() -> None:
        async with await connect(here.server.public) as visitor:
            await visitor.send_all(request())
            answers.append(bytes(await visitor.receive_some())[:12])
            if len(answers) == 7:
                go_on.set()
            await trio.sleep_forever()

    here = await start_limited(limits)
    async with raw_client(here.server.control) as client, trio.open_nursery() as visitors:
        assert (await client.register("app", token="ci-secret"))["type"] == "registered"
        for _ in range(10):
            visitors.start_soon(visit)
        while find(here, "app").streams < 2 or len(client.session._unaccepted) < 2:
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(client.serve, serve)
        await go_on.wait()
        while len(answers) < 10:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert find(here, "app").streams == 3
        visitors.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert sorted(answers) == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 503"] * 7


# Those who wait


@pytest.mark.parametrize("how", ["ban", "kick", "day", "unlimited"])
async def test_those_who_wait_for_a_turn_leave_nothing_behind_however_that_ends(
    start_limited: StartLimited, how: str, nursery: trio.Nursery
) -> None:
    here = await start_limited("bandwidth=20kB")
    async with raw_client(here.server.control) as client, AsyncExitStack() as visitors:

        async def visit(port: int, data: bytes) -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2")
            nursery.start_soon(send_and_swallow, await visitors.enter_async_context(stream), data)
            return stream

        async def serve(stream: Stream) -> None:
            with suppress(StreamReset):
                if b"/down" in await stream.receive_some():
                    await stream.send_all(response(bytes(1_000_000)))
                async for _ in stream:
                    pass

        assert (await client.register("app", token="ci-secret", id="app"))["type"] == "registered"
        tcp_port, port = await open_port(client), here.server.public.port
        nursery.start_soon(client.serve, serve)
        await visit(tcp_port, bytes(1_000_000))
        await visit(port, request("/down"))
        await visit(port, request("/up", method="POST", body=bytes(1_000_000)))
        await have_waiters(here, 3)
        await visit(port, request("/paused"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        match how:
            case "ban":
                await ask(here.folder, "ban", network="127.0.0.2", force=True)
            case "kick":
                await ask(here.folder, "kick", who="app")
                await client.session.wait_closed()
            case "day":
                await here.limit("daily=1kB")
            case _:
                await here.limit(None)
        if how in ("kick", "unlimited"):
            await visitors.aclose()
        await here.see_nobody()
        nursery.cancel_scope.cancel()


async def send_and_swallow(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(data)
        await swallow(stream)


# What is cut short


@pytest.mark.parametrize("ending", ["reset", "loss"])
async def test_an_answer_that_has_come_is_whole_for_the_visitor_whatever_happens_then(
    start_limited: StartLimited, ending: str, nursery: trio.Nursery
) -> None:
    here = await start_limited("bandwidth=100kB")
    async with raw_client(here.server.control) as client:
        assert (await client.register("app", token="ci-secret"))["type"] == "registered"

        async def serve(stream: Stream) -> None:
            await stream.receive_some()
            await stream.send_all(response(bytes(150_000)))  # Less than a window.
            await have_waiters(here)
            if ending == "reset":
                stream.reset()
            else:
                await client.vanish()

        nursery.start_soon(client.serve, serve)
        async with conversation(here.server.public) as visitor:
            answer = await visitor.ask()
            assert (answer.status, len(answer.body)) == (200, 150_000)
        await here.see_nobody()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["tcp", "http"])
async def test_who_goes_on_sending_after_a_reset_still_gets_what_had_come(
    start_limited: StartLimited, kind: str, caplog: pytest.LogCaptureFixture, nursery: trio.Nursery
) -> None:
    here = await start_limited("bandwidth=100kB")
    async with raw_client(here.server.control) as client:
        data = response(bytes(150_000))

        async def serve(stream: Stream) -> None:
            await stream.receive_some()
            await stream.send_all(data)
            await stream.send_eof()
            await have_waiters(here)
            stream.reset()

        nursery.start_soon(client.serve, serve)
        if kind == "tcp":
            visitor = await trio.open_tcp_stream("127.0.0.1", await open_port(client))
        else:
            await client.register("app", token="ci-secret")
            visitor = await connect(here.server.public)
        async with visitor:
            await visitor.send_all(request("/", "Content-Length: 1000000", method="POST"))
            received = 0
            while received < len(data):
                with suppress(trio.BrokenResourceError):
                    await visitor.send_all(b"more")
                piece = await visitor.receive_some()
                assert piece, f"{len(data) - received} bytes are missing"
                received += len(piece)
        await here.see_nobody()
        nursery.cancel_scope.cancel()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
