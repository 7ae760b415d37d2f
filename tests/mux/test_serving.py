"""`Session.serve`, and sessions as Trio listeners."""

import signal

import pytest
import trio
import trio.testing

from otun.mux import SessionClosed, Stream, StreamReset
from otun.testing import session_pair
from otun.yamux.frames import FIN, GO_AWAY, RST, SYN, encode_header

from .support import data, echo, pattern, receive_all, send_and_end, session_and_peer, stream_count, update


async def _ask(session, question: bytes) -> bytes:
    stream = await session.open_stream()
    await send_and_end(stream, question)
    return await receive_all(stream)


async def test_trio_serves_a_session_like_any_listener_until_it_ends(open_pair) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.RaisesGroup(SessionClosed, flatten_subgroups=True):
                await trio.serve_listeners(echo_and_close, [server])

        async def echo_and_close(stream: Stream) -> None:
            async with stream:
                await echo(stream)

        nursery.start_soon(serve)
        for number in range(5):
            assert await _ask(client, pattern(number * 1000)) == pattern(number * 1000)
        await client.aclose()


async def test_serve_closes_each_stream_when_its_handler_returns(open_pair) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, echo)
        async with trio.open_nursery() as askers:
            for number in range(50):
                askers.start_soon(_check_answer, client, number.to_bytes(4, "big"))
        await client.ping()
        assert stream_count(client) == stream_count(server) == 0
        await client.aclose()


async def _check_answer(session, question: bytes) -> None:
    stream = await session.open_stream()
    await stream.send_all(question)
    received = await stream.receive_some()
    assert received == question
    await stream.send_eof()
    assert await stream.receive_some() == b""


async def test_serve_returns_after_a_clean_end_when_all_handlers_are_done(open_with_peer) -> None:
    handled: list[bytes] = []

    async def handle(stream: Stream) -> None:
        try:
            await stream.receive_some()
        finally:
            handled.append(b"cleaned up")

    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN), update(3, flags=SYN))
        nursery.start_soon(session.serve, handle)
        await peer.settle()
        await peer.send(encode_header(GO_AWAY, 0, 0, 0))
        await peer.transport.send_eof()
    assert len(handled) == 2


async def test_serve_returns_when_our_own_side_closes_the_session(open_pair) -> None:
    async with open_pair() as (_client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, echo)
        await server.aclose()


@pytest.mark.parametrize(
    "end", [update(1, 5)[:7], encode_header(GO_AWAY, 0, 0, 2), encode_header(9, 0, 0, 0)], ids=["cut", "code", "type"]
)
async def test_serve_raises_session_closed_unwrapped_when_the_session_fails(open_with_peer, end: bytes) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.raises(SessionClosed):
                await session.serve(echo)

        nursery.start_soon(serve)
        await peer.settle()
        await peer.send(end)
        await peer.transport.send_eof()


async def test_serve_raises_a_handlers_exception_as_it_is_and_resets_its_stream(open_with_peer) -> None:
    async def fail(stream: Stream) -> None:
        raise ValueError(f"no luck with {stream.id}")

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        with pytest.raises(ValueError, match="no luck with 1"):
            await session.serve(fail)
        frames = await peer.settle()
        assert [frame.flags & (FIN | RST) for frame in frames if frame.flags & (FIN | RST)] == [RST]
        assert not session.is_closed


async def test_a_handlers_exception_cancels_the_other_handlers_and_resets_their_streams(open_with_peer) -> None:
    async def handle(stream: Stream) -> None:
        if await stream.receive_some() == b"fail":
            raise ValueError("failed")
        await trio.sleep_forever()

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"wait"), update(3, flags=SYN), data(3, b"fail"))
        with pytest.raises(ValueError, match="failed"):
            await session.serve(handle)
        frames = await peer.settle()
        assert not [frame for frame in frames if frame.flags & FIN]
        assert {frame.stream_id for frame in frames if frame.flags & RST} == {1, 3}
        assert stream_count(session) == 0


async def test_a_handlers_exception_group_is_raised_as_it_is(open_with_peer) -> None:
    async def fail(_stream: Stream) -> None:
        raise ExceptionGroup("its own", [ValueError("inside")])

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        with pytest.RaisesGroup(ValueError, match="its own"):
            await session.serve(fail)


