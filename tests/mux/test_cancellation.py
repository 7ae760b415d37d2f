"""Every operation is cancelled at each of its checkpoints, and nobody else notices."""

from collections.abc import Iterator

import pytest
import trio

from otun.mux import Session, Stream, StreamReset
from otun.yamux.frames import ACK, DATA, FIN, SYN

from .cancelling import Moment, cancel_at_checkpoint
from .support import (
    INITIAL_WINDOW,
    check_round_trip,
    fixed_window,
    pattern,
    receive_all,
    receive_exactly,
    send_and_end,
    stream_count,
    update,
)

MIB = 1024 * 1024
MOST_CHECKPOINTS = 500

pytestmark = pytest.mark.parametrize("moment", ["while waiting", "when woken"])


def _checkpoints() -> Iterator[int]:
    """Count from 1; whoever iterates stops when the operation has fewer checkpoints than that."""
    yield from range(1, MOST_CHECKPOINTS)
    pytest.fail(f"the operation has {MOST_CHECKPOINTS} checkpoints or more")


async def _stream_pair(sessions: tuple[Session, Session]) -> tuple[Stream, Stream]:
    return await sessions[0].open_stream(), await sessions[1].accept()


@pytest.mark.conformance(89)
async def test_a_cancelled_send_has_sent_a_prefix_and_the_session_lives(open_pair, moment: Moment) -> None:
    body = pattern(3 * MIB)
    async with open_pair(limits=fixed_window(INITIAL_WINDOW)) as sessions:
        for count in _checkpoints():
            ours, theirs = await _stream_pair(sessions)
            received = bytearray()

            async def read(theirs=theirs, received=received) -> None:
                while more := await theirs.receive_some(100_000):
                    received += more

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                was_cancelled = await cancel_at_checkpoint(lambda ours=ours: ours.send_all(body), count, moment)
                await ours.send_eof()
            assert body.startswith(received)
            assert was_cancelled or len(received) == len(body)
            await theirs.aclose()
            await check_round_trip(*sessions)
            if not was_cancelled:
                break
        assert count > 5  # A checkpoint of its own, and one for each time that the window is empty.
        assert stream_count(sessions[0]) == stream_count(sessions[1]) == 0


@pytest.mark.conformance(89)
async def test_after_a_cancelled_send_every_frame_on_the_wire_is_whole(open_with_peer, moment: Moment) -> None:
    body = pattern(400_000)
    async with open_with_peer("client") as (session, peer):
        stream_id = -1
        for count in _checkpoints():
            stream_id += 2
            stream = await session.open_stream()
            credit = update(stream_id, 1_000, ACK)

            async def grant(stream_id=stream_id, first=credit) -> None:
                await peer.send(first)
                for _ in range(40):
                    await peer.send(update(stream_id, 10_000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(grant)
                was_cancelled = await cancel_at_checkpoint(lambda stream=stream: stream.send_all(body), count, moment)
            await stream.send_eof()
            frames = await peer.until(lambda frame, stream_id=stream_id: frame.is_end_of(stream_id))
            sent = b"".join(frame.body for frame in frames if frame.stream_id == stream_id)
            assert body.startswith(sent)
            assert {frame.kind for frame in frames} <= {DATA, 1}
            if not was_cancelled:
                break
        assert count > 5
        assert sent == body


@pytest.mark.conformance(90)
async def test_a_cancelled_receive_loses_no_byte(open_pair, moment: Moment) -> None:
    body = pattern(300_000)
    async with open_pair() as sessions:
        ours, theirs = await _stream_pair(sessions)
        received = bytearray()

        async def receive() -> None:
            received.extend(await theirs.receive_some(1000))

        async def send_slowly() -> None:
            for start in range(0, len(body), 5000):
                await ours.send_all(body[start : start + 5000])
                await sessions[0].ping()
            await ours.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_slowly)
            while len(received) < len(body):
                await cancel_at_checkpoint(receive, 1, moment)
                await receive()
        assert received == body
        assert await theirs.receive_some() == b""


@pytest.mark.conformance(90)
async def test_a_reader_that_is_cancelled_at_each_checkpoint_in_turn_loses_no_byte(open_pair, moment: Moment) -> None:
    """It reads in pieces, so that it waits for some and finds others there."""
    body = pattern(20_000)
    async with open_pair() as sessions:
        for count in _checkpoints():
            ours, theirs = await _stream_pair(sessions)
            received = bytearray()

            async def read(theirs=theirs, received=received) -> None:
                while more := await theirs.receive_some(1000):
                    received += more

            async def send(ours=ours) -> None:
                for start in range(0, len(body), 4000):
                    await ours.send_all(body[start : start + 4000])
                    await sessions[0].ping()
                await ours.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                was_cancelled = await cancel_at_checkpoint(read, count, moment)
                assert body.startswith(received)
                await read()
            assert received == body
            for stream in (ours, theirs):
                await stream.aclose()
            if not was_cancelled:
                break
        assert count > 20
        await check_round_trip(*sessions)


@pytest.mark.conformance(35)
async def test_an_acceptor_that_is_cancelled_at_each_checkpoint_in_turn_loses_no_stream(
    open_pair, moment: Moment
) -> None:
    async with open_pair() as sessions:
        for count in _checkpoints():
            opened: list[Stream] = []
            accepted: list[Stream] = []

            async def accept(accepted=accepted) -> None:
                while len(accepted) < 6:
                    accepted.append(await sessions[1].accept())

            async def open_streams(opened=opened) -> None:
                for _ in range(3):
                    opened += [await sessions[0].open_stream(), await sessions[0].open_stream()]
                    await sessions[0].ping()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_streams)
                was_cancelled = await cancel_at_checkpoint(accept, count, moment)
                await accept()
            assert [stream.id for stream in accepted] == [stream.id for stream in opened]
            for stream in (*opened, *accepted):
                await stream.aclose()
            if not was_cancelled:
                break
        assert count > 6
        await check_round_trip(*sessions)


