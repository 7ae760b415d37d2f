"""Limits as a session's user meets them: how it ends, what is reset, and what a stalled socket may hold."""

import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from otun import LimitExceeded, SessionLimits
from otun.mux import Patch, Session, SessionClosed, StreamReset, open_board_session
from otun.switchboard import Endpoint, Switchboard, open_switchboard
from otun.yamux import Allowance, YamuxStream
from otun.yamux.frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, encode_header

from .support import (
    INITIAL_WINDOW,
    TINY_SOCKET_BUFFER,
    RawPeer,
    check_round_trip,
    data,
    fixed_window,
    open_over,
    pattern,
    receive_all,
    receive_exactly,
    session_and_peer,
    stream_count,
    transports_for,
    update,
)

KIB = 1024
NONE = Allowance(0, per_second=0.0)

FLOODS = {
    "resets": (SessionLimits(resets=NONE), update(1, flags=SYN) + update(1, flags=RST)),
    "empty_frames": (SessionLimits(empty_frames=NONE), update(99)),
    "max_refusals": (SessionLimits(accept_backlog=0, max_refusals=0), update(1, flags=SYN)),
}


@pytest.mark.conformance(81, 82, 85)
@pytest.mark.parametrize("limit", FLOODS)
async def test_a_limit_that_is_passed_ends_the_session_and_is_the_cause(open_with_peer, limit: str) -> None:
    limits, flood = FLOODS[limit]
    async with open_with_peer(limits=limits) as (session, peer):
        ours = await session.open_stream()
        await peer.send(flood)
        await session.wait_closed()
        for call in (session.open_stream, session.ping, ours.receive_some):
            with pytest.raises(SessionClosed) as caught:
                await call()
            assert isinstance(caught.value.__cause__, LimitExceeded)
            assert caught.value.__cause__.limit == limit
            assert f"(limit: {limit})" in str(caught.value)
            assert not caught.value.is_clean
        assert [frame.length for frame in await peer.rest() if frame.kind == GO_AWAY] == [1]


async def test_beyond_max_streams_opens_are_refused_and_the_session_goes_on(open_pair) -> None:
    async with open_pair(limits=SessionLimits(max_streams=2)) as (client, server):
        streams = [await client.open_stream() for _ in range(3)]
        accepted = [await server.accept() for _ in range(2)]
        with pytest.raises(StreamReset):
            await streams[2].receive_some()
        for stream in (*streams, *accepted):
            await stream.aclose()
        await client.ping()
        await server.ping()
        await check_round_trip(client, server)


async def test_streams_beyond_the_accept_backlog_are_refused_and_the_others_accepted(open_pair) -> None:
    async with open_pair(limits=SessionLimits(accept_backlog=2)) as (client, server):
        streams = [await client.open_stream() for _ in range(3)]
        with pytest.raises(StreamReset):
            await streams[2].receive_some()
        assert [(await server.accept()).id for _ in range(2)] == [1, 3]
        await check_round_trip(client, server)


