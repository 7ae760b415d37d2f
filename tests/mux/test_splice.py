"""Two Trio streams joined: both directions, their ends, and what is cut short on either side."""

import pytest
import trio
import trio.testing

from otun.mux import SessionClosed, StreamReset, splice
from otun.testing import session_pair

from .support import pattern, receive_all, receive_exactly, send_and_end

MIB = 1024 * 1024


class RecordingTap:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.seen_to = bytearray()
        self.seen_from = bytearray()
        self.ends = 0

    def to_socket(self, data: memoryview, now: float) -> None:
        self.seen_to += data

    def from_socket(self, data: bytes, now: float) -> None:
        self.seen_from += data

    def ended(self, now: float) -> None:
        self.ends += 1


async def test_everything_and_both_ends_arrive_on_the_other_side() -> None:
    there, back = pattern(MIB), pattern(MIB)[::-1]
    other, local = trio.testing.memory_stream_pair()
    results = []

    async def join(stream) -> None:
        results.append(await splice(stream, other))

    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        visitor = await server.open_stream()
        nursery.start_soon(join, await client.accept())
        nursery.start_soon(send_and_end, visitor, there)
        nursery.start_soon(send_and_end, local, back)
        assert await receive_all(local) == there
        assert await receive_all(visitor) == back
    assert results == [True]


async def test_one_direction_may_end_long_before_the_other() -> None:
    other, local = trio.testing.memory_stream_pair()
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        visitor = await server.open_stream()
        nursery.start_soon(splice, await client.accept(), other)
        await send_and_end(visitor, b"question")
        assert await receive_all(local) == b"question"
        await send_and_end(local, b"answer")
        assert await receive_all(visitor) == b"answer"


async def test_what_was_read_before_goes_first_and_the_tap_sees_everything_once() -> None:
    other, local = trio.testing.memory_stream_pair()
    tap = RecordingTap()
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await client.open_stream()

        async def join() -> None:
            await splice(stream, other, unread=b"read before, ", tap=tap)

        nursery.start_soon(join)
        far_end = await server.accept()
        nursery.start_soon(send_and_end, local, b"and after")
        assert await receive_all(far_end) == b"read before, and after"
        await send_and_end(far_end, b"answer")
        assert await receive_all(local) == b"answer"
    assert (tap.seen_from, tap.seen_to, tap.ends) == (b"read before, and after", b"answer", 1)


async def test_a_stream_that_is_reset_cuts_the_other_side_short() -> None:
    other, local = trio.testing.memory_stream_pair()
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        visitor = await server.open_stream()
        nursery.start_soon(splice, await client.accept(), other)
        await visitor.send_all(b"part")
        assert await local.receive_some(4) == b"part"
        visitor.reset()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await local.send_all(b"x")


async def send_for_ever(stream: trio.abc.SendStream) -> None:
    while True:
        await stream.send_all(b"x")


@pytest.mark.parametrize("is_breaking", [True, False], ids=["breaks", "is cancelled"])
async def test_the_stream_is_reset_when_the_other_side(is_breaking: bool) -> None:
    other, local = trio.testing.memory_stream_pair()
    tap = RecordingTap()

    async def join(stream, scope: trio.CancelScope) -> None:
        with scope:
            await splice(stream, other, tap=tap)

    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        visitor = await server.open_stream()
        scope = trio.CancelScope()
        nursery.start_soon(join, await client.accept(), scope)
        await local.send_all(b"part")
        assert await receive_exactly(visitor, 4) == b"part"
        if is_breaking:
            await trio.aclose_forcefully(local)
        else:
            scope.cancel()
        with pytest.raises(StreamReset):
            await send_for_ever(visitor)
    assert tap.ends == 1


async def test_a_socket_is_reset_so_that_its_other_side_can_tell() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        local = await trio.open_tcp_stream(*listener.socket.getsockname())
        other = await listener.accept()
    async with local, session_pair() as (client, server), trio.open_nursery() as nursery:
        visitor = await server.open_stream()
        nursery.start_soon(splice, await client.accept(), other)
        await visitor.send_all(b"part")
        assert await local.receive_some(4) == b"part"
        visitor.reset()
        with pytest.raises(trio.BrokenResourceError):
            await local.receive_some()


@pytest.mark.parametrize("is_session_lost", [True, False], ids=["session", "stream"])
async def test_whoever_expects_a_reply_and_gets_no_byte_keeps_his_stream(is_session_lost: bool) -> None:
    other, local = trio.testing.memory_stream_pair()
    results = []

    async def join(stream) -> None:
        results.append(await splice(stream, other, unread=b"question", is_reply_expected=True))

    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await server.open_stream()
        nursery.start_soon(join, stream)
        far_end = await client.accept()
        assert await receive_exactly(far_end, 8) == b"question"
        if is_session_lost:
            await client.aclose()
        else:
            await far_end.send_eof()
    assert results == [False]
    await send_and_end(other, b"an answer of our own")
    assert await receive_all(local) == b"an answer of our own"


async def test_a_reply_that_was_expected_and_comes_is_passed_on() -> None:
    other, local = trio.testing.memory_stream_pair()
    results = []

    async def join(stream) -> None:
        results.append(await splice(stream, other, is_reply_expected=True))

    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(join, await server.open_stream())
        far_end = await client.accept()
        await far_end.send_all(b"H")
        assert await local.receive_some(1) == b"H"
        await client.aclose()
    assert results == [True]
    with pytest.raises(SessionClosed):
        await far_end.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await local.send_all(b"x")
