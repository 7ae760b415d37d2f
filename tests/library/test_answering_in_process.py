"""A tunnel is a Trio listener: a program answers its visitors itself, with no local port."""

import pytest
import trio

from otun import SessionClosed, Stream, TcpAddress, Tunnel, TunnelSettings, open_tunnel
from otun.client.opening import TunnelKind

from ..client.support import kinds, open_tcp_tunnel, public_address
from ..server.harness import RunningServer
from ..server.services import Asked, receive_all, receive_head, response
from ..server.visitors import (
    connect,
    fetch,
    parse,
    receive_answer,
    receive_exactly,
    receive_until_reset,
    request,
    reset,
)


@pytest.fixture
async def tunnel(server: RunningServer) -> Tunnel:
    async with open_tunnel(server.control, name="app") as tunnel:
        yield tunnel


@pytest.fixture
async def tcp_tunnel(server: RunningServer) -> Tunnel:
    async with open_tcp_tunnel(server) as tunnel:
        yield tunnel


async def greet(stream: trio.abc.HalfCloseableStream) -> None:
    async with stream:
        head, _ = await receive_head(stream)
        await stream.send_all(response(b"hello " + head.split(b" ")[1]))


async def test_trio_serves_visitors_like_those_of_any_listener(
    server: RunningServer, tunnel: Tunnel, nursery: trio.Nursery
) -> None:
    nursery.start_soon(trio.serve_listeners, greet, [tunnel])
    assert (await fetch(server.public, "/one")).body == b"hello /one"
    async with trio.open_nursery() as visitors:

        async def visit(number: int) -> None:
            assert (await fetch(server.public, f"/{number}")).text == f"hello /{number}"

        for number in range(50):
            visitors.start_soon(visit, number)


async def test_a_visitor_who_breaks_off_ends_his_own_handler_only(
    server: RunningServer, tunnel: Tunnel, nursery: trio.Nursery
) -> None:
    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_head(stream)
        await stream.send_all(response(b"hello"))
        async for _ in stream:
            pass

    nursery.start_soon(tunnel.serve, answer)
    async with await connect(server.public) as steady:
        for _ in range(5):
            visitor = await connect(server.public)
            await visitor.send_all(request())
            await receive_exactly(visitor, len(response(b"hello")))
            reset(visitor)
        await steady.send_all(request())
        await steady.send_eof()
        assert parse(await receive_all(steady)).body == b"hello"


async def test_an_accept_loop_serves_them_one_by_one(
    server: RunningServer, tunnel: Tunnel, nursery: trio.Nursery
) -> None:
    async def serve() -> None:
        while True:
            await greet(await tunnel.accept())

    nursery.start_soon(serve)
    for number in range(20):
        assert (await fetch(server.public, f"/{number}")).text == f"hello /{number}"


async def test_one_program_serves_a_port_and_a_tunnel_alike(
    server: RunningServer, tunnel: Tunnel, nursery: trio.Nursery
) -> None:
    (port,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, greet, [port, tunnel])
    assert (await fetch(server.public, "/a")).body == b"hello /a"
    async with await trio.testing.open_stream_to_socket_listener(port) as direct:
        await direct.send_all(request("/b"))
        assert parse(await receive_all(direct)).body == b"hello /b"


@kinds
async def test_a_tunnel_is_a_trio_listener_and_its_visitors_are_half_closeable_streams(
    server: RunningServer, kind: TunnelKind
) -> None:
    async with open_tunnel(server.control, TunnelSettings(name="app", kind=kind)) as tunnel:
        assert isinstance(tunnel, trio.abc.Listener)
        async with await connect(public_address(server, tunnel)) as visitor:
            await visitor.send_all(request())
            stream = await tunnel.accept()
            assert isinstance(stream, Stream)
            assert isinstance(stream, trio.abc.HalfCloseableStream)
            head, _ = await receive_head(stream)
            assert Asked.of(head).fields["host"] == "app.localhost"
            assert stream.visitor == TcpAddress(*visitor.socket.getsockname())
            await stream.aclose()


