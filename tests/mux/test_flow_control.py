"""Windows and back-pressure: nobody sends more than was granted, and nobody waits for ever."""

import socket
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.mux import Session, SessionClosed, Stream
from otun.testing import board_session_pair, session_pair
from otun.yamux.frames import ACK, DATA, FIN, GO_AWAY, SYN, WINDOW_UPDATE, encode_header

from .support import (
    INITIAL_WINDOW,
    Driver,
    RawPeer,
    data,
    echo,
    fixed_window,
    open_over,
    pattern,
    receive_all,
    receive_exactly,
    send_and_end,
    transports_for,
    update,
)

MIB = 1024 * 1024


@pytest.mark.conformance(40)
async def test_a_send_without_credit_waits_until_the_peer_grants_some(open_with_peer) -> None:
    body = pattern(INITIAL_WINDOW + 5)
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        is_sent = trio.Event()

        async def send() -> None:
            await stream.send_all(body)
            is_sent.set()

        nursery.start_soon(send)
        assert await peer.body_of(1, INITIAL_WINDOW) == body[:INITIAL_WINDOW]
        assert await peer.settle() == []
        assert not is_sent.is_set()
        await peer.send(update(1, 3))
        assert await peer.body_of(1, 3) == body[-5:-2]
        assert await peer.settle() == []
        assert not is_sent.is_set()
        await peer.send(update(1, 3))
        assert await peer.body_of(1, 2) == body[-2:]
        await is_sent.wait()


@pytest.mark.conformance(21)
async def test_credit_that_comes_with_the_ack_is_used(open_with_peer) -> None:
    body = pattern(INITIAL_WINDOW + 1000)
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        nursery.start_soon(stream.send_all, body)
        await peer.send(update(1, 1000, ACK))
        assert await peer.body_of(1, len(body)) == body


@pytest.mark.conformance(41)
async def test_a_full_window_is_taken_and_one_byte_more_ends_the_session_with_goaway_1(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(INITIAL_WINDOW)))
        stream = await session.accept()
        await peer.settle()
        assert not session.is_closed
        await peer.send(data(1, b"!"))
        assert [(frame.kind, frame.length) for frame in await peer.rest() if frame.kind == GO_AWAY] == [(GO_AWAY, 1)]
        assert len(await receive_exactly(stream, INITIAL_WINDOW)) == INITIAL_WINDOW
        with pytest.raises(SessionClosed):
            await stream.receive_some()


@pytest.mark.conformance(42)
async def test_half_a_window_read_in_small_pieces_is_granted_anew_in_one_or_two_updates(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.send(data(1, bytes(INITIAL_WINDOW)))
        await peer.settle()
        for _ in range(1024):
            await receive_exactly(stream, 128)
        grants = [frame.length for frame in await peer.settle() if frame.kind == WINDOW_UPDATE]
        assert len(grants) in (1, 2)
        assert sum(grants) <= 1024 * 128


@pytest.mark.conformance(42)
async def test_what_is_granted_never_exceeds_what_was_read(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        read = granted = 0
        credit = INITIAL_WINDOW
        for _ in range(20):
            await peer.send(data(1, bytes(credit)))
            read += len(await receive_exactly(stream, credit))
            grants = [frame.length for frame in await peer.settle() if frame.kind == WINDOW_UPDATE]
            granted += sum(grants)
            credit = INITIAL_WINDOW + granted - read
            assert INITIAL_WINDOW // 2 <= credit <= INITIAL_WINDOW


@pytest.mark.conformance(43)
async def test_credit_that_comes_after_the_peers_end_wakes_our_writer(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW + 10))
        await peer.body_of(1, INITIAL_WINDOW)
        await peer.send(update(1, flags=FIN))
        assert await stream.receive_some() == b""
        await peer.send(update(1, 10))
        assert await peer.body_of(1, 10) == bytes(10)


@pytest.mark.conformance(45)
async def test_credit_above_32_bits_ends_the_session_with_goaway_1(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.send(update(1, 2**32 - 1))
        with pytest.raises(SessionClosed):
            await stream.receive_some()
        assert [frame.length for frame in await peer.rest() if frame.kind == GO_AWAY] == [1]


async def _transfer_ten_windows(sessions: tuple[Session, Session], window: int, piece: int, read: int) -> None:
    client, server = sessions
    body = pattern(10 * window)
    stream = await client.open_stream()

    async def send() -> None:
        for start in range(0, len(body), piece):
            await stream.send_all(body[start : start + piece])
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        other = await server.accept()
        received = bytearray()
        while more := await other.receive_some(read):
            received += more
    assert received == body


@pytest.mark.conformance(46)
@pytest.mark.parametrize("open_pair", [session_pair, board_session_pair], ids=["tasks", "board"])
@settings(max_examples=15, deadline=None)
@given(
    window=st.integers(INITIAL_WINDOW, 512 * 1024),
    piece=st.integers(5_000, 700_000),
    read=st.integers(3_000, 700_000),
)
async def test_ten_times_any_window_goes_through_without_a_stall(open_pair, window: int, piece: int, read: int) -> None:
    async with open_pair(limits=fixed_window(window)) as sessions:
        await _transfer_ten_windows(sessions, window, piece, read)


@pytest.mark.conformance(46)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(INITIAL_WINDOW, 4 * MIB), (4 * MIB, INITIAL_WINDOW)], ids=["small-large", "large-small"]
)
async def test_sides_with_different_windows_exchange_data_both_ways(driver: Driver, ours: int, theirs: int) -> None:
    if driver == "tasks":
        left, right = trio.testing.memory_stream_pair()
    else:
        left, right = socket.socketpair()
    body = pattern(6 * MIB)
    async with (
        open_over(driver, left, "client", limits=fixed_window(ours)) as client,
        open_over(driver, right, "server", limits=fixed_window(theirs)) as server,
        trio.open_nursery() as nursery,
    ):
        stream = await client.open_stream()
        nursery.start_soon(send_and_end, stream, body)
        other = await server.accept()
        nursery.start_soon(send_and_end, other, body)
        assert await receive_all(other) == body
        assert await receive_all(stream) == body


