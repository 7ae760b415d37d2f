"""What is cut short looks cut short: the visitor's connection is reset, and never ends in an orderly way."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from otun import Session, Stream

from .harness import RunningServer
from .raw_client import RawClient, registered_client, see_no_streams_left
from .services import END_OF_HEAD, Asked, answering, receive_all, receive_head, response
from .visitors import connect, fetch, parse, receive_exactly, receive_until_reset, request, reset

PROMISED = response(bytes(100_000))
PART = PROMISED[:50_000]


async def receive_part(visitor: trio.SocketStream) -> None:
    """Receive what has been sent of the response: its head, and a part of its body."""
    _, start = await receive_head(visitor)
    part = PART.partition(END_OF_HEAD)[2]
    assert start + await receive_exactly(visitor, len(part) - len(start)) == part


async def reset_the_stream(client: RawClient, stream: Stream) -> None:
    stream.reset()


async def reset_the_stream_with_a_code(client: RawClient, stream: Stream) -> None:
    stream.reset(7)


async def close_the_session(client: RawClient, stream: Stream) -> None:
    await client.session.aclose()


async def reset_the_connection(client: RawClient, stream: Stream) -> None:
    await client.vanish()


async def close_the_control_stream(client: RawClient, stream: Stream) -> None:
    await client.control.send_eof()


async def break_the_control_protocol(client: RawClient, stream: Stream) -> None:
    await client.say(b"nonsense")


WAYS = [
    reset_the_stream,
    reset_the_stream_with_a_code,
    close_the_session,
    reset_the_connection,
    close_the_control_stream,
    break_the_control_protocol,
]
ways = pytest.mark.parametrize("cut", WAYS, ids=lambda way: way.__name__)
Cut = Callable[[RawClient, Stream], Awaitable[None]]


@ways
async def test_a_response_that_is_cut_short_ends_in_a_reset(server: RunningServer, cut: Cut) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(PART)
        await receive_part(visitor)
        await cut(client, stream)
        with trio.fail_after(10):
            assert await receive_until_reset(visitor) == b""


@ways
async def test_a_visitor_who_is_still_sending_is_reset_too(server: RunningServer, cut: Cut) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request(method="POST", body=bytes(500_000))[:200_000])
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(PART)
        await receive_part(visitor)
        await cut(client, stream)
        with trio.fail_after(10):
            await receive_until_reset(visitor)


@ways
async def test_a_visitor_who_has_finished_sending_is_reset_too(server: RunningServer, cut: Cut) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await visitor.send_eof()
        stream = await client.session.accept()
        head, _ = await receive_head(stream)
        assert Asked.of(head).target == "/"
        assert await receive_all(stream) == b""
        await stream.send_all(PART)
        await receive_part(visitor)
        await cut(client, stream)
        with trio.fail_after(10):
            await receive_until_reset(visitor)


async def test_a_response_that_was_whole_stays_whole_when_the_session_ends(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request("/", "Connection: close"))
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(PROMISED)
        await stream.send_eof()
        await client.session.aclose()
        with trio.fail_after(10):
            assert parse(await receive_all(visitor)).body == bytes(100_000)


async def test_a_large_response_that_was_whole_stays_whole_when_the_session_ends(server: RunningServer) -> None:
    whole = response(bytes(250_000))  # What the window takes while the visitor does not read.
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request("/", "Connection: close"))
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(whole)
        await stream.send_eof()
        await client.session.aclose()
        with trio.fail_after(10):
            assert parse(await receive_all(visitor)).body == bytes(250_000)


async def test_a_reset_of_one_stream_does_not_disturb_another_visitor(server: RunningServer) -> None:
    async with (
        registered_client(server.control) as client,
        await connect(server.public) as first,
        await connect(server.public) as second,
    ):
        await first.send_all(request("/first"))
        doomed = await client.session.accept()
        await second.send_all(request("/second", "Connection: close"))
        healthy = await client.session.accept()
        await doomed.send_all(PART)
        doomed.reset()
        await receive_until_reset(first)
        await receive_head(healthy)
        await healthy.send_all(PROMISED)
        await healthy.send_eof()
        assert parse(await receive_all(second)).body == bytes(100_000)


# The visitor cuts short


async def test_a_visitor_who_resets_his_connection_resets_the_stream(server: RunningServer) -> None:
    async with registered_client(server.control) as client:
        visitor = await connect(server.public)
        await visitor.send_all(request(method="POST", body=bytes(100_000))[:50_000])
        stream = await client.session.accept()
        await receive_head(stream)
        reset(visitor)
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(stream)
        await client.see_no_streams_but_control()


@pytest.mark.parametrize("is_answered", [False, True], ids=["before the answer", "within the answer"])
async def test_a_visitor_who_leaves_early_leaves_no_stream(
    server: RunningServer, nursery: trio.Nursery, server_sessions: list[Session], is_answered: bool
) -> None:
    async def answer_slowly(stream: Stream) -> None:
        await receive_head(stream)
        if is_answered:
            while True:
                await stream.send_all(PART)
        await receive_all(stream)

    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answer_slowly)
        for _ in range(20):
            async with await connect(server.public) as visitor:
                await visitor.send_all(request())
                if is_answered:
                    await receive_exactly(visitor, 1000)
        with trio.fail_after(10):
            await client.see_no_streams_but_control()
            await see_no_streams_left(server_sessions[0])


async def test_served_visitors_leave_no_stream(
    server: RunningServer, nursery: trio.Nursery, server_sessions: list[Session]
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        for _ in range(20):
            assert (await fetch(server.public)).body == b"served"
        with trio.fail_after(10):
            await client.see_no_streams_but_control()
            await see_no_streams_left(server_sessions[0])