class WaitingOpener:
    """Waits for a stream, and notes what becomes of that."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def slot_granted(self, session: Session) -> None:
        self.news.append("granted")

    def connection_lost(self) -> None:
        self.news.append("lost")


async def test_beyond_max_waiting_opens_visitors_are_turned_away(open_with_peer) -> None:
    async with open_with_peer("client", limits=SessionLimits(max_waiting_opens=2)) as (session, peer):
        for _ in range(256):
            await session.open_stream()
        first, second, third = (WaitingOpener() for _ in range(3))
        assert session.open_soon(first)
        assert session.open_soon(second)
        assert not session.open_soon(third)
        session.forget_opener(first)
        assert session.open_soon(third)
        await peer.send(update(1, flags=ACK))
        await peer.settle()
        assert second.news == third.news == ["granted"]  # Neither opened one.
        assert first.news == []


async def test_keepalive_interval_is_when_a_silent_peer_is_pinged_and_ping_timeout_when_it_is_given_up(
    autojump_clock,
) -> None:
    limits = SessionLimits(keepalive_interval=3.0, ping_timeout=2.0)
    async with session_and_peer("tasks", limits=limits) as (session, peer):
        start = trio.current_time()
        assert (await peer.next()).kind == PING
        assert trio.current_time() - start == pytest.approx(3.0)
        await session.wait_closed()
        assert trio.current_time() - start == pytest.approx(5.0)


@pytest.mark.conformance(66)
async def test_close_timeout_is_when_a_peer_that_does_not_finish_is_reset(autojump_clock) -> None:
    async with session_and_peer("tasks", "client", limits=SessionLimits(close_timeout=4.0)) as (session, peer):
        peer.answers_pings = True
        stream = await session.open_stream()
        await trio.sleep(1.0)
        start = trio.current_time()
        await stream.aclose()
        await peer.until(lambda frame: frame.is_reset_of(1))
        assert trio.current_time() - start == pytest.approx(4.0)
        assert stream_count(session) == 0


@pytest.mark.conformance(79)
async def test_stall_timeout_is_how_long_the_transport_may_take_nothing(autojump_clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    limits = SessionLimits(stall_timeout=6.0)
    async with open_over("tasks", ours, "client", limits=limits) as session:
        start = trio.current_time()
        await session.open_stream()
        await session.wait_closed()
        assert trio.current_time() - start == pytest.approx(6.0)
        with pytest.raises(SessionClosed, match="6 seconds"):
            await session.ping()
        await trio.aclose_forcefully(theirs)


@pytest.mark.conformance(79)
async def test_stall_timeout_holds_on_the_switchboard_too() -> None:
    """It needs sockets, and so the real clock: the limit is made small."""
    ours, theirs = transports_for("board")
    async with open_over("board", ours, "client", limits=SessionLimits(stall_timeout=0.05)) as session:
        stream = await session.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_until_closed, stream)
            await RawPeer(theirs).send(update(1, 16 * KIB * KIB))
            await session.wait_closed()
        with pytest.raises(SessionClosed, match=r"no bytes for 0\.05 seconds"):
            await session.ping()
        await trio.aclose_forcefully(theirs)


async def _send_until_closed(stream) -> None:
    with pytest.raises(SessionClosed):
        await stream.send_all(bytes(8 * KIB * KIB))


@pytest.mark.conformance(87)
async def test_a_peer_that_never_reads_makes_the_session_keep_no_more_than_its_queue(autojump_clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_over("tasks", ours, "client", limits=SessionLimits(send_queue=100 * KIB)) as session:
        streams = [await session.open_stream() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW))
            await trio.testing.wait_all_tasks_blocked()
            statistics = session.statistics()
            assert 100 * KIB <= statistics.queued <= 100 * KIB + 256 * KIB + 12
            sent = sum(INITIAL_WINDOW - stream.send_credit for stream in statistics.streams)
            assert sent <= 100 * KIB + 2 * (256 * KIB + 12)  # With what the transport has been given.
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(theirs)


# What is held


@pytest.mark.conformance(53)
async def test_the_stream_that_holds_most_is_reset_for_its_reader_and_its_writer(open_with_peer) -> None:
    async with open_with_peer(limits=SessionLimits(max_held=INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), update(3, flags=SYN), data(3, pattern(1000)))
        big, small = await session.accept(), await session.accept()
        resets: list[str] = []

        async def send() -> None:
            with pytest.raises(StreamReset, match="holds too much"):
                await big.send_all(bytes(2 * INITIAL_WINDOW))
            resets.append("writer")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await peer.body_of(1, INITIAL_WINDOW)
            await peer.send(data(1, bytes(INITIAL_WINDOW)))
            assert [frame for frame in await peer.settle() if frame.is_reset_of(1)]
        assert resets == ["writer"]
        for _ in range(2):
            with pytest.raises(StreamReset, match="stream 1 was reset: the session holds too much"):
                await big.receive_some()
        with pytest.raises(StreamReset):
            await big.send_eof()
        await peer.send(data(1, b"in flight"), data(3, b"more", FIN))
        assert await receive_all(small) == pattern(1000) + b"more"
        await small.send_all(b"answer")
        assert await peer.body_of(3, 6) == b"answer"
        assert session.statistics().buffered == 0


@pytest.mark.conformance(53)
async def test_a_reader_that_waits_when_its_stream_is_reset_is_woken(open_with_peer) -> None:
    """It waits for the end of a frame of which it has not taken what came first."""
    async with open_with_peer(limits=SessionLimits(max_held=INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), update(3, flags=SYN))
        first, second = await session.accept(), await session.accept()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(StreamReset):
                    await first.receive_some()

            nursery.start_soon(receive)
            await trio.lowlevel.checkpoint()
            session.feed(data(1, bytes(INITIAL_WINDOW)) + data(3, b"!"))  # In one go: the reader has no turn.
        assert await second.receive_some() == b"!"


@pytest.mark.conformance(53, 77)
async def test_a_stream_that_is_over_but_unread_is_dropped_and_never_shows_a_clean_end(open_with_peer) -> None:
    async with open_with_peer(limits=SessionLimits(max_held=INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(200 * KIB), FIN))
        over = await session.accept()
        await over.send_eof()
        await peer.send(update(3, flags=SYN), data(3, bytes(100 * KIB)))
        other = await session.accept()
        await peer.settle()
        with pytest.raises(StreamReset):
            await over.receive_some()
        assert len(await receive_exactly(other, 100 * KIB)) == 100 * KIB


@pytest.mark.conformance(53)
async def test_a_stream_nobody_has_accepted_is_reset_and_never_accepted(open_with_peer) -> None:
    async with open_with_peer(limits=SessionLimits(max_held=INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(INITIAL_WINDOW)), update(3, flags=SYN), data(3, b"!"))
        assert [frame for frame in await peer.settle() if frame.is_reset_of(1)]
        assert (await session.accept()).id == 3


@pytest.mark.conformance(53)
@pytest.mark.parametrize("end", ["none", "both finish"])
async def test_however_many_streams_nobody_reads_the_session_holds_no_more_than_max_held(
    open_with_peer, end: str
) -> None:
    limits = SessionLimits(max_held=1024 * KIB)
    body = data(1, bytes(INITIAL_WINDOW))[12:]
    async with open_with_peer(limits=limits) as (session, peer):
        streams = []
        tracemalloc.start()
        for stream_id in range(1, 201, 2):
            last = update(stream_id, flags=FIN) if end == "both finish" else b""
            await peer.send(update(stream_id, flags=SYN), encode_header(DATA, 0, stream_id, len(body)), body, last)
            streams.append(await session.accept())
            await peer.settle()
            if end == "both finish":
                with suppress(StreamReset):
                    await streams[-1].send_eof()
            assert session.statistics().buffered <= limits.max_held
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Buffers that grow have up to an eighth more than they hold.
        assert kept < limits.max_held * 9 // 8 + 600 * KIB
        for stream in streams:
            await stream.aclose()
        assert session.statistics().buffered == 0


# Small frames


@pytest.mark.conformance(84)
async def test_a_window_filled_byte_by_byte_takes_at_most_twice_the_payload_while_nobody_reads(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.settle()
        flood = data(1, b"x") * 4096
        gc.collect()
        tracemalloc.start()
        for _ in range(INITIAL_WINDOW // 4096):
            session.feed(flood)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert session.statistics().buffered == INITIAL_WINDOW
        assert kept <= 2 * INITIAL_WINDOW
        assert await receive_exactly(stream, INITIAL_WINDOW) == b"x" * INITIAL_WINDOW


class Owner:
    """Of a patch that ends when it likes."""

    def patch_ended(self, patch: Patch) -> None: ...


class Keeper:
    """A stream's handler that reads nothing."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def data_received(self, data: memoryview) -> None: ...

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None:
        self.news.append("reset")

    def evicted(self) -> None:
        self.news.append("evicted")

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...


