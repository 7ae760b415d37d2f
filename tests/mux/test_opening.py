"""Opening streams: how many at once, what answers an open, what a refusal looks like."""

import pytest
import trio
import trio.testing

from otun.mux import StreamReset
from otun.yamux.frames import ACK, DATA, FIN, RST, SYN, WINDOW_UPDATE

from .support import INITIAL_WINDOW, data, echo, fixed_window, receive_exactly, stream_count, update

BACKLOG = 256


@pytest.mark.conformance(15, 17)
async def test_data_written_before_the_ack_is_sent_at_once(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await stream.send_all(b"early")
        syn = await peer.next()
        assert (syn.kind, syn.stream_id, syn.flags) == (WINDOW_UPDATE, 1, SYN)
        early = await peer.next()
        assert (early.kind, early.stream_id, early.body) == (DATA, 1, b"early")


@pytest.mark.conformance(15)
async def test_the_syn_carries_what_the_window_exceeds_256_kib_by(open_with_peer) -> None:
    async with open_with_peer("client", limits=fixed_window(INITIAL_WINDOW + 12345)) as (session, peer):
        await session.open_stream()
        assert (await peer.next()).length == 12345


@pytest.mark.conformance(19)
async def test_an_answer_that_is_ack_data_and_fin_in_one_frame_is_the_data_and_then_the_end(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.send(data(1, b"all there is", ACK | FIN))
        assert await stream.receive_some() == b"all there is"
        assert await stream.receive_some() == b""


@pytest.mark.conformance(24)
async def test_with_256_opens_unanswered_the_next_one_waits_for_an_answer(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        streams = [await session.open_stream() for _ in range(BACKLOG)]
        opened = trio.Event()

        async def open_one_more() -> None:
            streams.append(await session.open_stream())
            opened.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_one_more)
            assert len([frame for frame in await peer.settle() if frame.flags & SYN]) == BACKLOG
            assert not opened.is_set()
            await peer.send(update(1, flags=ACK))
            await opened.wait()
        assert streams[-1].id == 2 * BACKLOG + 1


@pytest.mark.conformance(22, 24)
@pytest.mark.parametrize(
    "answer",
    [data(1, b"x"), data(1, b"", FIN), update(1, flags=FIN), update(1, 1), update(1, flags=RST)],
    ids=["data", "data with FIN", "FIN", "credit", "RST"],
)
async def test_any_frame_on_a_stream_answers_its_open(open_with_peer, answer: bytes) -> None:
    async with open_with_peer("client") as (session, peer):
        for _ in range(BACKLOG):
            await session.open_stream()
        await peer.send(answer)
        await session.open_stream()


@pytest.mark.conformance(25)
async def test_streams_closed_before_the_answer_give_their_places_back(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:

        async def open_and_close() -> None:
            for _ in range(3 * BACKLOG):
                await (await session.open_stream()).aclose()

        nursery.start_soon(open_and_close)
        for stream_id in range(1, 6 * BACKLOG, 2):  # Like hashicorp/yamux: FIN in the end, and never an ACK.
            await peer.until(lambda frame, stream_id=stream_id: frame.is_end_of(stream_id))
            await peer.send(update(stream_id, flags=FIN))
        await peer.settle()
        assert stream_count(session) == 0


@pytest.mark.conformance(26)
async def test_an_open_that_is_cancelled_at_the_backlog_leaks_nothing(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        for _ in range(BACKLOG):
            await session.open_stream()
        await peer.settle()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(session.open_stream)
            await peer.settle()
            nursery.cancel_scope.cancel()
        assert not [frame for frame in await peer.settle() if frame.flags & SYN]
        assert stream_count(session) == BACKLOG
        await peer.send(*(update(stream_id, flags=ACK) for stream_id in range(1, 2 * BACKLOG, 2)))
        for _ in range(BACKLOG):
            await session.open_stream()
        assert stream_count(session) == 2 * BACKLOG


@pytest.mark.conformance(26)
async def test_a_place_that_falls_free_goes_to_the_next_in_line_when_the_first_has_been_cancelled(
    open_with_peer,
) -> None:
    async with open_with_peer("client") as (session, peer):
        for _ in range(BACKLOG):
            await session.open_stream()
        cancelled = trio.CancelScope()

        async def open_and_be_cancelled() -> None:
            with cancelled:
                await session.open_stream()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_and_be_cancelled)
            await peer.settle()
            nursery.start_soon(session.open_stream)
            await peer.settle()
            cancelled.cancel()
            await peer.send(update(1, flags=ACK))
        assert cancelled.cancelled_caught
        assert stream_count(session) == BACKLOG + 1


@pytest.mark.conformance(27)
async def test_an_open_that_is_answered_by_a_reset_raises_on_use_and_leaves_no_entry(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.send(update(1, flags=RST))
        with pytest.raises(StreamReset):
            await stream.receive_some()
        with pytest.raises(StreamReset):
            await stream.send_all(b"x")
        assert stream_count(session) == 0
        await session.open_stream()


@pytest.mark.conformance(29)
async def test_five_backlogs_of_opens_at_once_all_succeed_against_an_acceptor(open_pair) -> None:
    answers: set[bytes] = set()
    async with open_pair() as (client, server), trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            question = number.to_bytes(4, "big")
            stream = await client.open_stream()
            await stream.send_all(question)
            await stream.send_eof()
            answers.add(await receive_exactly(stream, 4))

        nursery.start_soon(server.serve, echo)
        async with trio.open_nursery() as askers:
            for number in range(5 * BACKLOG):
                askers.start_soon(ask, number)
        nursery.cancel_scope.cancel()
    assert len(answers) == 5 * BACKLOG


async def test_both_sides_may_open_streams_and_their_ids_do_not_meet(open_pair) -> None:
    async with open_pair() as (client, server):
        ours, theirs = await client.open_stream(), await server.open_stream()
        assert (ours.id % 2, theirs.id % 2) == (1, 0)
        assert (await server.accept()).id == ours.id
        assert (await client.accept()).id == theirs.id


async def test_an_open_that_waits_at_the_backlog_goes_on_when_its_own_side_goes_away(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        for _ in range(BACKLOG):
            await session.open_stream()
        nursery.start_soon(session.open_stream)
        await peer.settle()
        session.go_away()
        await peer.settle()
        assert stream_count(session) == BACKLOG
        await peer.send(update(1, flags=ACK))
        await peer.settle()
        assert stream_count(session) == BACKLOG + 1
