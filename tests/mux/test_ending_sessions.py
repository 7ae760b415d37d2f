"""Orderly ends of sessions: what was sent before arrives, and nobody waits too long."""

import pytest
import trio
import trio.testing

from otun.mux import Session, SessionClosed, Stream, open_session
from otun.yamux.frames import DATA, FIN, GO_AWAY, SYN, encode_header

from .support import (
    RawPeer,
    SlowStream,
    data,
    fixed_window,
    open_over,
    pattern,
    receive_all,
    send_and_end,
    transports_for,
    update,
)

MIB = 1024 * 1024
CLOSE_LIMIT = 5.0


def _goaway(code: int) -> bytes:
    return encode_header(GO_AWAY, 0, 0, code)


@pytest.mark.conformance(76)
async def test_a_clean_close_sends_everything_then_goaway_0_then_ends_its_bytes(open_with_peer) -> None:
    body = pattern(200_036)
    async with open_with_peer("client") as (session, peer), trio.open_nursery() as nursery:
        stream = await session.open_stream()
        await send_and_end(stream, body)
        nursery.start_soon(session.aclose)
        frames = await peer.rest()
        assert b"".join(frame.body for frame in frames) == body
        kinds = [(frame.kind, frame.length) for frame in frames if frame.kind == GO_AWAY]
        assert kinds == [(GO_AWAY, 0)]
        await peer.send(data(1, b"not cut off: only writing was shut down"))
        assert frames[-1].kind == GO_AWAY or frames[-1].is_end_of(1)
        await peer.transport.aclose()


async def _send_and_close(session: Session, body: bytes) -> None:
    stream = await session.open_stream()
    await stream.send_all(body)
    await stream.aclose()
    await session.aclose()


@pytest.mark.conformance(76)
@pytest.mark.parametrize("size", [1, 1000, 200_036])
async def test_a_stream_opened_sent_and_closed_just_before_the_session_arrives_whole(open_pair, size: int) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def accept() -> None:
            received.append(await receive_all(await server.accept()))

        nursery.start_soon(accept)
        nursery.start_soon(_send_and_close, client, pattern(size))
        await server.wait_closed()
    assert received == [pattern(size)]


@pytest.mark.conformance(76)
async def test_all_streams_that_came_in_one_piece_with_the_peers_end_are_served(open_with_peer) -> None:
    received: list[bytes] = []

    async def keep(stream: Stream) -> None:
        received.append(await receive_all(stream))

    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.serve, keep)
        await peer.settle()
        bodies = [bytes([number]) for number in range(5)]
        streams = [update(2 * n + 1, flags=SYN) + data(2 * n + 1, body, FIN) for n, body in enumerate(bodies)]
        await peer.send(*streams, _goaway(0))
        await peer.transport.send_eof()
    assert sorted(received) == bodies


@pytest.mark.conformance(76)
async def test_streams_that_came_before_the_peers_end_can_be_accepted_after_it(open_with_peer) -> None:
    """Nobody was in `accept` when all of it arrived in one piece: SYN, data, FIN, GoAway and the end."""
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, b"whole"), update(1, flags=FIN), _goaway(0))
        await peer.transport.send_eof()
        await session.wait_closed()
        assert await receive_all(await session.accept()) == b"whole"
        with pytest.raises(SessionClosed):
            await session.accept()


