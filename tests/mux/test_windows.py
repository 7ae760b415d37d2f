"""Receive windows that grow with their readers: on a hand-driven session, and over a long link."""

from collections import deque

import pytest
import trio
import trio.testing

from otun import SessionLimits
from otun.mux import Session, Stream
from otun.testing import session_pair
from otun.yamux.frames import ACK, PING, SYN, WINDOW_UPDATE, encode_header

from .support import (
    INITIAL_WINDOW,
    RawPeer,
    data,
    fixed_window,
    receive_exactly,
    send_and_end,
    session_and_peer,
    update,
)

MIB = 1024 * 1024
HALF = INITIAL_WINDOW // 2


def window_of(session: Session) -> int:
    """Give the receive window of the only stream."""
    return session.statistics().streams[0].receive_window


async def _use_half(session: Session, peer: RawPeer, stream: Stream) -> tuple[list[int], list[int]]:
    """Let half a window arrive and be read; give the updates that are sent, and the values of the pings."""
    half = window_of(session) // 2
    await peer.send(data(1, bytes(half)))
    await receive_exactly(stream, half)
    frames = await peer.settle()
    updates = [frame.length for frame in frames if frame.kind == WINDOW_UPDATE and not frame.flags]
    return updates, [frame.length for frame in frames if frame.kind == PING and frame.flags == SYN]


async def _accept(session: Session, peer: RawPeer) -> Stream:
    await peer.send(update(1, flags=SYN))
    stream = await session.accept()
    await peer.settle()
    return stream


@pytest.mark.conformance(52)
async def test_a_reader_that_empties_half_a_window_within_a_round_trip_gets_twice_as_much(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer):
        stream = await _accept(session, peer)
        updates, pings = await _use_half(session, peer, stream)
        assert updates == [HALF]
        assert len(pings) == 1
        await trio.sleep(0.5)
        await peer.send(encode_header(PING, ACK, 0, pings[0]))
        await peer.settle()
        assert session.statistics().round_trip == pytest.approx(0.5)
        await _use_half(session, peer, stream)
        await trio.sleep(0.4)
        assert (await _use_half(session, peer, stream))[0] == [HALF + INITIAL_WINDOW]
        assert window_of(session) == 2 * INITIAL_WINDOW
        await trio.sleep(0.6)
        assert (await _use_half(session, peer, stream))[0] == [INITIAL_WINDOW]
        assert window_of(session) == 2 * INITIAL_WINDOW


@pytest.mark.conformance(52)
async def test_a_peer_that_answers_no_ping_gets_no_larger_window_and_is_asked_once(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer):
        stream = await _accept(session, peer)
        asked = []
        for _ in range(10):
            updates, pings = await _use_half(session, peer, stream)
            assert updates == [HALF]
            asked += pings
        assert len(asked) == 1
        assert window_of(session) == INITIAL_WINDOW


@pytest.mark.conformance(52)
async def test_sessions_with_fixed_windows_send_no_pings_for_them(open_with_peer) -> None:
    async with open_with_peer(limits=fixed_window(INITIAL_WINDOW)) as (session, peer):
        stream = await _accept(session, peer)
        for _ in range(5):
            assert await _use_half(session, peer, stream) == ([HALF], [])


class LongLink(trio.abc.HalfCloseableStream):
    """A stream whose bytes arrive *delay* (virtual) seconds after they were sent, however many there are."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, delay: float, nursery: trio.Nursery) -> None:
        self._stream = stream
        self._delay = delay
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._has_sent = trio.Event()
        nursery.start_soon(self._deliver)

    async def _deliver(self) -> None:
        while True:
            while not self._under_way:
                self._has_sent = trio.Event()
                await self._has_sent.wait()
            arrives_at, piece = self._under_way.popleft()
            await trio.sleep_until(arrives_at)
            if not piece:
                await self._stream.send_eof()
                return
            await self._stream.send_all(piece)

    def _send(self, piece: bytes) -> None:
        self._under_way.append((trio.current_time() + self._delay, piece))
        self._has_sent.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._send(b"")

    async def aclose(self) -> None:
        await self._stream.aclose()


DELAY = 0.05
ROUND_TRIP = 2 * DELAY


async def _transfer(limits: SessionLimits, size: int, pause: float = 0.0) -> tuple[float, int]:
    """Send *size* bytes over a long link to a reader that pauses after each read.

    Give the seconds it took, and the largest receive window on the way.
    """
    left, right = trio.testing.memory_stream_pair()
    largest = received = 0
    async with trio.open_nursery() as links:
        transports = LongLink(left, DELAY, links), LongLink(right, DELAY, links)
        async with session_pair(limits=limits, transports=transports) as (client, server):
            start = trio.current_time()
            stream = await client.open_stream()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_and_end, stream, bytes(size))
                other = await server.accept()
                while more := await other.receive_some(64 * 1024):
                    received += len(more)
                    largest = max(largest, window_of(server))
                    await trio.sleep(pause)
            took = trio.current_time() - start
        links.cancel_scope.cancel()
    assert received == size
    return took, largest


@pytest.mark.conformance(52)
async def test_a_fast_reader_on_a_long_link_is_not_held_to_a_window_in_each_round_trip(autojump_clock) -> None:
    size = 16 * MIB
    fixed, window = await _transfer(fixed_window(INITIAL_WINDOW), size)
    assert window == INITIAL_WINDOW
    assert fixed > size / INITIAL_WINDOW * ROUND_TRIP * 0.4  # Half a window may be under way twice.
    growing, window = await _transfer(SessionLimits(), size)
    assert 2 * MIB <= window <= 16 * MIB
    assert growing < 20 * ROUND_TRIP < fixed


@pytest.mark.conformance(52)
async def test_a_slow_readers_window_does_not_grow(autojump_clock) -> None:
    """It takes half a window in four round trips."""
    _, window = await _transfer(SessionLimits(), 4 * MIB, pause=2 * ROUND_TRIP)
    assert window == INITIAL_WINDOW


@pytest.mark.conformance(52)
async def test_a_window_grows_to_max_receive_window_at_most(autojump_clock) -> None:
    _, window = await _transfer(SessionLimits(max_receive_window=MIB), 16 * MIB)
    assert window == MIB


@pytest.mark.conformance(53)
async def test_a_window_does_not_grow_when_max_held_leaves_nothing(autojump_clock) -> None:
    _, window = await _transfer(SessionLimits(max_held=MIB // 2), 4 * MIB)
    assert INITIAL_WINDOW < window <= INITIAL_WINDOW + MIB // 4