@pytest.mark.conformance(89)
async def test_a_cancelled_wait_for_room_sends_nothing_and_leaves_the_stream_usable(
    open_with_peer, moment: Moment
) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.send(update(1, flags=ACK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW))
            await peer.body_of(1, INITIAL_WINDOW)
        for count in _checkpoints():
            async with trio.open_nursery() as nursery:
                ends: list[bool] = []

                async def wait(count=count, ends=ends) -> None:
                    ends.append(await cancel_at_checkpoint(stream.wait_send_all_might_not_block, count, moment))

                nursery.start_soon(wait)
                assert [frame for frame in await peer.settle() if frame.kind == DATA] == []
                await peer.send(update(1, 2))
            await stream.send_all(b"ok")
            assert await peer.body_of(1, 2) == b"ok"
            if ends == [False]:
                break
        assert count > 2


@pytest.mark.conformance(35)
async def test_a_cancelled_accept_loses_no_stream(open_pair, moment: Moment) -> None:
    async with open_pair() as sessions:
        accepted: list[int] = []

        async def accept() -> None:
            accepted.append((await sessions[1].accept()).id)

        async def open_streams() -> None:
            for _ in range(100):
                await sessions[0].open_stream()
                await sessions[0].ping()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_streams)
            while len(accepted) < 99:
                await cancel_at_checkpoint(accept, 1, moment)
                await accept()
            if len(accepted) < 100:
                await accept()
        assert accepted == list(range(1, 201, 2))
        await check_round_trip(*sessions)


@pytest.mark.conformance(35)
async def test_an_accept_cancelled_just_as_a_syn_lands_leaves_the_stream_to_the_next(
    open_with_peer, moment: Moment
) -> None:
    async with open_with_peer() as (session, peer):
        for stream_id in range(1, 41, 2):
            accepted: list[Stream] = []

            async def accept(accepted=accepted) -> None:
                accepted.append(await session.accept())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_at_checkpoint, accept, 1, moment)
                if stream_id % 4 == 1:
                    await peer.settle()
                await peer.send(update(stream_id, flags=SYN))
            if not accepted:
                accepted.append(await session.accept())
            assert [stream.id for stream in accepted] == [stream_id]


@pytest.mark.conformance(26)
async def test_a_cancelled_open_leaves_nothing_open_and_takes_no_place(open_with_peer, moment: Moment) -> None:
    async with open_with_peer("client") as (session, peer):
        for _ in range(256):
            await session.open_stream()
        acknowledged = 0
        for count in _checkpoints():
            opened: list[Stream] = []

            async def open_stream(opened=opened) -> None:
                opened.append(await session.open_stream())

            async with trio.open_nursery() as nursery:
                before = stream_count(session)
                nursery.start_soon(cancel_at_checkpoint, open_stream, count, moment)
                await peer.settle()
                await peer.send(update(2 * acknowledged + 1, flags=ACK))
                acknowledged += 1
            await peer.settle()
            assert stream_count(session) == before + len(opened)
            if not opened:
                await session.open_stream()  # Its place is there.
            elif count > 2:
                break


@pytest.mark.conformance(91)
async def test_a_cancelled_aclose_of_a_stream_has_the_effect_of_a_complete_one(open_pair, moment: Moment) -> None:
    async with open_pair() as sessions:
        for count in _checkpoints():
            ours, theirs = await _stream_pair(sessions)
            await ours.send_all(b"last words")
            was_cancelled = await cancel_at_checkpoint(ours.aclose, count, moment)
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
            try:
                assert await receive_all(theirs) == b"last words"
            except StreamReset:
                assert was_cancelled
            await theirs.aclose()
            await check_round_trip(*sessions)
            assert stream_count(sessions[0]) == stream_count(sessions[1]) == 0
            if not was_cancelled:
                break


@pytest.mark.conformance(55)
async def test_a_cancelled_send_eof_sends_one_fin_or_none(open_with_peer, moment: Moment) -> None:
    async with open_with_peer("client") as (session, peer):
        stream_id = -1
        for count in _checkpoints():
            stream_id += 2
            stream = await session.open_stream()
            was_cancelled = await cancel_at_checkpoint(stream.send_eof, count, moment)
            await stream.send_eof()
            ends = [frame for frame in await peer.settle() if frame.flags & FIN]
            assert [frame.stream_id for frame in ends] == [stream_id]
            if not was_cancelled:
                break


@pytest.mark.conformance(69)
async def test_a_cancelled_ping_leaves_the_session_and_later_pings_alone(open_pair, moment: Moment) -> None:
    async with open_pair() as sessions:
        for count in _checkpoints():
            was_cancelled = await cancel_at_checkpoint(sessions[0].ping, count, moment)
            assert await sessions[0].ping() >= 0
            await check_round_trip(*sessions)
            if not was_cancelled:
                break


@pytest.mark.conformance(91, 76)
async def test_a_cancelled_close_of_a_session_ends_both_sides(open_pair, moment: Moment) -> None:
    for count in _checkpoints():
        async with open_pair() as sessions:
            ours, theirs = await _stream_pair(sessions)
            await send_and_end(ours, b"sent before")
            assert await receive_exactly(theirs, 11) == b"sent before"
            was_cancelled = await cancel_at_checkpoint(sessions[0].aclose, count, moment)
            assert sessions[0].is_closed
            await sessions[1].wait_closed()
        if not was_cancelled:
            break