@pytest.mark.conformance(76)
async def test_a_waiting_acceptor_gets_a_stream_that_came_in_one_piece_with_the_end(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:

        async def accept() -> None:
            assert await receive_all(await session.accept()) == b"whole"

        nursery.start_soon(accept)
        await peer.settle()
        await peer.send(update(1, flags=SYN), data(1, b"whole"), update(1, flags=FIN), _goaway(0))
        await peer.transport.send_eof()


@pytest.mark.conformance(76)
async def test_what_the_peer_still_sends_during_our_close_is_read_and_hurts_nobody(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await stream.send_all(b"answer")
        await stream.aclose()
        nursery.start_soon(session.aclose)
        for _ in range(8):
            await peer.send(data(1, bytes(100_000)))
        assert b"".join(frame.body for frame in await peer.rest() if frame.kind == DATA) == b"answer"
        await peer.transport.aclose()


@pytest.mark.conformance(76)
async def test_closing_waits_no_longer_than_5_seconds_for_a_peer_that_does_not_close(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_session(ours, "client") as session:
        await session.aclose()
        assert trio.current_time() == pytest.approx(CLOSE_LIMIT)
    assert trio.current_time() == pytest.approx(CLOSE_LIMIT)
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


@pytest.mark.conformance(76)
async def test_closing_waits_no_longer_than_5_seconds_for_a_peer_that_takes_nothing(autojump_clock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_session(ours, "client") as session:
        await (await session.open_stream()).send_all(bytes(200_000))
        await session.aclose()
        assert trio.current_time() == pytest.approx(CLOSE_LIMIT)
    assert trio.current_time() == pytest.approx(CLOSE_LIMIT)
    await theirs.aclose()


class WholeStream(trio.abc.Stream):
    """A stream that cannot be half-closed, as TLS is."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.send_all = stream.send_all
        self.receive_some = stream.receive_some

    async def send_all(self, data: bytes) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.mark.conformance(76)
async def test_over_a_transport_that_cannot_be_half_closed_the_peer_loses_nothing_either(autojump_clock) -> None:
    left, right = trio.testing.memory_stream_pair()
    body = pattern(700_000)
    async with (
        open_session(WholeStream(left), "client") as client,
        open_session(WholeStream(right), "server") as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_send_and_close, client, body)
        assert await receive_all(await server.accept()) == body


@pytest.mark.conformance(76)
async def test_closing_both_ends_at_once_takes_no_time(autojump_clock) -> None:
    left, right = trio.testing.memory_stream_pair()
    async with open_session(left, "client") as client, open_session(right, "server") as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            nursery.start_soon(server.aclose)
            nursery.start_soon(client.aclose)
        assert trio.current_time() == 0


@pytest.mark.conformance(76)
async def test_a_slow_link_delivers_what_was_sent_before_the_close(autojump_clock) -> None:
    left, right = trio.testing.memory_stream_pair()
    body = pattern(1_000_000)
    received: list[bytes] = []
    async with open_session(right, "server", limits=fixed_window(2**20)) as server, trio.open_nursery() as nursery:

        async def accept() -> None:
            received.append(await receive_all(await server.accept()))

        nursery.start_soon(accept)
        async with open_session(SlowStream(left, 30_000), "client") as client:
            await client.ping()
            await _send_and_close(client, body)
    assert received == [body]


@pytest.mark.conformance(76)
async def test_leaving_the_body_closes_the_session_cleanly(driver) -> None:
    ours, theirs = transports_for(driver)
    peer = RawPeer(theirs)
    async with trio.open_nursery() as nursery:

        async def use_session() -> None:
            async with open_over(driver, ours, "client") as session:
                await send_and_end(await session.open_stream(), b"goodbye")

        nursery.start_soon(use_session)
        frames = await peer.rest()
        assert b"".join(frame.body for frame in frames) == b"goodbye"
        assert GO_AWAY in {frame.kind for frame in frames}
        await theirs.aclose()


async def test_streams_cut_short_by_our_own_close_raise_session_closed(open_pair) -> None:
    async with open_pair() as (client, server):
        stream = await client.open_stream()
        other = await server.accept()
        await client.aclose()
        for cut in (stream, other):
            with pytest.raises(SessionClosed) as caught:
                await cut.receive_some()
            assert caught.value.is_clean
        assert client.is_closed


async def test_the_repr_of_a_session_tells_its_role_and_whether_it_is_open(open_pair) -> None:
    async with open_pair() as (client, server):
        await client.open_stream()
        assert repr(client) == "<Session CLIENT open streams=1>"
        await client.aclose()
        assert "ended" in repr(client)
    assert "SERVER" in repr(server)
