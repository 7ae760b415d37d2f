"""Limits on visitors: of time for each phase of a connection, of their number, and of what is held for them."""

import resource
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from itertools import count

import pytest
import trio

from otun import HttpTimeouts, Session

from .conversation import Conversation, Tenant, answer_by_name, conversation, tenant
from .harness import RunningServer
from .raw_client import registered_client
from .services import receive_head, response
from .visitors import ask, connect, fetch, parse, receive_exactly, receive_until_reset, request, reset

LONG, SHORT = 1e6, 0.5
"""Seconds: a limit that no test reaches, and one that is waited for."""


def only(**limits: float) -> HttpTimeouts:
    """Limits of which all but these are never reached."""
    return HttpTimeouts(**({"head": LONG, "idle": LONG, "body": LONG, "response": LONG} | limits))


async def receive_rest(visitor: trio.SocketStream) -> bytes:
    """Receive until the server closes in an orderly way."""
    return b"".join([bytes(piece) async for piece in visitor])


async def say_nothing(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    """Leave a request without an answer."""


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert HttpTimeouts() == HttpTimeouts(head=10, idle=75, body=60, response=300)


# The head


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: app.localhost\r\n", b"\r\nGET /"])
async def test_a_head_that_is_not_finished_in_time_gets_408(start_server, begun: bytes) -> None:
    server = await start_server(timeouts=only(head=SHORT))
    async with tenant(server.control, "app") as app, await connect(server.public) as visitor:
        await visitor.send_all(begun)
        answer = parse(await receive_rest(visitor))
        assert (answer.status, answer.fields["Otun-Error"]) == (408, "request_timeout")
        assert not app.streams


async def test_a_head_that_drips_does_not_gain_time(start_server) -> None:
    server = await start_server(timeouts=only(head=SHORT))
    async with tenant(server.control, "app"), await connect(server.public) as visitor:

        async def drip() -> None:
            with suppress(trio.BrokenResourceError):
                for number in count():
                    await visitor.send_all(f"X-{number}: y\r\n".encode() if number else request()[:-2])
                    await fetch(server.public)  # Takes a while.

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            answer = parse(await receive_rest(visitor))
            nursery.cancel_scope.cancel()
        assert answer.status in (408, 431)
        assert answer.status == 408


async def test_a_connection_that_asks_for_nothing_is_closed_without_a_word(start_server) -> None:
    server = await start_server(timeouts=only(head=SHORT))
    async with await connect(server.public) as visitor:
        assert await receive_rest(visitor) == b""


async def test_the_head_of_a_further_request_has_the_same_limit(start_server) -> None:
    server = await start_server(timeouts=only(head=SHORT))
    async with tenant(server.control, "app"), conversation(server.public) as visitor:
        assert (await visitor.ask("/1")).status == 200
        await visitor.stream.send_all(request("/2")[:-1])
        assert (await visitor.receive()).status == 408
        assert await visitor.receive_rest() == b""


# Between requests


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
async def test_an_idle_connection_is_closed_without_a_word(start_server, sent: bytes) -> None:
    server = await start_server(timeouts=only(idle=SHORT))
    async with tenant(server.control, "app") as app, conversation(server.public) as visitor:
        assert (await visitor.ask("/1")).status == 200
        await visitor.stream.send_all(sent)
        assert await visitor.receive_rest() == b""
        await app.client.see_no_streams_but_control()


async def test_an_idle_limit_does_not_run_while_a_request_is_served(start_server) -> None:
    async def answer_later(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if len(one.heads) > 1:
            async with conversation(server.public) as idle:  # Its limit passes in the meantime.
                await idle.ask("/", host="other.localhost")
                await idle.receive_rest()
        await answer_by_name(one, stream, number, head)

    server = await start_server(timeouts=only(idle=SHORT))
    async with (
        tenant(server.control, "app", answer_later),
        tenant(server.control, "other"),
        conversation(server.public) as visitor,
    ):
        assert (await visitor.ask("/1")).status == 200
        assert (await visitor.ask("/2")).text == "app 1 /2"


# Bodies


@pytest.mark.parametrize(
    "sent",
    [
        request("/", "Content-Length: 10", method="POST"),
        request("/", "Content-Length: 10", method="POST") + b"half",
        request("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nhalf\r\n",
        request("/", "Transfer-Encoding: chunked", method="POST") + b"4\r\nhalf\r\n0\r\nX: y\r\n",
    ],
    ids=["nothing", "half", "chunked", "trailers"],
)
async def test_a_request_whose_body_stalls_gets_408(start_server, sent: bytes) -> None:
    server = await start_server(timeouts=only(body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(sent)
        await client.session.accept()
        answer = parse(await receive_rest(visitor))
        assert (answer.status, answer.fields["Otun-Error"]) == (408, "request_timeout")
        await client.see_no_streams_but_control()


async def test_a_service_that_does_not_take_the_body_is_504(start_server) -> None:
    server = await start_server(timeouts=only(body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:

        async def send() -> None:
            with suppress(trio.BrokenResourceError):
                await visitor.send_all(request("/", "Content-Length: 100000000", method="POST") + bytes(100_000_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await client.session.accept()
            received = b""
            with suppress(trio.BrokenResourceError):  # The server does not read all that is still sent.
                async for piece in visitor:
                    received += piece
            nursery.cancel_scope.cancel()
        answer = parse(received)
        assert (answer.status, answer.fields["Otun-Error"]) == (504, "local_service_timeout")


async def test_a_response_whose_body_stalls_is_cut_short(start_server) -> None:
    server = await start_server(timeouts=only(body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert (await receive_until_reset(visitor)).endswith(b"half")
        await client.see_no_streams_but_control()


async def test_a_visitor_who_does_not_take_its_answer_is_cut_short(start_server) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(response(bytes(100_000_000)))

    server = await start_server(timeouts=only(body=SHORT))
    async with tenant(server.control, "app", answer) as app, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await app.wait_for_requests(1)
        await app.client.see_no_streams_but_control()
        assert len(await receive_until_reset(visitor)) < 100_000_000


@pytest.mark.parametrize("kind", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
async def test_an_event_stream_may_be_silent_for_longer(start_server, kind: str) -> None:
    server = await start_server(timeouts=only(body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request("/events"))
        events = await client.session.accept()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n\r\n" % kind.encode()
        await events.send_all(head + b"data: 1\n\n")
        await receive_head(visitor)
        for _ in range(3):  # Others are cut short for the same silence.
            async with await connect(server.public) as other:
                await other.send_all(request("/other"))
                stream = await client.session.accept()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
                await receive_until_reset(other)
        await events.send_all(b"data: 2\n\n")
        received = b""
        while b"data: 2\n\n" not in received:
            received += await visitor.receive_some()
        await events.aclose()


async def test_an_event_stream_whose_visitor_has_finished_may_not(start_server) -> None:
    server = await start_server(timeouts=only(body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request("/events"))
        events = await client.session.accept()
        await events.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await receive_head(visitor)
        await visitor.send_eof()
        await receive_until_reset(visitor)
        await client.see_no_streams_but_control()


# The response's head


async def test_a_service_that_does_not_answer_is_504_and_named(start_server) -> None:
    server = await start_server(timeouts=only(response=SHORT))
    async with tenant(server.control, "app", say_nothing, local="localhost:3000") as app:
        answer = await fetch(server.public)
        assert (answer.status, answer.fields["Otun-Error"]) == (504, "local_service_timeout")
        assert "localhost:3000" in answer.text
        await app.client.see_no_streams_but_control()


@pytest.mark.parametrize(
    "begun", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"]
)
async def test_a_head_that_is_never_whole_is_no_answer(start_server, begun: bytes) -> None:
    async def begin(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(begun)

    server = await start_server(timeouts=only(response=SHORT))
    async with tenant(server.control, "app", begin):
        received = await ask(server.public, request())
        assert b"HTTP/1.1 504 Gateway Timeout\r\n" in received


async def test_after_a_request_with_a_body_the_services_time_begins_with_the_bodys_end(start_server) -> None:
    server = await start_server(timeouts=only(response=SHORT))
    async with tenant(server.control, "app", say_nothing), await connect(server.public) as visitor:
        await visitor.send_all(request("/", "Content-Length: 2", method="POST") + b"x")
        async with await connect(server.public) as other:
            await other.send_all(request())
            assert parse(await receive_rest(other)).status == 504
        await visitor.send_all(b"y")
        assert parse(await receive_rest(visitor)).status == 504


async def test_a_further_request_gives_the_service_as_much_time_as_the_first_one(start_server) -> None:
    async def answer_later(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if len(one.heads) > 1:
            async with await connect(server.public) as stalling:  # The limit for bodies passes in the meantime.
                await stalling.send_all(request("/", "Content-Length: 10", host="other.localhost", method="POST"))
                assert parse(await receive_rest(stalling)).status == 408
        await answer_by_name(one, stream, number, head)

    server = await start_server(timeouts=only(body=SHORT))
    async with (
        tenant(server.control, "app", answer_later),
        tenant(server.control, "other", say_nothing),
        conversation(server.public) as visitor,
    ):
        assert (await visitor.ask("/1")).status == 200
        assert (await visitor.ask("/2")).text == "app 1 /2"


async def test_an_upgraded_connection_has_no_limit_of_http(start_server) -> None:
    server = await start_server(timeouts=only(idle=SHORT, body=SHORT))
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request("/", "Connection: Upgrade", "Upgrade: odd"))
        stream = await client.session.accept()
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n")
        await receive_head(visitor)
        for _ in range(3):  # Others are refused for the same silence.
            stalled = request("/", "Content-Length: 2", method="POST") + b"x"
            assert parse(await ask(server.public, stalled)).status == 408
        await stream.send_all(b"hello")
        assert await receive_exactly(visitor, 5) == b"hello"


# Slow visitors, many at a time


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for 5,000 connections with both ends in this process."""
    needed = 11_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this system allows {hard} open files; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_5000_unfinished_heads_do_not_keep_others_from_their_answers(start_server, many_descriptors) -> None:
    server = await start_server(timeouts=only())
    async with tenant(server.control, "app") as app, AsyncExitStack() as stack:
        slow = []

        async def open_slowly(number: int) -> None:
            for _ in range(number):
                visitor = await stack.enter_async_context(await connect(server.public))
                slow.append(visitor)
                await visitor.send_all(request()[:-4])

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(open_slowly, 100)
            async with conversation(server.public) as visitor:
                for number in range(100):
                    assert (await visitor.ask(f"/{number}")).text == f"app 1 /{number}"
        assert len(slow) == 5000
        for _ in range(100):
            assert (await fetch(server.public)).status == 200
        assert len(app.streams) == 101, "none of the unfinished has reached the tunnel"
        await slow[2500].send_all(b"\r\n\r\n")
        assert b" 200 OK" in await slow[2500].receive_some()
        for one in slow:
            reset(one)


# How many


async def see_served(server: RunningServer) -> None:
    """Wait until there is a place again."""
    received = b""
    while not received.startswith(b"HTTP/1.1 200 "):
        with suppress(trio.BrokenResourceError):
            received = await ask(server.public, request("/", "Connection: close"))


async def take_place(server: RunningServer, stack: AsyncExitStack, host: str = "app.localhost") -> Conversation:
    """Open a connection that is served, and stays; wait for a place if there is none."""
    while True:
        visitor = await stack.enter_async_context(conversation(server.public))
        if (await visitor.ask("/", host=host)).status == 200:
            return visitor
        await visitor.stream.aclose()


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_connection_too_many_gets_503_and_places_are_used_again(start_server, how: str) -> None:
    server = await start_server(max_connections=2)
    async with tenant(server.control, "app"), AsyncExitStack() as stack:
        stays = await take_place(server, stack)
        for _ in range(3):
            second = await take_place(server, stack)
            for sent in (b"", request()):
                answer = parse(await ask(server.public, sent))
                assert (answer.status, answer.fields["Otun-Error"]) == (503, "server_full")
                assert int(answer.fields["Retry-After"]) > 0
            if how == "reset":
                reset(second.stream)
            else:
                await second.stream.aclose()
            assert (await stays.ask("/")).status == 200


@pytest.mark.parametrize("how", ["no request", "not found", "bad request", "upgrade", "time-out", "answered"])
async def test_every_way_to_end_frees_the_place(start_server, how: str) -> None:
    async def upgrade(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if b"Upgrade" not in head:
            await answer_by_name(one, stream, number, head)
            return
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n")
        await stream.send_eof()

    timeouts = only(head=SHORT) if how == "time-out" else only()
    server = await start_server(max_connections=1, max_streams=1, timeouts=timeouts)
    sent = {
        "no request": b"",
        "not found": request(host="none.localhost"),
        "bad request": b"nonsense\r\n\r\n",
        "upgrade": request("/", "Connection: Upgrade", "Upgrade: odd"),
        "time-out": b"GET / HT",
        "answered": request("/", "Connection: close"),
    }[how]
    async with tenant(server.control, "app", upgrade), tenant(server.control, "other", upgrade):
        for _ in range(3):
            async with await connect(server.public) as visitor:
                await visitor.send_all(sent)
                if how != "no request":
                    await visitor.receive_some()
            await see_served(server)


async def test_a_stream_too_many_gets_503_and_places_are_used_again(start_server) -> None:
    server = await start_server(max_streams=2)
    async with (
        tenant(server.control, "app") as app,
        tenant(server.control, "other"),
        conversation(server.public) as one,
    ):
        await one.ask("/")
        async with conversation(server.public) as two:
            await two.ask("/")
            answer = await fetch(server.public)
            assert (answer.status, answer.fields["Otun-Error"]) == (503, "busy")
            assert int(answer.fields["Retry-After"]) > 0
            assert (await fetch(server.public, host="other.localhost")).status == 200, "others have places of their own"
            assert (await two.ask("/")).status == 200
        await see_served(server)
        assert (await one.ask("/")).status == 200
        await app.streams[0].aclose()
        await app.client.see_no_streams_but_control()
        async with conversation(server.public) as two, conversation(server.public) as three:
            assert [(await each.ask("/")).status for each in (two, three)] == [200, 200]


@pytest.mark.parametrize("how", ["closed", "reset", "cut short"])
async def test_a_stream_that_ends_in_any_way_frees_its_place(start_server, how: str) -> None:
    async def end(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if b"/end" not in head:
            await answer_by_name(one, stream, number, head)
        elif how == "closed":
            await stream.aclose()
        elif how == "reset":
            stream.reset(1)  # type: ignore[attr-defined]
        else:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            await stream.aclose()

    server = await start_server(max_streams=1)
    async with tenant(server.control, "app", end):
        for _ in range(3):
            async with await connect(server.public) as visitor:
                await visitor.send_all(request("/end"))
                with suppress(trio.BrokenResourceError):
                    while await visitor.receive_some():
                        pass
            await see_served(server)


async def test_an_upgraded_connection_counts_until_it_ends(start_server) -> None:
    server = await start_server(max_connections=2, max_streams=1)
    async with registered_client(server.control) as client, tenant(server.control, "other"):
        async with await connect(server.public) as visitor, AsyncExitStack() as stack:
            await visitor.send_all(request("/", "Connection: Upgrade", "Upgrade: odd"))
            stream = await client.session.accept()
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd\r\n\r\n")
            await receive_head(visitor)
            assert (await fetch(server.public)).fields["Otun-Error"] == "busy"
            await take_place(server, stack, "other.localhost")
            assert (await fetch(server.public)).fields["Otun-Error"] == "server_full"
        await stream.aclose()
        await client.see_no_streams_but_control()


# What is held


@pytest.mark.parametrize("end", ["finishes", "finishes and resets"])
async def test_an_answer_counts_as_held_until_its_visitor_has_it_even_if_the_service_is_done(
    start_server, registries, end: str
) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        nonlocal sent
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while session().statistics().buffered < 100_000:
            await stream.send_all(bytes(10_000))
            sent += 10_000
            await one.client.session.ping()
        await stream.send_eof()
        if end == "finishes and resets":
            stream.reset(1)  # type: ignore[attr-defined]
        await one.client.session.ping()
        is_done.set()

    def session() -> Session:
        (session,) = [
            tunnel.session for registry in registries for route in registry._present for tunnel in route.members
        ]
        return session

    sent, is_done = 0, trio.Event()
    server = await start_server(timeouts=only())
    async with tenant(server.control, "app", answer), await connect(server.public) as visitor:
        await visitor.send_all(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        await is_done.wait()
        assert session().statistics().buffered >= 100_000
        _, begun = await receive_head(visitor)
        assert len(begun) + len(await receive_rest(visitor)) == sent
        assert session().statistics().buffered == 0
        assert [tunnel.streams for route in registries[0]._present for tunnel in route.members] == [0]


async def test_who_pipelines_and_reads_nothing_is_answered_no_further(start_server, registries) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(sent)

    sent = response(bytes(1_000_000))
    server = await start_server(timeouts=only())
    async with (
        tenant(server.control, "app", answer) as app,
        await connect(server.public) as visitor,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(visitor.send_all, b"".join([request(f"/{number}") for number in range(500)]))
        # Whatever the kernel's buffers take, it ends: then nothing moves although everybody has had many turns.
        asked = -1
        while asked != len(app.heads):
            asked = len(app.heads)
            for _ in range(200):
                await app.client.session.ping()
        assert asked < 50
        (session,) = [
            tunnel.session for registry in registries for route in registry._present for tunnel in route.members
        ]
        assert session.statistics().buffered <= len(sent)
        for _ in range(500):
            await receive_exactly(visitor, len(sent))
        assert len(app.heads) == 500
