"""How streams end: in order, by a reset of either side, by a peer that never finishes."""

import gc
import sys

import pytest
import trio
import trio.testing

from otun.mux import Stream, StreamReset
from otun.yamux.frames import ACK, FIN, RST, SYN

from .support import (
    INITIAL_WINDOW,
    Frame,
    RawPeer,
    data,
    fixed_window,
    pattern,
    receive_all,
    session_and_peer,
    stream_count,
    update,
)


def _resets(frames: list[Frame], stream_id: int) -> int:
    return sum(frame.is_reset_of(stream_id) for frame in frames)


def _ends(frames: list[Frame], stream_id: int) -> int:
    return sum(frame.is_end_of(stream_id) for frame in frames)


async def _send_for_ever(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(100_000))


@pytest.mark.conformance(55)
async def test_send_eof_sends_one_fin_behind_the_data_and_reads_go_on(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await stream.send_all(pattern(100_000))
        await stream.send_eof()
        await stream.send_eof()
        frames = await peer.until(lambda frame: frame.is_end_of(1))
        frames += await peer.settle()
        assert b"".join(frame.body for frame in frames) == pattern(100_000)
        assert _ends(frames, 1) == 1
        await peer.send(data(1, b"still here"))
        assert await stream.receive_some() == b"still here"
        await stream.aclose()
        assert _ends(await peer.settle(), 1) == 0


@pytest.mark.conformance(56)
@pytest.mark.parametrize(
    ("last", "body"),
    [(data(1, b"last", FIN), b"last"), (data(1, b"", FIN), b""), (update(1, flags=FIN), b"")],
    ids=["data with body", "empty data", "window update"],
)
async def test_a_fin_ends_the_stream_on_whatever_frame_it_comes(open_with_peer, last: bytes, body: bytes) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"first "), last)
        assert await receive_all(await session.accept()) == b"first " + body


@pytest.mark.conformance(57)
async def test_a_second_fin_changes_nothing(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), update(1, flags=FIN), update(1, flags=FIN), data(1, b"", FIN))
        stream = await session.accept()
        assert await receive_all(stream) == b""
        assert not _resets(await peer.settle(), 1)
        await stream.send_all(b"works")
        assert await peer.body_of(1, 5) == b"works"


@pytest.mark.conformance(58)
async def test_data_after_fin_resets_that_stream_only(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), update(3, flags=SYN), update(1, flags=FIN))
        broken, sound = await session.accept(), await session.accept()
        await peer.send(data(1, b"too late"), data(3, b"in time"))
        assert _resets(await peer.settle(), 1) == 1
        assert await sound.receive_some() == b"in time"
        with pytest.raises(StreamReset):
            await broken.send_all(b"x")


@pytest.mark.conformance(60)
@pytest.mark.parametrize("way", ["reset", "aclose"])
async def test_ending_a_stream_here_wakes_our_own_reader_and_writer(open_with_peer, way: str) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        async def write() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(bytes(INITIAL_WINDOW + 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await peer.body_of(1, INITIAL_WINDOW)
            await peer.settle()
            if way == "reset":
                stream.reset()
            else:
                await stream.aclose()
        assert not session.is_closed


@pytest.mark.conformance(64)
@pytest.mark.parametrize("frame", [data(99, b"x"), update(99, 5), update(99, flags=FIN), update(99, flags=RST | ACK)])
async def test_a_frame_on_an_unknown_stream_is_not_answered(open_with_peer, frame: bytes) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(frame)
        assert await peer.settle() == []
        assert not session.is_closed


@pytest.mark.conformance(64, 44)
async def test_a_frame_on_a_stream_that_has_ended_both_ways_is_not_answered(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), update(1, flags=FIN))
        await (await session.accept()).aclose()
        await peer.settle()
        await peer.send(data(1, b"late"), update(1, 2**32 - 1), update(1, flags=FIN))
        assert await peer.settle() == []


@pytest.mark.conformance(51, 92)
async def test_what_comes_after_our_aclose_is_answered_with_a_reset_and_not_before(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"unread"))
        stream = await session.accept()
        await peer.settle()
        await stream.aclose()
        frames = await peer.settle()
        assert (_ends(frames, 1), _resets(frames, 1)) == (1, 0)
        await peer.send(data(1, bytes(1000)), data(1, bytes(1000)))
        assert _resets(await peer.settle(), 1) == 1
        assert stream_count(session) == 0


@pytest.mark.conformance(92)
async def test_a_peer_without_credit_finds_out_that_the_stream_was_closed(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(INITIAL_WINDOW)))
        stream = await session.accept()
        await peer.settle()
        await stream.aclose()
        frames = await peer.settle()
        assert sum(frame.length for frame in frames if frame.stream_id == 1 and not frame.flags & RST) == 1
        assert not _resets(frames, 1)
        await peer.send(data(1, b"?"))
        assert _resets(await peer.settle(), 1) == 1


@pytest.mark.conformance(92)
async def test_closing_over_what_the_peer_still_sends_breaks_its_writer_only(open_pair) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await client.open_stream()

        async def send_until_reset() -> None:
            with pytest.raises(StreamReset):
                await _send_for_ever(stream)

        nursery.start_soon(send_until_reset)
        other = await server.accept()
        await other.receive_some()
        await other.aclose()
    assert client.is_closed


@pytest.mark.conformance(65)
async def test_ten_thousand_streams_leave_empty_tables_and_no_memory_behind(open_pair) -> None:
    async with open_pair() as (client, server):

        async def use_streams(count: int) -> int:
            for _ in range(count):
                stream = await client.open_stream()
                await stream.send_all(b"x")
                other = await server.accept()
                assert await other.receive_some() == b"x"
                await other.aclose()
                assert await stream.receive_some() == b""
                await stream.aclose()
            await client.ping()
            gc.collect()
            return sys.getallocatedblocks()

        before = await use_streams(1000)
        after = await use_streams(9000)
        assert stream_count(client) == stream_count(server) == 0
        assert after - before < 9000  # Not one object per stream; Trio itself forgets deadlines only by the thousand.


@pytest.mark.conformance(66)
async def test_a_closed_stream_that_the_peer_never_finishes_is_reset_and_reaped(autojump_clock) -> None:
    async with session_and_peer("tasks", "client") as (session, peer):
        peer.answers_pings = True
        stream = await session.open_stream()
        await stream.aclose()
        frames = await peer.until(lambda frame: frame.is_reset_of(1))
        assert _ends(frames, 1) == 1
        assert 60 <= trio.current_time() <= 400
        assert stream_count(session) == 0
        assert not session.is_closed
        await peer.send(data(1, b"much too late"))
        assert await peer.settle() == []


@pytest.mark.conformance(66)
async def test_a_half_closed_stream_whose_peer_goes_on_sending_is_not_reset(autojump_clock) -> None:
    async with session_and_peer("tasks", "client") as (session, peer), trio.open_nursery() as nursery:
        peer.answers_pings = True
        stream = await session.open_stream()
        await stream.send_eof()
        seen: list[Frame] = []
        nursery.start_soon(_record, peer, seen)
        for _ in range(100):
            await trio.sleep(10)
            await peer.send(data(1, b"x"))
            assert await stream.receive_some() == b"x"
        assert not _resets(seen, 1)
        nursery.cancel_scope.cancel()


async def _record(peer: RawPeer, seen: list[Frame]) -> None:
    while True:
        seen.append(await peer.next())