async def test_a_reset_by_the_peer_ends_that_handler_only(open_with_peer) -> None:
    seen: list[type[Exception]] = []

    async def handle(stream: Stream) -> None:
        try:
            await stream.send_all(await stream.receive_some())
            await stream.receive_some()
        except Exception as error:
            seen.append(type(error))
            raise

    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.serve, handle)
        await peer.send(update(1, flags=SYN), data(1, b"1"), update(1, flags=RST))
        await peer.send(update(3, flags=SYN), data(3, b"3"))
        assert await peer.body_of(3, 1) == b"3"
        await peer.send(update(3, flags=FIN))
        await peer.until(lambda frame: frame.is_end_of(3))
        await peer.transport.send_eof()
    assert seen in ([StreamReset], [])  # Reset before the accept, it is not handed out at all.


async def test_session_closed_raised_inside_a_handler_ends_that_handler_only(open_with_peer) -> None:
    async def handle(stream: Stream) -> None:
        if await stream.receive_some() == b"another session":
            raise SessionClosed("of a session that this handler used besides")
        await stream.send_all(b"served")

    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.serve, handle)
        await peer.send(update(1, flags=SYN), data(1, b"another session"))
        await peer.until(lambda frame: frame.is_reset_of(1))
        await peer.send(update(3, flags=SYN), data(3, b"hello"))
        assert await peer.body_of(3, 6) == b"served"
        await peer.transport.send_eof()


async def test_cancelling_serve_resets_the_streams_of_its_handlers(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.serve, Stream.receive_some)
            await peer.send(update(1, flags=SYN))
            await peer.settle()
            nursery.cancel_scope.cancel()
        frames = await peer.settle()
        assert [frame.flags & (FIN | RST) for frame in frames if frame.flags & (FIN | RST)] == [RST]
        assert not session.is_closed


async def test_an_exception_that_a_handler_raises_while_serve_is_cancelled_is_not_swallowed(open_with_peer) -> None:
    async def fail_when_cancelled(stream: Stream) -> None:
        try:
            await stream.receive_some()
        finally:
            raise ValueError("the clean-up failed")

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))

        async def serve_and_cancel() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve, fail_when_cancelled)
                await peer.settle()
                nursery.cancel_scope.cancel()

        with pytest.RaisesGroup(ValueError, flatten_subgroups=True, allow_unwrapped=True):
            await serve_and_cancel()


async def test_a_handlers_bug_is_not_hidden_by_the_sessions_failure(autojump_clock) -> None:
    """The session fails, and because of that a handler fails in a way of its own."""

    async def fail_in_its_own_way(stream: Stream) -> None:
        try:
            await stream.receive_some()
        except SessionClosed:
            await trio.testing.wait_all_tasks_blocked()  # The session's failure comes first.
            raise ValueError("a bug in the handler") from None

    async with session_and_peer("tasks") as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        caught: list[BaseException] = []

        async def serve() -> None:
            try:
                await session.serve(fail_in_its_own_way)
            except BaseException as error:
                caught.append(error)

        nursery.start_soon(serve)
        await peer.settle()
        await peer.send(b"\1")
        await peer.transport.send_eof()
    assert "a bug in the handler" in _texts(caught[0])


def _texts(error: BaseException | None) -> str:
    if error is None:
        return ""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return " ".join([str(error), _texts(error.__cause__), _texts(error.__context__), *map(_texts, inner)])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
async def test_what_ends_the_program_comes_out_of_a_handler_as_it_is(open_with_peer, error: BaseException) -> None:
    async def handle(stream: Stream) -> None:
        raise error

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        with pytest.raises(type(error)) as caught:
            await session.serve(handle)
        assert caught.value is error


def test_an_interrupt_while_serve_waits_for_streams_comes_out_as_it_is() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # In the background, shells have it ignored.

    async def interrupt() -> None:
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with session_pair() as (client, _server):
            trio.lowlevel.spawn_system_task(interrupt)
            await client.serve(echo)

    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
