"""What is cut short on one side looks cut short on the other; what ends in an orderly way ends so."""

from contextlib import suppress

import pytest
import trio

from otun.client.opening import TunnelKind

from ..server.services import Handler, answering, receive_all, receive_head, response
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
from .support import kinds


@kinds
async def test_a_service_that_resets_in_mid_answer_resets_the_visitor(tunnel_to, kind: TunnelKind) -> None:
    async def answer_half(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(1000))[:500])
        await visitor_has_it.wait()
        reset(connection)

    visitor_has_it = trio.Event()
    place = await tunnel_to(answer_half, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request())
        await receive_exactly(visitor, 500)
        visitor_has_it.set()
        with trio.fail_after(10):
            await receive_until_reset(visitor)


async def answer_half_and_close(connection: trio.SocketStream) -> None:
    await receive_head(connection)
    await connection.send_all(response(bytes(1000))[:500])


async def answer_half_and_finish(connection: trio.SocketStream) -> None:
    await answer_half_and_close(connection)
    await connection.send_eof()
    await receive_all(connection)


ends = pytest.mark.parametrize("answer", [answer_half_and_close, answer_half_and_finish], ids=["closing", "finishing"])


@ends
@pytest.mark.parametrize("fields", [(), ("Connection: close",)], ids=["keep-alive", "close"])
async def test_a_service_that_ends_in_mid_answer_resets_an_http_visitor(
    tunnel_to, answer: Handler, fields: tuple[str, ...]
) -> None:
    place = await tunnel_to(answer)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/", *fields))
        with trio.fail_after(10):
            received = await receive_until_reset(visitor)
        # The system may throw away what has not been read before the reset.
        assert not received or received.startswith(b"HTTP/1.1 200 OK\r\n")


@ends
async def test_a_service_that_ends_ends_the_connection_of_a_tcp_visitor(tunnel_to, answer: Handler) -> None:
    place = await tunnel_to(answer, kind="tcp")
    async with await connect(place.public) as visitor:
        await visitor.send_all(request())
        assert await receive_all(visitor) == response(bytes(1000))[:500]


async def see_how_the_service_ends(tunnel_to, kind: TunnelKind, *, is_reset: bool) -> bool:
    """Have a visitor leave in mid-upload; return whether the service saw an orderly end."""

    async def receive(connection: trio.SocketStream) -> None:
        nonlocal is_orderly
        await receive_head(connection)
        has_begun.set()
        try:
            await receive_all(connection)
            is_orderly = True
        except trio.BrokenResourceError:
            is_orderly = False
        has_ended.set()

    is_orderly: bool | None = None
    has_begun, has_ended = trio.Event(), trio.Event()
    place = await tunnel_to(receive, kind=kind)
    visitor = await connect(place.public)
    await visitor.send_all(request(method="POST", body=bytes(100_000))[:50_000])
    await has_begun.wait()
    if is_reset:
        reset(visitor)
    else:
        await visitor.aclose()
    with trio.fail_after(10):
        await has_ended.wait()
    assert is_orderly is not None
    return is_orderly


@kinds
async def test_a_visitor_who_resets_in_mid_upload_resets_the_services_connection(tunnel_to, kind: TunnelKind) -> None:
    assert not await see_how_the_service_ends(tunnel_to, kind, is_reset=True)


async def test_an_http_visitor_who_closes_in_mid_upload_resets_the_services_connection(tunnel_to) -> None:
    assert not await see_how_the_service_ends(tunnel_to, "http", is_reset=False)


async def test_a_tcp_visitor_who_closes_finishes_the_services_connection(tunnel_to) -> None:
    assert await see_how_the_service_ends(tunnel_to, "tcp", is_reset=False)


async def test_one_visitors_reset_does_not_disturb_the_next_one(tunnel_to) -> None:
    place = await tunnel_to(answering(b"served"))
    for _ in range(10):
        visitor = await connect(place.public)
        await visitor.send_all(request())
        reset(visitor)
        assert (await fetch(place.public)).body == b"served"


@kinds
@pytest.mark.parametrize("size", [0, 1, 1_000_000])
async def test_an_answer_that_comes_before_the_request_is_whole_arrives(tunnel_to, size: int, kind: TunnelKind) -> None:
    async def refuse(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(size), status="413 Content Too Large"))
        await connection.send_eof()
        with suppress(trio.BrokenResourceError):  # An HTTP visitor is cut short who goes on for nothing.
            async for _ in connection:  # As a polite server does, so that its system sends no RST.
                pass

    place = await tunnel_to(refuse, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3000000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.send_all, bytes(3_000_000))
            answer = parse(await receive_all(visitor))
        assert (answer.status, len(answer.body)) == (413, size)


@kinds
async def test_an_answer_whose_sender_closes_over_unread_bytes_arrives(tunnel_to, kind: TunnelKind) -> None:
    async def refuse(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(refusal)
        await trio.aclose_forcefully(connection)  # The system sends RST, as the body has not been read.

    refusal = response(bytes(1000), status="413 Content Too Large")
    place = await tunnel_to(refuse, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request(method="POST", body=bytes(100_000)))
        answer = await receive_answer(visitor)
        assert (answer.status, answer.body) == (413, bytes(1000))


@kinds
async def test_so_it_does_on_a_connection_that_has_been_used_before(tunnel_to, kind: TunnelKind) -> None:
    async def refuse_the_second(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response())
        await receive_head(connection)
        await connection.send_all(refusal)
        await trio.aclose_forcefully(connection)

    refusal = response(bytes(1000), status="413 Content Too Large")
    place = await tunnel_to(refuse_the_second, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request())
        assert (await receive_answer(visitor)).status == 200
        await visitor.send_all(request(method="POST", body=bytes(100_000)))
        answer = await receive_answer(visitor)
        assert (answer.status, answer.body) == (413, bytes(1000))
