"""Accepting streams: what the peer is told, and what comes out."""

import pytest
import trio
import trio.testing

from otun.testing import session_pair
from otun.yamux import YamuxStream
from otun.yamux.frames import ACK, FIN, RST, SYN

from .support import (
    data,
    receive_all,
    session_and_peer,
    stream_count,
    update,
)

BACKLOG = 256
HASHICORP_OPEN_TIMEOUT = 75.0


@pytest.mark.conformance(18)
async def test_accepting_a_stream_sends_exactly_one_ack(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.send(data(1, b"ping"))
        assert await stream.receive_some() == b"ping"
        await stream.send_all(b"pong")
        await stream.aclose()
        frames = await peer.settle()
        assert [bool(frame.flags & ACK) for frame in frames if frame.stream_id == 1].count(True) == 1


@pytest.mark.conformance(18, 20)
async def test_a_stream_that_was_not_accepted_yet_is_not_acknowledged(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"in the queue"))
        assert not [frame for frame in await peer.settle() if frame.flags & ACK]
        stream = await session.accept()
        assert await stream.receive_some() == b"in the queue"
        assert [frame.flags & ACK for frame in await peer.settle() if frame.stream_id == 1] == [ACK]


@pytest.mark.conformance(28)
async def test_what_exceeds_our_backlog_is_reset_and_drained_and_the_others_live(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        ids = range(1, 2 * BACKLOG + 1, 2)
        await peer.send(*(update(stream_id, flags=SYN) for stream_id in ids))
        excess = 2 * BACKLOG + 1
        await peer.send(update(excess, flags=SYN), data(excess, bytes(1000)), data(1, b"lives"))
        assert [frame.stream_id for frame in await peer.settle() if frame.flags & RST] == [excess]
        for stream_id in ids:
            stream = await session.accept()
            assert stream.id == stream_id
            if stream_id == 1:
                assert await stream.receive_some() == b"lives"


@pytest.mark.conformance(30)
async def test_a_stream_that_nobody_accepts_is_answered_well_before_hashicorps_75_seconds(autojump_clock) -> None:
    async with session_and_peer("tasks") as (_session, peer):
        peer.answers_pings = True
        await peer.send(update(1, flags=SYN))
        answer = await peer.next()
        assert answer.stream_id == 1
        assert answer.flags & (ACK | RST)
        assert trio.current_time() <= 0.8 * HASHICORP_OPEN_TIMEOUT


@pytest.mark.conformance(30)
async def test_a_stream_accepted_after_its_timely_ack_works_and_is_not_acknowledged_again(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer):
        peer.answers_pings = True
        await peer.send(update(1, flags=SYN), data(1, b"patience"))
        assert (await peer.next()).flags == ACK
        stream = await session.accept()
        assert await stream.receive_some() == b"patience"
        assert not [frame for frame in await peer.settle() if frame.flags & ACK]


@pytest.mark.conformance(31)
async def test_a_stream_that_comes_with_its_end_reads_as_ended_and_can_be_written(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN | FIN))
        stream = await session.accept()
        assert await stream.receive_some() == b""
        await stream.send_all(b"answer")
        assert await peer.body_of(1, 6) == b"answer"


@pytest.mark.conformance(32)
async def test_a_stream_that_comes_with_its_reset_is_never_accepted(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN | RST), update(3, flags=SYN))
        assert (await session.accept()).id == 3
        assert not [frame for frame in await peer.settle() if frame.stream_id == 1]


@pytest.mark.conformance(33)
async def test_data_and_end_that_came_before_accept_are_read_and_acknowledged_once(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"da"), data(1, b"ta"), update(1, flags=FIN))
        await peer.settle()
        stream = await session.accept()
        assert await receive_all(stream) == b"data"
        await stream.aclose()
        acks = [frame for frame in await peer.settle() if frame.flags & ACK]
        assert len(acks) == 1
        assert stream_count(session) == 0


@pytest.mark.conformance(34)
async def test_a_stream_that_is_reset_before_accept_is_not_handed_out(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"x"), update(3, flags=SYN), update(1, flags=RST))
        await peer.settle()
        assert (await session.accept()).id == 3
        assert stream_count(session) == 1


@pytest.mark.conformance(16)
async def test_streams_are_accepted_in_the_order_in_which_they_were_opened_whatever_their_ids(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(9, flags=SYN), update(3, flags=SYN))
        assert [(await session.accept()).id for _ in range(2)] == [9, 3]


@pytest.mark.conformance(29)
async def test_many_waiting_acceptors_get_one_stream_each(autojump_clock) -> None:
    async with session_pair() as (client, server):
        accepted: list[int] = []

        async def accept_one() -> None:
            accepted.append((await server.accept()).id)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(accept_one)
            await trio.testing.wait_all_tasks_blocked()
            streams = [await client.open_stream() for _ in range(10)]
        assert sorted(accepted) == [stream.id for stream in streams]


class Keeper:
    """A stream's handler that is no task."""

    def __init__(self) -> None:
        self.received = b""
        self.is_lost = False

    def data_received(self, data: memoryview) -> None:
        self.received += data

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def connection_lost(self) -> None:
        self.is_lost = True

    def window_opened(self) -> None: ...


async def test_deliver_to_hands_over_the_streams_that_wait_and_those_that_come(open_with_peer) -> None:
    keepers: dict[int, Keeper] = {}

    def keep(stream: YamuxStream) -> None:
        stream.handler = keepers[stream.id] = Keeper()

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"early, "))
        await peer.settle()
        session.deliver_to(keep)
        assert list(keepers) == [1]
        await peer.send(data(1, b"late"), update(3, flags=SYN), data(3, b"later"))
        await peer.settle()
        assert {stream_id: keeper.received for stream_id, keeper in keepers.items()} == {
            1: b"early, late",
            3: b"later",
        }


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_streams_of_a_session_that_has_ended_are_handed_over_as_lost(open_with_peer, when: str) -> None:
    keepers: dict[int, Keeper] = {}

    def keep(stream: YamuxStream) -> None:
        if when == "meanwhile":  # An answer that could not be sent, for instance.
            session.fail("the connection is gone")
        stream.handler = keepers[stream.id] = Keeper()

    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"early"), update(3, flags=SYN))
        await peer.settle()
        if when == "before":
            session.fail("the connection is gone")
        session.deliver_to(keep)
        assert [keeper.is_lost for keeper in keepers.values()] == [True, True]
