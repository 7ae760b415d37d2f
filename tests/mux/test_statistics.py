"""`Session.statistics`: what a session and its streams hold at one moment."""

import pytest
import trio
import trio.testing

from otun import SessionLimits
from otun.mux import Session
from otun.yamux import StreamState
from otun.yamux.frames import ACK, FIN, PING, RST, SYN, encode_header

from .support import INITIAL_WINDOW, RawPeer, data, fixed_window, open_over, receive_exactly, session_and_peer, update


def the_stream(session: Session):
    """Give the statistics of the only stream."""
    (stream,) = session.statistics().streams
    return stream


async def test_a_session_without_streams_holds_nothing(open_pair) -> None:
    async with open_pair() as sessions:
        for session in sessions:
            statistics = session.statistics()
            assert statistics.streams == ()
            assert statistics.round_trip is None
            assert (statistics.buffered, statistics.send_credit, statistics.receive_credit) == (0, 0, 0)
            assert statistics.receive_window == 0


async def test_a_new_stream_has_its_windows_for_credit(open_with_peer) -> None:
    async with open_with_peer("client", limits=fixed_window(INITIAL_WINDOW + 1000)) as (session, peer):
        await session.open_stream()
        await peer.send(update(1, 77, ACK))
        await peer.settle()
        stream = the_stream(session)
        assert (stream.id, stream.state) == (1, StreamState.OPEN)
        assert stream.send_credit == INITIAL_WINDOW + 77
        assert stream.receive_credit == stream.receive_window == INITIAL_WINDOW + 1000
        assert stream.buffered == 0
        assert session.statistics().queued == 0


async def test_what_was_sent_is_off_the_credit_until_the_peer_grants_more(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await stream.send_all(bytes(1000))
        assert the_stream(session).send_credit == INITIAL_WINDOW - 1000
        await peer.send(update(1, 300, ACK))
        await peer.settle()
        assert the_stream(session).send_credit == INITIAL_WINDOW - 700
        assert session.statistics().send_credit == INITIAL_WINDOW - 700


async def test_what_arrived_is_buffered_until_it_is_read(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(5000)))
        stream = await session.accept()
        await peer.settle()
        before = the_stream(session)
        assert before.buffered == session.statistics().buffered == 5000
        assert before.receive_credit == before.receive_window - 5000 == INITIAL_WINDOW - 5000
        await receive_exactly(stream, 2000)
        after = the_stream(session)
        assert after.buffered == session.statistics().buffered == 3000
        assert after.receive_credit == before.receive_credit  # It is granted anew from half a window on.


async def test_a_session_has_the_sums_over_its_streams(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(*[update(stream_id, stream_id, SYN) for stream_id in (1, 3, 5)])
        await peer.send(*[data(stream_id, bytes(10 * stream_id)) for stream_id in (1, 3, 5)])
        streams = [await session.accept() for _ in range(3)]
        await peer.settle()
        await streams[2].send_all(bytes(100))
        statistics = session.statistics()
        assert [stream.id for stream in statistics.streams] == [1, 3, 5]
        assert [stream.buffered for stream in statistics.streams] == [10, 30, 50]
        assert [stream.send_credit - INITIAL_WINDOW for stream in statistics.streams] == [1, 3, -95]
        assert statistics.buffered == 90
        assert statistics.send_credit == 3 * INITIAL_WINDOW - 91
        assert statistics.receive_credit == 3 * INITIAL_WINDOW - 90
        assert statistics.receive_window == 3 * INITIAL_WINDOW


async def test_a_streams_state_is_shown_until_it_is_over(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(*[update(stream_id, 0, SYN) for stream_id in (1, 3, 5)], update(3, 0, FIN), update(5, 0, FIN))
        streams = [await session.accept() for _ in range(3)]
        await streams[0].send_eof()
        await peer.settle()
        states = [stream.state for stream in session.statistics().streams]
        assert states == [StreamState.LOCAL_CLOSED, StreamState.REMOTE_CLOSED, StreamState.REMOTE_CLOSED]
        await streams[1].send_eof()
        await peer.send(update(5, 0, RST))
        await peer.settle()
        assert [stream.id for stream in session.statistics().streams] == [1]


async def test_what_ended_streams_have_unread_is_still_buffered(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(700), FIN))
        stream = await session.accept()
        await stream.send_eof()
        await peer.settle()
        statistics = session.statistics()
        assert statistics.streams == ()
        assert statistics.buffered == 700
        assert (statistics.send_credit, statistics.receive_credit, statistics.receive_window) == (0, 0, 0)
        await receive_exactly(stream, 700)
        assert session.statistics().buffered == 0


@pytest.mark.parametrize("end", ["aclose", "reset", "peer resets"])
async def test_what_nobody_will_read_is_not_buffered(open_with_peer, end: str) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(700)))
        stream = await session.accept()
        await peer.settle()
        assert session.statistics().buffered == 700
        if end == "aclose":
            await stream.aclose()
        elif end == "reset":
            stream.reset()
        else:
            await peer.send(update(1, flags=RST))
            await peer.settle()
        assert session.statistics().buffered == 0


async def test_bytes_for_a_peer_that_does_not_read_are_queued(autojump_clock) -> None:
    """What the transport has been given is not, and beyond `send_queue` the writer waits."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_over("tasks", ours, "client", limits=SessionLimits(send_queue=70_000)) as session:
        peer = RawPeer(theirs)
        stream = await session.open_stream()
        assert session.statistics().queued == 0  # Windows and pings have places of their own.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(10_000))
            await trio.testing.wait_all_tasks_blocked()
            assert session.statistics().queued == 10_012
            nursery.start_soon(peer.until, lambda frame: frame.is_end_of(1))
            await trio.testing.wait_all_tasks_blocked()
            assert session.statistics().queued == 0
            await stream.send_eof()
        await trio.aclose_forcefully(theirs)


async def test_the_round_trip_is_the_last_one_that_was_measured(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer), trio.open_nursery() as nursery:
        for seconds in (0.25, 0.5, 0.125):
            nursery.start_soon(session.ping)
            asked = await peer.until(lambda frame: frame.kind == PING)
            await trio.sleep(seconds)
            await peer.send(encode_header(PING, ACK, 0, asked[-1].length))
            await peer.settle()
            assert session.statistics().round_trip == pytest.approx(seconds)


async def test_a_pong_that_nobody_asked_for_measures_nothing(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(*[encode_header(PING, ACK, 0, value) for value in range(100)])
        await peer.settle()
        assert session.statistics().round_trip is None


async def test_statistics_can_be_taken_after_the_end(open_pair) -> None:
    async with open_pair() as (client, server):
        await client.open_stream()
        await client.ping()
        await client.aclose()
        for session in (client, server):
            await session.wait_closed()
            assert session.statistics().streams == ()
        assert client.statistics().round_trip is not None
