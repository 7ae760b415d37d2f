"""Streams that end at once: by the peer's reset, by ours, by both."""

import pytest
import trio
import trio.testing

from otun.mux import Stream, StreamReset
from otun.yamux.frames import DATA, FIN, RST, SYN

from .support import (
    INITIAL_WINDOW,
    Frame,
    data,
    stream_count,
    update,
)


def _resets(frames: list[Frame], stream_id: int) -> int:
    return sum(frame.is_reset_of(stream_id) for frame in frames)


async def _receive_for_ever(stream: Stream, received: bytearray) -> None:
    while True:
        more = await stream.receive_some()
        assert more
        received += more


@pytest.mark.conformance(59)
async def test_a_reset_wakes_a_blocked_reader_and_a_blocked_writer(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()

        async def read() -> None:
            with pytest.raises(StreamReset):
                await stream.receive_some()

        async def write() -> None:
            with pytest.raises(StreamReset):
                await stream.send_all(bytes(INITIAL_WINDOW + 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)
            await peer.body_of(1, INITIAL_WINDOW)
            await peer.settle()
            await peer.send(update(1, flags=RST))


@pytest.mark.conformance(61)
async def test_data_and_then_a_reset_is_an_error_and_never_a_clean_end(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.send(data(1, b"half of it"), update(1, flags=RST))
        received = bytearray()
        with pytest.raises(StreamReset):
            await _receive_for_ever(stream, received)
        assert b"half of it".startswith(received)


@pytest.mark.conformance(62)
async def test_the_code_of_a_reset_is_reported(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.send(update(1, 42, RST))
        with pytest.raises(StreamReset) as caught:
            await stream.receive_some()
        assert caught.value.code == 42


async def test_our_reset_passes_its_code_on(open_pair) -> None:
    async with open_pair() as (client, server):
        stream = await client.open_stream()
        other = await server.accept()
        stream.reset(7)
        with pytest.raises(StreamReset) as caught:
            await other.receive_some()
        assert caught.value.code == 7
        assert stream_count(client) == stream_count(server) == 0


@pytest.mark.conformance(67)
async def test_resets_that_cross_are_answered_by_nothing(open_with_peer) -> None:
    async with open_with_peer("client") as (session, peer):
        stream = await session.open_stream()
        await peer.settle()
        stream.reset()
        await peer.send(update(1, flags=RST), update(1, flags=RST), data(1, b"x"), update(1, flags=FIN))
        assert _resets(await peer.settle(), 1) == 1
        assert stream_count(session) == 0


@pytest.mark.conformance(63)
async def test_a_reset_with_a_body_leaves_the_framing_intact(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        await peer.send(update(1, flags=SYN), update(3, flags=SYN))
        reset, sound = await session.accept(), await session.accept()
        await peer.send(data(1, bytes(5000), RST), data(3, b"next"))
        with pytest.raises(StreamReset):
            await reset.receive_some()
        assert await sound.receive_some() == b"next"
        assert DATA not in {frame.kind for frame in await peer.settle()}