class Patched:
    """A session on the switchboard, the peer that drives it, and the far ends of the sockets of odd streams below 99.

    Each stream is patched to a TCP connection that takes next to nothing before it is read.  Those from 99 on go to
    one `Keeper`.
    """

    def __init__(self, board: Switchboard, session: Session, peer: RawPeer) -> None:
        self.session = session
        self.peer = peer
        self.keeper = Keeper()
        self.patches: dict[int, Patch] = {}
        self.far: dict[int, socket.socket] = {}
        self._board = board
        session.deliver_to(self._take)

    def _take(self, stream: YamuxStream) -> None:
        if stream.id < 99:
            near, self.far[stream.id] = tcp_pair()
            stream.handler = patch = self.patches[stream.id] = Patch(self._board, near, Owner())
            patch.attach(stream)
            self._board.add(near, patch)
        else:
            stream.handler = self.keeper
        stream.acknowledge()

    def unsent_bytes(self) -> int:
        """Give what the switchboard keeps for all sockets, whoever they belong to now."""
        gc.collect()
        endpoints = [thing for thing in gc.get_objects() if isinstance(thing, Endpoint) and not thing.is_closed]
        return sum(len(endpoint.unsent or b"") for endpoint in endpoints)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Connect two sockets with small buffers; the first one does not block."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_SOCKET_BUFFER)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TINY_SOCKET_BUFFER)
        near.connect(listener.getsockname())
        near.setblocking(False)
        return near, listener.accept()[0]


@asynccontextmanager
async def open_patched(limits: SessionLimits) -> AsyncIterator[Patched]:
    ours, theirs = transports_for("board")
    async with open_switchboard() as board, open_board_session(board, ours, "server", limits=limits) as session:
        patched = Patched(board, session, RawPeer(theirs))
        try:
            yield patched
        finally:
            for sock in patched.far.values():
                sock.close()
            await trio.aclose_forcefully(theirs)


