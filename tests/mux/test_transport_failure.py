"""What streams and waiting tasks see when the transport ends, breaks or gets stuck."""

import socket

import pytest
import trio
import trio.testing

from otun import SessionLimits
from otun.mux import SessionClosed, open_board_session, open_session
from otun.switchboard import open_switchboard
from otun.yamux.frames import FIN, SYN

from .support import (
    RawPeer,
    SlowStream,
    data,
    open_over,
    pattern,
    receive_all,
    receive_exactly,
    send_and_end,
    transports_for,
    update,
)

MIB = 1024 * 1024
STALL_LIMIT = 10.0


async def _expect_failure(call) -> None:
    with pytest.raises(SessionClosed) as caught:
        await call()
    assert not caught.value.is_clean


@pytest.mark.conformance(3)
@pytest.mark.parametrize("size", [1, 11])
async def test_an_end_within_a_header_is_a_failure(open_with_peer, size: int) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), update(1, 5)[:size])
        stream = await session.accept()
        await peer.transport.send_eof()
        await _expect_failure(stream.receive_some)
        await _expect_failure(session.accept)


@pytest.mark.conformance(4)
async def test_an_end_within_a_body_gives_the_prefix_and_then_a_failure(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.send(data(1, pattern(1000))[:-1])
        await peer.transport.send_eof()
        await session.wait_closed()
        assert await receive_exactly(stream, 999) == pattern(999)
        await _expect_failure(stream.receive_some)


@pytest.mark.conformance(77)
@pytest.mark.parametrize("is_orderly", [True, False], ids=["end of bytes", "cut header"])
async def test_a_stream_that_had_ended_is_read_to_its_end_after_the_session_has_died(
    open_with_peer, is_orderly: bool
) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.settle()
        await peer.send(data(1, b"complete"), update(1, flags=FIN), b"" if is_orderly else b"\0")
        await peer.transport.aclose()
        await session.wait_closed()
        assert await stream.receive_some(4) == b"comp"
        assert await stream.receive_some() == b"lete"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""


@pytest.mark.conformance(77)
async def test_what_has_reached_our_socket_is_not_lost_because_writing_fails_first() -> None:
    """hashicorp/yamux closes without a GoAway; whatever we send just then fails, before we have read the rest."""
    ours, theirs = socket.socketpair()
    async with open_switchboard() as board, open_board_session(board, ours, "server") as session:
        theirs.sendall(update(1, flags=SYN))
        stream = await session.accept()
        theirs.sendall(data(1, b"the last answer", FIN))
        theirs.close()
        session.go_away()  # Written at once, before the board has looked at the socket.
        assert await receive_all(stream) == b"the last answer"


@pytest.mark.conformance(78)
async def test_without_a_fin_the_streams_data_is_followed_by_an_error_and_not_by_an_end(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.send(data(1, b"cut"))
        await peer.transport.aclose()
        await session.wait_closed()
        assert await stream.receive_some() == b"cut"
        for _ in range(2):
            with pytest.raises(SessionClosed):
                await stream.receive_some()


@pytest.mark.conformance(78)
async def test_everybody_who_waits_wakes_when_the_transport_drops(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        streams = [await session.open_stream() for _ in range(256)]

        async def expect_closed(call, *args) -> None:
            with pytest.raises(SessionClosed):
                await call(*args)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, session.accept)
            nursery.start_soon(expect_closed, session.accept)
            nursery.start_soon(expect_closed, session.open_stream)
            nursery.start_soon(expect_closed, session.ping)
            nursery.start_soon(session.wait_closed)
            nursery.start_soon(expect_closed, streams[0].receive_some)
            nursery.start_soon(expect_closed, streams[0].send_all, bytes(MIB))
            await peer.settle()
            await trio.aclose_forcefully(peer.transport)


@pytest.mark.conformance(78)
async def test_after_the_sessions_end_every_call_raises_session_closed(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await trio.aclose_forcefully(peer.transport)
        await session.wait_closed()
        for call in (session.open_stream, session.accept, session.ping, stream.receive_some, stream.send_eof):
            with pytest.raises(SessionClosed):
                await call()
        for call in (lambda: stream.send_all(b"x"), stream.wait_send_all_might_not_block):
            with pytest.raises(SessionClosed):
                await call()
        with pytest.raises(SessionClosed):
            session.go_away()
        await stream.aclose()
        await session.aclose()


@pytest.mark.conformance(78)
async def test_session_closed_is_caught_by_programs_that_know_only_trio(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.transport.aclose()
        await session.wait_closed()
        with pytest.raises(trio.BrokenResourceError):
            await session.accept()
        with pytest.raises(trio.ClosedResourceError):
            await session.accept()


@pytest.mark.conformance(79)
async def test_a_transport_that_takes_nothing_for_10_seconds_ends_the_session(autojump_clock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    async with open_session(ours, "client") as session:
        stream = await session.open_stream()
        await _expect_failure(lambda: stream.send_all(bytes(MIB)))
        assert trio.current_time() == pytest.approx(STALL_LIMIT)


@pytest.mark.conformance(79)
async def test_a_socket_that_takes_nothing_ends_the_session(driver) -> None:
    """Over both drivers; the switchboard needs sockets, and so the real clock: the limit is made small."""
    if driver == "tasks":
        ours, theirs = trio.testing.lockstep_stream_pair()
    else:
        ours, theirs = transports_for(driver)
    limits = SessionLimits(stall_timeout=0.05)
    async with open_over(driver, ours, "client", limits=limits) as session, trio.open_nursery() as nursery:
        stream = await session.open_stream()
        if driver == "board":
            await RawPeer(theirs).send(update(1, 64 * MIB))
        nursery.start_soon(_expect_failure, lambda: stream.send_all(bytes(16 * MIB)))
        await session.wait_closed()
        await trio.aclose_forcefully(theirs)


@pytest.mark.conformance(79)
async def test_a_transport_that_is_merely_slow_does_not_end_the_session(autojump_clock) -> None:
    left, right = trio.testing.memory_stream_pair()
    body = pattern(MIB)
    async with (
        open_session(SlowStream(left, 100_000), "client") as client,
        open_session(right, "server") as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_and_end, await client.open_stream(), body)
        assert await receive_all(await server.accept()) == body
        assert trio.current_time() > STALL_LIMIT


@pytest.mark.conformance(80)
async def test_our_writers_wake_when_the_peer_ends_its_bytes(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        streams = [await session.open_stream() for _ in range(20)]

        async def write(stream) -> None:
            with pytest.raises(SessionClosed):
                await stream.send_all(bytes(MIB))

        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(write, stream)
            await peer.transport.send_eof()
        await peer.rest()


@pytest.mark.conformance(80)
async def test_streams_whose_peer_has_finished_are_written_to_the_end(open_pair) -> None:
    body = pattern(3 * MIB)
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        for _ in range(8):
            stream = await client.open_stream()
            await stream.send_eof()
            nursery.start_soon(send_and_end, await server.accept(), body)
            assert await receive_all(stream) == body


async def test_a_session_whose_transport_breaks_does_not_interrupt_the_body(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await trio.aclose_forcefully(peer.transport)
        await session.wait_closed()
        await trio.lowlevel.checkpoint()
        is_still_running = True
    assert is_still_running


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such time limit")
@pytest.mark.parametrize(("limit", "milliseconds"), [(STALL_LIMIT, 10_000), (0.25, 250), (float("inf"), 2**31 - 1)])
async def test_the_kernel_gives_up_a_peer_that_acknowledges_nothing(limit: float, milliseconds: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        limits = SessionLimits(stall_timeout=limit)
        far, _ = server.accept()
        async with open_switchboard() as board, open_board_session(board, sock, "client", limits=limits):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds
            far.close()  # Or our end would wait for that.
