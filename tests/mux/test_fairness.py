"""Many streams on one session: everybody gets a share, small frames do not wait behind large ones."""

import contextlib
from collections import Counter

import pytest
import trio
import trio.testing

from otun.mux import Stream, open_session
from otun.testing import session_pair
from otun.yamux.frames import ACK, DATA, PING, SYN

from .support import (
    RawPeer,
    SlowStream,
    data,
    open_over,
    receive_exactly,
    send_and_end,
    session_and_peer,
    transports_for,
    update,
)

MIB = 1024 * 1024


@pytest.mark.conformance(5)
async def test_of_1000_frames_in_one_read_all_are_handled_and_other_tasks_run(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.settle()
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(take_turns)
        await peer.send(*[data(1, bytes([number % 256])) for number in range(1000)])
        assert await receive_exactly(stream, 1000) == bytes([number % 256 for number in range(1000)])
        await peer.settle()
        assert turns
        nursery.cancel_scope.cancel()


@pytest.mark.conformance(5)
async def test_a_flood_of_frames_does_not_keep_other_tasks_from_running(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        await session.accept()
        await peer.settle()
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(take_turns)
        flood = update(1, 1) * 1000
        for _ in range(300):  # 3.6 MB, most of which is on its way before anything is read.
            await peer.send(flood)
        await peer.settle()
        assert turns >= 300
        assert not session.is_closed
        nursery.cancel_scope.cancel()


async def _bulk_writers(session, count: int, nursery: trio.Nursery) -> list[Stream]:
    streams = [await session.open_stream() for _ in range(count)]
    for stream in streams:
        nursery.start_soon(stream.send_all, bytes(64 * MIB))
    return streams


async def _grant(peer: RawPeer, count: int) -> None:
    await peer.send(*(update(stream_id, 64 * MIB, ACK) for stream_id in range(1, 2 * count, 2)))


@pytest.mark.conformance(54)
async def test_while_several_streams_send_no_frame_exceeds_64_kib(open_with_peer) -> None:
    """Section 1: at most 64 KiB while several streams want to send, 256 KiB at most."""
    async with open_with_peer("client") as (session, peer):
        async with trio.open_nursery() as nursery:
            await _bulk_writers(session, 4, nursery)
            await _grant(peer, 4)
            frames: list[int] = []
            total = 0
            while total < 16 * MIB:
                frame = await peer.next()
                if frame.kind == DATA:
                    frames.append(frame.length)
                    total += frame.length
            nursery.cancel_scope.cancel()
        later = frames[len(frames) // 2 :]
        assert max(later) <= 64 * 1024


@pytest.mark.parametrize("count", [3, 8, 80])
async def test_streams_that_all_want_to_send_get_equal_shares(open_with_peer, count: int) -> None:
    """Section 3: round-robin between streams."""
    async with open_with_peer("client") as (session, peer):
        shares: Counter[int] = Counter()
        async with trio.open_nursery() as nursery:
            await _bulk_writers(session, count, nursery)
            await _grant(peer, count)
            target = count * 2 * MIB
            while shares.total() < target:
                frame = await peer.next()
                if frame.kind == DATA:
                    shares[frame.stream_id] += frame.length
            nursery.cancel_scope.cancel()
        assert len(shares) == count
        assert min(shares.values()) >= target / count / 4


@pytest.mark.conformance(72)
async def test_a_small_write_does_not_wait_behind_the_bulk_of_others(autojump_clock) -> None:
    """Section 3: with hashicorp/yamux a 4-byte write waited 1.1 s behind 4 MiB frames."""
    left, right = trio.testing.memory_stream_pair()
    async with (
        open_session(SlowStream(left, MIB), "client") as client,
        open_session(right, "server") as server,
        trio.open_nursery() as nursery,
    ):

        async def drain(stream: Stream) -> None:
            async for _ in stream:
                pass

        for _ in range(4):
            bulk = await client.open_stream()
            nursery.start_soon(bulk.send_all, bytes(16 * MIB))
            nursery.start_soon(drain, await server.accept())
        small = await client.open_stream()
        other = await server.accept()
        await trio.sleep(5)
        for _ in range(10):
            started = trio.current_time()
            await small.send_all(b"tiny")
            assert await receive_exactly(other, 4) == b"tiny"
            assert trio.current_time() - started <= 1.5  # What is queued, twice, and one round.
        nursery.cancel_scope.cancel()


@pytest.mark.conformance(72)
async def test_a_ping_overtakes_data_that_is_queued(autojump_clock) -> None:
    """Nobody reads: the transport holds nothing, the driver one batch at most, the queue 512 KiB."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_session(ours, "client") as session, theirs, trio.open_nursery() as nursery:
        await _bulk_writers(session, 4, nursery)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(session.ping)
        await trio.testing.wait_all_tasks_blocked()
        ahead = await RawPeer(theirs).until(lambda frame: frame.kind == PING)
        assert sum(frame.length for frame in ahead if frame.kind == DATA) <= 256 * 1024
        nursery.cancel_scope.cancel()


@pytest.mark.conformance(89)
@pytest.mark.parametrize("way", ["cancelled", "closed", "reset"])
async def test_hundreds_of_writers_that_give_up_while_the_transport_is_full_leave_no_hole(driver, way: str) -> None:
    """They stand in the round for room in the send queue, and do not want it when it comes."""
    ours, theirs = trio.testing.lockstep_stream_pair() if driver == "tasks" else transports_for(driver)
    count = 800
    async with open_over(driver, ours, "client") as session, theirs:
        peer = RawPeer(theirs)
        streams = [await session.open_stream() for _ in range(200)]
        for first in range(1, 2 * count, 400):
            await peer.send(*(update(stream_id, 64 * MIB, ACK) for stream_id in range(first, first + 400, 2)))
            while len(streams) < count and len(streams) * 2 < first + 799:
                streams.append(await session.open_stream())
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(_send_until_closed, stream, bytes(4 * MIB))
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            if way == "cancelled":
                nursery.cancel_scope.cancel()
            else:
                for stream in streams:
                    await stream.aclose() if way == "closed" else stream.reset()
        if way == "cancelled":
            survivor = streams[-1]
        else:
            survivor = await session.open_stream()
            await peer.send(update(survivor.id, 64 * MIB, ACK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, survivor, b"still alive")
            frames = await peer.until(lambda frame: frame.is_end_of(survivor.id))
        assert b"".join(frame.body for frame in frames if frame.stream_id == survivor.id).endswith(b"still alive")


async def _send_until_closed(stream: Stream, body: bytes) -> None:
    with contextlib.suppress(trio.ClosedResourceError):
        await stream.send_all(body)


@pytest.mark.conformance(29)
async def test_who_waited_first_at_the_backlog_opens_first(autojump_clock) -> None:
    async with session_and_peer("tasks", "client") as (session, peer), trio.open_nursery() as nursery:
        for _ in range(256):
            await session.open_stream()
        order: list[int] = []

        async def open_stream(number: int) -> None:
            await session.open_stream()
            order.append(number)

        for number in range(10):
            nursery.start_soon(open_stream, number)
            await trio.testing.wait_all_tasks_blocked()
        for answered in range(10):
            await peer.send(update(2 * answered + 1, flags=ACK))
            await trio.testing.wait_all_tasks_blocked()
        assert order == list(range(10))


@pytest.mark.conformance(49)
async def test_idle_streams_by_the_thousand_do_not_disturb_a_busy_one(autojump_clock) -> None:
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        for _ in range(2000):
            await client.open_stream()
            await server.accept()
        busy = await client.open_stream()
        nursery.start_soon(busy.send_all, bytes(4 * MIB))
        assert len(await receive_exactly(await server.accept(), 4 * MIB)) == 4 * MIB