@pytest.mark.conformance(84)
async def test_a_window_filled_byte_by_byte_takes_at_most_twice_the_payload_while_the_socket_takes_nothing() -> None:
    async with open_patched(fixed_window(INITIAL_WINDOW)) as patched:
        session = patched.session
        await patched.peer.send(update(1, flags=SYN), data(1, bytes(100 * KIB)))
        await patched.peer.settle()
        held = session.statistics().buffered
        assert held > 50 * KIB  # The socket is full.
        flood = data(1, b"x") * 4096
        gc.collect()
        tracemalloc.start()
        for _ in range((INITIAL_WINDOW - 100 * KIB) // 4096):
            session.feed(flood)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        added = session.statistics().buffered - held
        assert added >= 140 * KIB
        # The buffer that grows may move: then all of it has been allocated since.
        assert kept <= 2 * (held + added)
        assert patched.unsent_bytes() == session.statistics().buffered


@pytest.mark.conformance(53)
async def test_a_patch_whose_socket_takes_nothing_is_cut_short_at_the_cap_and_its_socket_reset() -> None:
    async with open_patched(SessionLimits(max_held=INITIAL_WINDOW)) as patched:
        peer = patched.peer
        await peer.send(update(1, flags=SYN), data(1, bytes(INITIAL_WINDOW)), update(3, flags=SYN), data(3, b"other"))
        await peer.settle()
        held = patched.session.statistics().buffered
        assert held > 150 * KIB
        for stream_id in (99, 101):
            await peer.send(update(stream_id, flags=SYN), data(stream_id, bytes(100 * KIB)))
        assert [frame for frame in await peer.settle() if frame.is_reset_of(1)]
        assert patched.keeper.news == []
        assert patched.patches[1].is_closed
        assert patched.unsent_bytes() == 0
        with pytest.raises(ConnectionResetError):
            _read_to_the_end(patched.far[1])
        assert patched.far[3].recv(100) == b"other"
        assert patched.session.statistics().buffered == 200 * KIB


def _read_to_the_end(sock: socket.socket) -> None:
    while sock.recv(64 * KIB):
        pass


@pytest.mark.conformance(53)
@pytest.mark.parametrize("last", [update(0, flags=FIN), b""], ids=["both finish", "open"])
async def test_however_many_sockets_take_nothing_the_switchboard_keeps_no_more_than_max_held(last: bytes) -> None:
    limits = SessionLimits(max_held=512 * KIB)
    async with open_patched(limits) as patched:
        for stream_id in range(1, 41, 2):
            await patched.peer.send(update(stream_id, flags=SYN), data(stream_id, bytes(200 * KIB)))
            await patched.peer.settle()
            if last:
                await patched.peer.send(update(stream_id, flags=FIN))
                with suppress(OSError):  # It may have been reset.
                    patched.far[stream_id].shutdown(socket.SHUT_WR)
            await patched.peer.settle()
            assert patched.session.statistics().buffered <= limits.max_held
            assert patched.unsent_bytes() == patched.session.statistics().buffered
        patched.session.fail("nobody takes what is left")


@pytest.mark.conformance(53)
async def test_whole_streams_that_are_reset_afterwards_are_kept_under_max_held_too() -> None:
    """What had ended before the reset is still sent: but it must have a bound."""
    limits = SessionLimits(max_held=512 * KIB)
    async with open_patched(limits) as patched:
        for stream_id in range(1, 41, 2):
            await patched.peer.send(
                update(stream_id, flags=SYN),
                data(stream_id, bytes(200 * KIB), FIN),
                update(stream_id, flags=RST),
            )
            await patched.peer.settle()
            assert patched.unsent_bytes() <= limits.max_held
        patched.session.fail("nobody takes what is left")


@pytest.mark.conformance(86)
async def test_credit_that_drips_byte_by_byte_makes_few_frames_of_a_stream(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        nursery.start_soon(stream.send_all, bytes(INITIAL_WINDOW + 1000))
        await peer.body_of(1, INITIAL_WINDOW)
        await peer.settle()
        session.feed(update(1, 1) * 1000)
        frames = [frame for frame in await peer.settle() if frame.kind == DATA]
        assert sum(frame.length for frame in frames) == 1000
        assert len(frames) <= 2


@pytest.mark.conformance(86)
async def test_credit_that_drips_byte_by_byte_makes_few_frames_of_a_patch() -> None:
    async with open_patched(SessionLimits()) as patched:
        peer = patched.peer
        await peer.send(update(1, flags=SYN))
        await peer.settle()
        far = patched.far[1]
        far.setblocking(False)
        body = b""
        while len(body) < INITIAL_WINDOW:
            with suppress(BlockingIOError):
                far.send(bytes(8 * KIB))
            body += b"".join([frame.body for frame in await peer.settle()])
        with suppress(BlockingIOError):
            far.send(bytes(8 * KIB))
        await peer.settle()
        patched.session.feed(update(1, 1) * 1000)
        frames = [frame for frame in await peer.settle() if frame.kind == DATA]
        assert sum(frame.length for frame in frames) == 1000
        assert len(frames) <= 2
