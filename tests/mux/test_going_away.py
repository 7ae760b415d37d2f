"""GoAway in both directions: who may still open, what goes on, what fails."""

import pytest
import trio
import trio.testing

from otun.mux import SessionClosed
from otun.yamux.frames import ACK, GO_AWAY, PING, RST, SYN, encode_header

from .support import (
    data,
    stream_count,
    update,
)

MIB = 1024 * 1024
CLOSE_LIMIT = 5.0


def _goaway(code: int) -> bytes:
    return encode_header(GO_AWAY, 0, 0, code)


@pytest.mark.conformance(73)
async def test_after_goaway_0_our_opens_fail_and_all_other_streams_go_on(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        ours = await session.open_stream()
        await peer.send(update(2, flags=SYN), _goaway(0))
        theirs = await session.accept()
        await peer.settle()
        with pytest.raises(SessionClosed) as caught:
            await session.open_stream()
        assert caught.value.is_clean
        assert not session.is_closed
        await peer.send(data(1, b"one"), data(2, b"two"), update(4, flags=SYN), data(4, b"four"))
        assert await ours.receive_some() == b"one"
        assert await theirs.receive_some() == b"two"
        assert await (await session.accept()).receive_some() == b"four"
        await ours.send_all(b"reply")
        assert await peer.body_of(1, 5) == b"reply"


@pytest.mark.conformance(73)
async def test_an_open_that_waits_at_the_backlog_fails_when_the_peer_goes_away(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        for _ in range(256):
            await session.open_stream()

        async def open_too_late() -> None:
            with pytest.raises(SessionClosed):
                await session.open_stream()

        nursery.start_soon(open_too_late)
        await peer.settle()
        await peer.send(_goaway(0))


@pytest.mark.conformance(74)
@pytest.mark.parametrize("code", [1, 2, 77])
async def test_after_goaway_with_a_code_everything_raises_and_tells_the_code(open_with_peer, code: int) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()

        async def expect_code(call, *args) -> None:
            with pytest.raises(SessionClosed) as caught:
                await call(*args)
            assert caught.value.code == code
            assert not caught.value.is_clean

        async with trio.open_nursery() as nursery:
            for call in (session.accept, session.ping, stream.receive_some):
                nursery.start_soon(expect_code, call)
            nursery.start_soon(expect_code, stream.send_all, bytes(MIB))
            await peer.settle()
            await peer.send(_goaway(code))
        for call in (session.open_stream, session.accept, stream.send_eof):
            await expect_code(call)


@pytest.mark.conformance(75)
async def test_after_our_goaway_new_streams_are_reset_and_drained_and_old_ones_go_on(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        session.go_away()
        session.go_away()
        frames = await peer.settle()
        assert [frame.length for frame in frames if frame.kind == GO_AWAY] == [0]
        await peer.send(update(3, flags=SYN), data(3, bytes(100_000)), data(1, b"old"))
        assert [frame.stream_id for frame in await peer.settle() if frame.flags & RST] == [3]
        assert await stream.receive_some() == b"old"
        assert stream_count(session) == 1


async def test_after_our_goaway_we_still_open_streams(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        session.go_away()
        await peer.settle()
        stream = await session.open_stream()
        await stream.send_all(b"question")
        assert await peer.body_of(2, 8) == b"question"
        await peer.send(data(2, b"answer"))
        assert await stream.receive_some() == b"answer"


# Draining


async def test_a_drained_session_ends_with_the_last_stream_of_the_peer(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        ours = await session.open_stream()
        drained = trio.Event()
        peer.answers_pings = True

        async def drain() -> None:
            await session.drain()
            drained.set()

        nursery.start_soon(drain)
        frames = await peer.settle()
        assert [frame.length for frame in frames if frame.kind == GO_AWAY] == [0]
        await peer.send(update(3, flags=SYN), data(3, b"on its way"))  # The peer has not heard of it yet.
        late = await session.accept()
        assert await late.receive_some() == b"on its way"
        for one in (stream, late):
            assert not drained.is_set()
            one.reset()
            await peer.settle()
        while not drained.is_set():
            await peer.settle()
        await ours.send_all(b"still here")
        assert not session.is_closed


async def test_what_the_peer_has_opened_before_it_hears_of_it_is_waited_for(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        drained = trio.Event()

        async def drain() -> None:
            await session.drain()
            drained.set()

        nursery.start_soon(drain)
        ping = (await peer.until(lambda frame: frame.kind == PING))[-1]
        await peer.send(update(1, flags=SYN), encode_header(PING, ACK, 0, ping.length))
        stream = await session.accept()
        await peer.settle()
        assert not drained.is_set()
        stream.reset()
        peer.answers_pings = True
        while not drained.is_set():
            await peer.settle()


async def test_a_session_that_is_lost_is_drained(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        await session.accept()
        nursery.start_soon(session.drain)
        await peer.settle()
        await peer.send(_goaway(1))
    await session.drain()


async def test_who_waits_for_the_peer_to_leave_hears_of_its_goaway_and_of_the_end(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        with trio.move_on_after(0.01) as too_early:
            await session.wait_peer_left()
        assert too_early.cancelled_caught
        await peer.send(_goaway(0))
        await session.wait_peer_left()
        assert not session.is_closed
    async with open_with_peer() as (session, peer):
        await peer.send(_goaway(1))
        await session.wait_peer_left()