@pytest.mark.conformance(47)
async def test_an_echo_of_1_mib_completes_over_a_transport_that_holds_next_to_nothing(open_tight_pair) -> None:
    body = pattern(MIB)
    async with open_tight_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await client.open_stream()
        nursery.start_soon(send_and_end, stream, body)
        other = await server.accept()
        nursery.start_soon(_echo_and_end, other)
        assert await receive_all(stream) == body


@pytest.mark.conformance(47)
async def test_echoes_in_both_directions_at_once_complete_over_such_a_transport(open_tight_pair) -> None:
    body = pattern(MIB // 2)

    async def ask(session: Session) -> None:
        stream = await session.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, stream, body)
            assert await receive_all(stream) == body

    async with open_tight_pair() as (client, server), trio.open_nursery() as servers:
        servers.start_soon(client.serve, echo)
        servers.start_soon(server.serve, echo)
        async with trio.open_nursery() as askers:
            for session in (client, server) * 3:
                askers.start_soon(ask, session)
        servers.cancel_scope.cancel()


async def _echo_and_end(stream: Stream) -> None:
    await echo(stream)
    await stream.send_eof()


@pytest.mark.conformance(47)
async def test_on_the_switchboard_everything_arrives_however_often_a_call_uses_up_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No socket holds as much as a turn is worth, so that turns are made small."""
    monkeypatch.setattr("otun.mux.board_driver.READ_SIZE", 4 * 1024)
    monkeypatch.setattr("otun.mux.board_driver.BYTES_PER_CALL", 16 * 1024)
    body = pattern(3 * MIB)
    async with board_session_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await client.open_stream()
        nursery.start_soon(send_and_end, stream, body)
        nursery.start_soon(_echo_and_end, await server.accept())
        assert await receive_all(stream) == body


@pytest.mark.conformance(48)
async def test_a_read_returns_its_data_though_the_window_update_cannot_be_sent(driver: Driver) -> None:
    """The peer reads nothing: our transport is full, and the update has to stay."""
    if driver == "tasks":
        ours, theirs = trio.testing.lockstep_stream_pair()
    else:
        ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "server", limits=fixed_window(INITIAL_WINDOW)) as session:
        peer = RawPeer(theirs)
        await peer.send(update(1, flags=SYN), update(1, 100 * MIB))
        stream = await session.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(4 * MIB))
            await peer.send(data(1, pattern(INITIAL_WINDOW)))
            assert await receive_exactly(stream, INITIAL_WINDOW) == pattern(INITIAL_WINDOW)
            grants = await peer.until(lambda frame: frame.kind == WINDOW_UPDATE and not frame.flags)
            assert grants[-1].length > INITIAL_WINDOW // 4
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(theirs)


@pytest.mark.conformance(49)
async def test_a_stream_that_nobody_reads_holds_up_no_other(open_pair) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        unread, other = await client.open_stream(), await client.open_stream()
        nursery.start_soon(unread.send_all, bytes(8 * MIB))
        await server.accept()
        echoing = await server.accept()
        nursery.start_soon(_echo_and_end, echoing)
        body = pattern(8 * MIB)
        nursery.start_soon(send_and_end, other, body)
        assert await receive_all(other) == body
        nursery.cancel_scope.cancel()


@pytest.mark.conformance(14)
async def test_a_frame_of_4_mib_can_be_read_before_it_is_complete(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(8 * MIB)) as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.settle()
        body = pattern(4 * MIB)
        await peer.send(encode_header(DATA, 0, 1, len(body)), body[:1000])
        assert await receive_exactly(stream, 1000) == body[:1000]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(peer.send, body[1000:], update(1, flags=FIN)))
            assert await receive_all(stream) == body[1000:]


@pytest.mark.conformance(54)
async def test_no_frame_exceeds_256_kib_however_much_is_sent_at_once(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        await peer.send(update(1, 16 * MIB))
        nursery.start_soon(send_and_end, stream, bytes(8 * MIB))
        frames = await peer.until(lambda frame: frame.is_end_of(1))
        assert max(frame.length for frame in frames if frame.kind == DATA) <= 256 * 1024
