"""What is cut short looks cut short: the visitor's connection is reset, and never ends in an orderly way."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from otun import Stream
from otun.server.registry import Registry

from .harness import RunningServer
from .raw_client import RawClient, registered_client, stream_count
from .services import answering, receive_all, receive_head, response
from .visitors import connect, fetch, receive_exactly, receive_until_reset, request, reset

PROMISED = response(bytes(100_000))
PART = PROMISED[:50_000]


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
        assert await receive_exactly(visitor, len(PART)) == PART
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
        await receive_exactly(visitor, len(PART))
        await cut(client, stream)
        with trio.fail_after(10):
            await receive_until_reset(visitor)


@ways
async def test_a_visitor_who_has_finished_sending_is_reset_too(server: RunningServer, cut: Cut) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await visitor.send_eof()
        stream = await client.session.accept()
        assert await receive_all(stream) == request()
        await stream.send_all(PART)
        await receive_exactly(visitor, len(PART))
        await cut(client, stream)
        with trio.fail_after(10):
            await receive_until_reset(visitor)


async def test_a_response_that_was_whole_stays_whole_when_the_session_ends(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(PROMISED)
        await stream.send_eof()
        await client.session.aclose()
        with trio.fail_after(10):
            assert await receive_all(visitor) == PROMISED


async def test_a_large_response_that_was_whole_stays_whole_when_the_session_ends(server: RunningServer) -> None:
    whole = response(bytes(250_000))  # What the window takes while the visitor does not read.
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(whole)
        await stream.send_eof()
        await client.session.aclose()
        with trio.fail_after(10):
            assert await receive_all(visitor) == whole


async def test_a_reset_of_one_stream_does_not_disturb_another_visitor(server: RunningServer) -> None:
    async with (
        registered_client(server.control) as client,
        await connect(server.public) as first,
        await connect(server.public) as second,
    ):
        await first.send_all(request("/first"))
        doomed = await client.session.accept()
        await second.send_all(request("/second"))
        healthy = await client.session.accept()
        await doomed.send_all(PART)
        doomed.reset()
        await receive_until_reset(first)
        await receive_head(healthy)
        await healthy.send_all(PROMISED)
        await healthy.send_eof()
        assert await receive_all(second) == PROMISED


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
    server: RunningServer, nursery: trio.Nursery, registries: list[Registry], is_answered: bool
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
        (server_session,) = sessions_of(registries[0])
        while stream_count(server_session) != 1:
            await client.session.ping()


async def test_served_visitors_leave_no_stream(
    server: RunningServer, nursery: trio.Nursery, registries: list[Registry]
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        for _ in range(20):
            assert (await fetch(server.public)).body == b"served"
        with trio.fail_after(10):
            await client.see_no_streams_but_control()
            (server_session,) = sessions_of(registries[0])
            while stream_count(server_session) != 1:
                await client.session.ping()


def sessions_of(registry: Registry) -> list:
    return [registration.session for registration in registry._tunnels.values()]