@kinds
async def test_both_ends_may_finish_one_after_the_other(server: RunningServer, kind: TunnelKind) -> None:
    async with (
        open_tunnel(server.control, TunnelSettings(name="app", kind=kind)) as tunnel,
        await connect(public_address(server, tunnel)) as visitor,
    ):
        await visitor.send_all(request(method="POST", body=b"asked"))
        await visitor.send_eof()
        stream = await tunnel.accept()
        _, start = await receive_head(stream)
        assert start + await receive_all(stream) == b"asked"
        await stream.send_all(response(b"late"))
        await stream.send_eof()
        assert parse(await receive_all(visitor)).body == b"late"


async def test_a_tcp_visitor_who_finishes_late_is_heard_to_the_end(server: RunningServer, tcp_tunnel: Tunnel) -> None:
    async with await connect(public_address(server, tcp_tunnel)) as visitor:
        await visitor.send_all(request())
        stream = await tcp_tunnel.accept()
        await stream.send_all(response(b"early"))
        await stream.send_eof()
        assert parse(await receive_all(visitor)).body == b"early"
        await visitor.send_all(b"more")
        await visitor.send_eof()
        assert await receive_all(stream) == request() + b"more"


async def test_a_handler_may_reset_its_visitor(server: RunningServer, tunnel: Tunnel) -> None:
    async with await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await tunnel.accept()
        await stream.send_all(response(bytes(100))[:50])
        await receive_exactly(visitor, 50)
        stream.reset()
        await receive_until_reset(visitor)


async def test_a_visitor_who_is_not_accepted_yet_is_not_lost_by_a_cancelled_accept(
    server: RunningServer, tunnel: Tunnel
) -> None:
    async with await connect(server.public) as visitor:
        await visitor.send_all(request())
        for _ in range(20):
            with trio.CancelScope() as scope:
                scope.cancel()
                await tunnel.accept()
        await greet(await tunnel.accept())
        assert (await receive_answer(visitor)).body == b"hello /"


async def test_300_visitors_wait_for_their_accept(server: RunningServer, tunnel: Tunnel) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(fetch, server.public, f"/{number}")
        for _ in range(300):
            nursery.start_soon(greet, await tunnel.accept())


async def test_accept_raises_once_the_tunnel_is_closed(tunnel: Tunnel) -> None:
    await tunnel.aclose()
    for _ in range(2):
        with pytest.raises(SessionClosed):
            await tunnel.accept()
    assert "closed" in repr(tunnel)


async def test_serve_listeners_ends_with_the_tunnel(tunnel: Tunnel, nursery: trio.Nursery) -> None:
    nursery.start_soon(tunnel.aclose)
    with pytest.RaisesGroup(SessionClosed, flatten_subgroups=True):
        await trio.serve_listeners(greet, [tunnel])


@kinds
async def test_what_was_sent_before_the_tunnel_was_closed_is_delivered(server: RunningServer, kind: TunnelKind) -> None:
    async with open_tunnel(server.control, TunnelSettings(name="app", kind=kind)) as tunnel:
        visitor = await connect(public_address(server, tunnel))
        await visitor.send_all(request("/", "Connection: close"))
        async with await tunnel.accept() as stream:
            await stream.send_all(response(bytes(250_000)))  # What the window takes while the visitor does not read.
    async with visitor:
        assert parse(await receive_all(visitor)).body == bytes(250_000)


async def test_two_tunnels_of_one_program_are_kept_apart(server: RunningServer, nursery: trio.Nursery) -> None:
    async def answer(tunnel: Tunnel) -> None:
        while True:
            async with await tunnel.accept() as stream:
                await receive_head(stream)
                await stream.send_all(response(tunnel.name.encode()))

    async with open_tunnel(server.control, name="one") as one, open_tunnel(server.control, name="two") as two:
        nursery.start_soon(answer, one)
        nursery.start_soon(answer, two)
        for _ in range(5):
            assert (await fetch(server.public, host="one.localhost")).body == b"one"
            assert (await fetch(server.public, host="two.localhost")).body == b"two"
        nursery.cancel_scope.cancel()
