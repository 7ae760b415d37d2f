"""Limits of tokens and tunnels, as visitors meet them: over HTTP, TLS that passes through, TCP and after an upgrade."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
import trio.testing

from otun import HttpTimeouts
from otun.server import queries
from otun.server.database import open_database

from .certificates import DOMAIN
from .conversation import Tenant, conversation, tenant
from .edges import Edge, StartEdge
from .harness import TCP_PORTS, Engine
from .limited import Clock, Limited, StartLimited
from .raw_client import port_of, raw_client
from .services import receive_all, response
from .visitors import Answer, connect, fetch, receive_exactly, receive_until_reset, request, reset

MUCH = 20_000_000
"""Bytes that take longer at the rates here than a test may."""


async def answer_much(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    """Answer `/small` in a few bytes, and everything else in many."""
    await stream.send_all(response(b"small" if b" /small " in head else bytes(MUCH)))


def code_of(answer: Answer) -> str:
    return answer.fields["Otun-Error"]


# Requests


@pytest.mark.parametrize("limits", ["requests=1", "tunnel.requests=1"])
async def test_too_many_requests_get_429_and_when_to_come_again(start_limited: StartLimited, limits: str) -> None:
    here = await start_limited(limits)
    async with here.tenant(), here.tenant("other"), conversation(here.server.public) as visitor:
        count = 0
        while (answer := await visitor.ask()).status == 200:
            count += 1
        assert count >= 10
        assert (answer.status, code_of(answer), answer.fields["Retry-After"]) == (429, "too_many_requests", "1")
        other = await fetch(here.server.public, host="other.localhost")
        assert other.status == (200 if limits.startswith("tunnel") else 429)


async def test_limits_are_the_tokens_and_not_the_sessions(start_limited: StartLimited) -> None:
    here = await start_limited("requests=1")
    async with here.tenant():
        while (await fetch(here.server.public)).status == 200:
            pass
    async with here.tenant():
        assert (await fetch(here.server.public)).status == 429
        await here.limit(None)
        for _ in range(30):
            assert (await fetch(here.server.public)).status == 200
        await here.limit("tunnel.requests=1")
        while (await fetch(here.server.public)).status == 200:
            pass


async def test_connections_of_a_tcp_tunnel_count_as_requests(start_limited: StartLimited) -> None:
    here = await start_limited("requests=1")
    async with raw_client(here.server.control) as client, trio.open_nursery() as nursery:
        answer = await client.register(kind="tcp", token="ci-secret")
        port = port_of(answer)
        nursery.start_soon(client.serve, echo)
        answers = []
        while not answers or answers[-1]:
            async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
                await swallow(visitor.send_all, b"hello")
                answers.append(b"")
                with suppress(trio.BrokenResourceError):
                    answers[-1] = await visitor.receive_some()
        assert len(answers) > 10
        assert set(answers[:-1]) == {b"hello"}
        nursery.cancel_scope.cancel()


async def test_a_servers_limits_hold_without_a_token(start_server) -> None:
    server = await start_server(max_requests=1)
    async with tenant(server.control, "app"), tenant(server.control, "other"):
        while (await fetch(server.public)).status == 200:
            pass
        assert (await fetch(server.public, host="other.localhost")).status == 200


# Visitors


@pytest.mark.parametrize("limits", ["visitors=2", "tunnel.visitors=2"])
async def test_too_many_visitors_get_503(start_limited: StartLimited, limits: str) -> None:
    here = await start_limited(limits)
    async with here.tenant(), here.tenant("other"):
        async with conversation(here.server.public) as one, conversation(here.server.public) as another:
            assert (await one.ask()).status == (await another.ask()).status == 200
            answer = await fetch(here.server.public)
            assert (answer.status, code_of(answer)) == (503, "busy")
            other = await fetch(here.server.public, host="other.localhost")
            assert other.status == (200 if limits.startswith("tunnel") else 503)
            assert (await one.ask()).status == 200
        await here.see_nobody()
        assert (await fetch(here.server.public)).status == 200


async def test_too_many_visitors_of_a_tcp_tunnel_are_closed(start_limited: StartLimited) -> None:
    here = await start_limited("visitors=1")
    async with raw_client(here.server.control) as client, trio.open_nursery() as nursery:
        answer = await client.register(kind="tcp", token="ci-secret")
        port = port_of(answer)
        nursery.start_soon(client.serve, echo)
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
            await visitor.send_all(b"hello")
            assert await receive_exactly(visitor, 5) == b"hello"
            async with await trio.open_tcp_stream("127.0.0.1", port) as second:
                assert await receive_all(second) == b""
            await visitor.send_all(b"again")
            assert await receive_exactly(visitor, 5) == b"again"
        nursery.cancel_scope.cancel()


# Bandwidth


async def test_bytes_take_their_time_and_all_arrive(start_limited: StartLimited) -> None:
    here = await start_limited("bandwidth=400kB")
    body = bytes(range(256)) * 3000
    async with here.tenant("app", partial(answer_with, body)):
        began = time.monotonic()
        answer = await fetch(here.server.public, method="POST", body=bytes(100_000))
        assert answer.body == body
        # 400 kB may come at once, and one piece early.
        assert time.monotonic() - began >= (868_000 - 400_000 - 40_000) / 400_000


async def test_a_servers_bandwidth_holds_without_a_token(start_server) -> None:
    server = await start_server(max_bandwidth=400_000)
    async with tenant(server.control, "app", partial(answer_with, bytes(800_000))):
        began = time.monotonic()
        assert len((await fetch(server.public)).body) == 800_000
        assert time.monotonic() - began >= (800_000 - 400_000 - 40_000) / 400_000


async def answer_with(body: bytes, one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    await stream.send_all(response(body))


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("limits", ["bandwidth=200kB", "tunnel.bandwidth=200kB"])
async def test_small_requests_get_through_beside_large_ones(
    start_limited: StartLimited, limits: str, direction: str, nursery: trio.Nursery
) -> None:
    here = await start_limited(limits)
    async with here.tenant("app", answer_much), await connect(here.server.public) as large:
        if direction == "down":
            await large.send_all(request("/much"))
        else:
            nursery.start_soon(large.send_all, request("/up", method="POST", body=bytes(MUCH)))
        for _ in range(5):
            assert (await fetch(here.server.public, "/small")).body == b"small"
        nursery.cancel_scope.cancel()


async def test_a_tunnel_that_must_pause_does_not_stall_others_of_its_session(
    start_limited: StartLimited, nursery: trio.Nursery
) -> None:
    here = await start_limited("tunnel.bandwidth=1MB")
    async with here.tenant("app", answer_much, id="a") as app:
        assert (await app.client.register("other", token="ci-secret", id="b"))["type"] == "registered"
        down, up = await connect(here.server.public), await connect(here.server.public)
        async with down, up:
            await down.send_all(request("/much"))
            nursery.start_soon(swallow, up.send_all, request("/up", method="POST", body=bytes(MUCH)))
            (throttle, other) = here.traffic._accounts["ci"].tunnels.values()
            while not throttle.has_waiters:
                await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(5):
                answer = await fetch(
                    here.server.public, "/small", host="other.localhost", method="POST", body=bytes(9000)
                )
                assert answer.body == b"small"
            assert throttle.has_waiters
            assert not other.has_waiters
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("direction", ["down", "up"])
async def test_a_visitor_who_leaves_while_it_must_wait_is_forgotten(
    start_limited: StartLimited, engine: Engine, direction: str, nursery: trio.Nursery
) -> None:
    if (engine, direction) == ("tasks", "up"):
        pytest.skip("without epoll, a reset shows to those who read only: when all that came before it has been read")
    here = await start_limited("bandwidth=1kB")
    async with here.tenant("app", answer_much) as app:
        visitor = await connect(here.server.public)
        if direction == "down":
            await visitor.send_all(request("/much"))
            await receive_exactly(visitor, 100)
        else:
            nursery.start_soon(swallow, visitor.send_all, request("/up", method="POST", body=bytes(200_000)))
            while not app.streams:
                await trio.testing.wait_all_tasks_blocked(0.01)
        # Another one waits for its turn before its request leaves.
        waits = await connect(here.server.public)
        await waits.send_all(request("/small"))
        reset(visitor)
        reset(waits)
        await trio.lowlevel.checkpoint()
        await here.see_nobody()


async def test_no_time_limit_passes_because_of_a_pause(start_limited: StartLimited) -> None:
    timeouts = HttpTimeouts(head=0.2, idle=5, body=0.2, response=0.2)
    here = await start_limited("bandwidth=2kB", timeouts=timeouts)
    async with here.tenant("app", partial(answer_with, bytes(6000))):
        answers = []

        async def visit() -> None:
            answers.append(await fetch(here.server.public, method="POST", body=bytes(1000)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(visit)
            nursery.start_soon(visit)
        assert [(answer.status, len(answer.body)) for answer in answers] == [(200, 6000)] * 2


async def test_a_limit_holds_for_those_who_are_there_already(start_limited: StartLimited) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nfirst" % (MUCH + 5))
        await go_on.wait()
        await stream.send_all(bytes(MUCH))

    here = await start_limited(None)
    go_on = trio.Event()
    async with here.tenant("app", answer), await connect(here.server.public) as visitor:
        await visitor.send_all(request())
        received = b""
        while not received.endswith(b"first"):
            received += await visitor.receive_some()
        assert [one.throttle for one in here.registrations] == [None]
        await here.limit("bandwidth=100kB")
        go_on.set()
        await receive_exactly(visitor, 150_000)
        assert any(throttle.has_waiters for throttle in here.traffic._accounts["ci"].tunnels.values())
        await here.limit(None)
        await receive_exactly(visitor, MUCH - 150_000)


@asynccontextmanager
async def echoing(edge: Edge) -> AsyncIterator[None]:
    """A TLS tunnel whose far side sends back what it gets, without looking at it."""
    async with raw_client(edge.control) as client, trio.open_nursery() as nursery:
        answer = await client.register("own", kind="tls")
        assert answer["type"] == "registered", answer
        nursery.start_soon(client.serve, echo)
        yield
        nursery.cancel_scope.cancel()


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async for piece in stream:
        await stream.send_all(bytes(piece))
    await stream.send_eof()


async def answer_upgrade(stream: trio.abc.HalfCloseableStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    await echo(stream)


@asynccontextmanager
async def relayed(here: Limited, kind: str) -> AsyncIterator[trio.SocketStream]:
    """A visitor whose bytes are relayed and come back: by a TCP tunnel, or after an upgrade."""
    async with raw_client(here.server.control) as client, trio.open_nursery() as nursery:
        handler = echo if kind == "tcp" else answer_upgrade
        nursery.start_soon(client.serve, handler)
        if kind == "tcp":
            answer = await client.register(kind="tcp", token="ci-secret")
            port = port_of(answer)
            assert port in TCP_PORTS
            visitor = await trio.open_tcp_stream("127.0.0.1", port)
        else:
            await client.register("app", token="ci-secret")
            visitor = await connect(here.server.public)
            await visitor.send_all(request("/", "Connection: Upgrade", "Upgrade: echo"))
            received = b""
            while b"\r\n\r\n" not in received:
                received += await visitor.receive_some()
        async with visitor:
            yield visitor
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["tcp", "upgrade"])
async def test_relayed_bytes_take_their_time_and_all_arrive(start_limited: StartLimited, kind: str) -> None:
    here = await start_limited("bandwidth=400kB")
    data = bytes(range(256)) * 1500
    async with relayed(here, kind) as visitor, trio.open_nursery() as nursery:
        began = time.monotonic()
        nursery.start_soon(visitor.send_all, data)
        assert await receive_exactly(visitor, len(data)) == data
        assert time.monotonic() - began >= (2 * len(data) - 400_000 - 40_000) / 400_000
        await visitor.send_eof()
        assert await receive_all(visitor) == b""
        await here.see_nobody()


@pytest.mark.parametrize("kind", ["tcp", "upgrade"])
async def test_a_limit_holds_for_relayed_connections_that_are_there_already(
    start_limited: StartLimited, kind: str, nursery: trio.Nursery
) -> None:
    here = await start_limited(None)
    async with relayed(here, kind) as visitor:
        await visitor.send_all(b"hello")
        assert await receive_exactly(visitor, 5) == b"hello"
        await here.limit("bandwidth=100kB")
        nursery.start_soon(visitor.send_all, bytes(MUCH))
        await receive_exactly(visitor, 60_000)
        assert any(throttle.has_waiters for throttle in here.traffic._accounts["ci"].tunnels.values())
        nursery.cancel_scope.cancel()


async def test_a_tls_tunnel_is_limited_without_being_looked_into(start_edge: StartEdge) -> None:
    edge = await start_edge(max_bandwidth=1_000_000, max_requests=1)
    name = f"own.{DOMAIN}"
    async with echoing(edge):
        hello = client_hello(name)
        count = 0
        while True:
            async with await connect(edge.https) as visitor:
                await visitor.send_all(hello)
                first = await visitor.receive_some()
                if not first or first[0] == ALERT:
                    break
                assert hello.startswith(first), first
                count += 1
        assert count >= 1


async def test_requests_by_https_take_their_time_and_are_whole(start_edge: StartEdge) -> None:
    edge = await start_edge(max_bandwidth=400_000)
    body = bytes(range(256)) * 2000
    async with tenant(edge.control, "app", partial(answer_with, body)) as app:
        began = time.monotonic()
        answer = await edge.fetch(method="POST", body=body)
        assert answer.body == body
        assert app.bodies == [body]
        assert time.monotonic() - began >= (2 * len(body) - 400_000 - 40_000) / 400_000
        await edge.see_nobody()


ALERT = 21  # RFC 8446, section 5.1: what a TLS record of this type carries.


def client_hello(name: str) -> bytes:
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


# A day's bytes


@pytest.mark.parametrize("limits", ["daily=300kB", "tunnel.daily=300kB"])
async def test_after_a_days_bytes_visitors_get_429_until_midnight(
    start_limited: StartLimited, limits: str, unix: Clock
) -> None:
    here = await start_limited(limits)
    async with here.tenant("app", answer_much), here.tenant("other"):
        assert (await fetch(here.server.public, "/small")).status == 200
        async with await connect(here.server.public) as visitor:
            await visitor.send_all(request("/much"))
            received = await receive_until_reset(visitor)
        assert len(received) <= 300_000
        answer = await fetch(here.server.public, "/small", "Accept: application/json")
        assert (answer.status, code_of(answer)) == (429, "daily_limit")
        assert answer.fields["Retry-After"] == str(12 * 3600)
        other = await fetch(here.server.public, host="other.localhost")
        assert other.status == (200 if limits.startswith("tunnel") else 429)
        unix.now += 12 * 3600
        assert (await fetch(here.server.public, "/small")).status == 200
        await here.see_nobody()


async def test_an_upload_that_is_too_large_for_today_gets_429(
    start_limited: StartLimited, nursery: trio.Nursery
) -> None:
    here = await start_limited("daily=100kB")
    async with here.tenant(), conversation(here.server.public) as visitor:
        nursery.start_soon(swallow, visitor.stream.send_all, request(method="POST", body=bytes(MUCH)))
        answer = await visitor.receive()
        assert (answer.status, code_of(answer)) == (429, "daily_limit")


async def swallow(call: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await call(data)


@pytest.mark.parametrize("kind", ["tcp", "upgrade"])
async def test_relayed_connections_end_with_the_days_bytes(
    start_limited: StartLimited, kind: str, nursery: trio.Nursery
) -> None:
    here = await start_limited("daily=100kB")
    async with relayed(here, kind) as visitor:
        nursery.start_soon(swallow, visitor.send_all, bytes(MUCH))
        received = 0
        with suppress(trio.BrokenResourceError):  # Unless the sender has met the reset.
            while piece := await visitor.receive_some():
                received += len(piece)
        assert received <= 100_000
        await here.see_nobody()


@pytest.mark.parametrize("limits", ["daily=100kB", "tunnel.daily=100kB"])
@pytest.mark.parametrize("is_limited_before", [True, False])
async def test_usage_survives_a_restart_and_counts_for_limits_that_come_later(
    start_limited: StartLimited, unix: Clock, is_limited_before: bool, limits: str
) -> None:
    here = await start_limited(limits if is_limited_before else None)
    async with here.tenant("app", partial(answer_with, bytes(60_000))):
        assert (await fetch(here.server.public)).status == 200
    await here.server.stop()
    async with open_database(here.folder) as database:
        used = await database.read(queries.usage_of, "ci", "2027-01-15")
        assert 60_000 < used < 61_000
        assert list(await database.read(queries.usage, "2027-01-15")) == [("ci", "http:app")]
    again = await start_limited(None)
    async with again.tenant("app", partial(answer_with, bytes(60_000))):
        if not is_limited_before:
            await again.limit(limits)
        async with await connect(again.server.public) as visitor:
            await visitor.send_all(request())
            assert len(await receive_until_reset(visitor)) <= 40_000
        assert (await fetch(again.server.public)).status == 429
        unix.now += math.ceil(12 * 3600)
        assert (await fetch(again.server.public)).status == 200
