"""Pings, and the keep-alive that rests on them."""

import pytest
import trio
import trio.testing

from otun.mux import SessionClosed, open_session
from otun.yamux import SessionLimits
from otun.yamux.frames import ACK, PING, SYN, encode_header

from .support import (
    RawPeer,
    SlowStream,
    data,
    fixed_window,
    open_over,
    pattern,
    receive_all,
    receive_exactly,
    send_and_end,
    session_and_peer,
    transports_for,
    update,
)

INTERVAL = 30.0
TIMEOUT = 10.0
MIB = 1024 * 1024


def _is_ping(frame) -> bool:
    return frame.kind == PING and bool(frame.flags & SYN)


def _pong(value: int) -> bytes:
    return encode_header(PING, ACK, 0, value)


async def test_a_ping_returns_the_round_trip_in_seconds(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer), trio.open_nursery() as nursery:

        async def answer_late() -> None:
            ping = await peer.next()
            await trio.sleep(1.5)
            await peer.send(_pong(ping.length))

        nursery.start_soon(answer_late)
        assert await session.ping() == pytest.approx(1.5)


@pytest.mark.conformance(68)
async def test_pongs_that_come_reordered_doubled_or_unknown_are_matched_or_ignored(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        answered: list[str] = []

        async def ping(name: str) -> None:
            await session.ping()
            answered.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping, "first")
            first = await peer.until(_is_ping)
            nursery.start_soon(ping, "second")
            second = await peer.until(_is_ping)
            await peer.send(_pong(0xDEADBEEF), _pong(second[-1].length), _pong(second[-1].length))
            await peer.settle()
            assert answered == ["second"]
            await peer.send(_pong(first[-1].length), _pong(first[-1].length))
        assert answered == ["second", "first"]
        assert not session.is_closed


@pytest.mark.conformance(69)
async def test_after_a_ping_that_was_given_up_and_answered_late_the_next_one_works(open_with_peer) -> None:
    async with open_with_peer() as (session, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.ping)
            late = (await peer.until(_is_ping))[-1]
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.ping)
            current = (await peer.until(_is_ping))[-1]
            await peer.send(_pong(late.length))
            await peer.settle()
            assert nursery.child_tasks
            await peer.send(_pong(current.length))


async def test_a_ping_that_is_under_way_when_the_session_ends_raises(open_with_peer) -> None:
    async with open_with_peer() as (session, peer), trio.open_nursery() as nursery:

        async def ping() -> None:
            with pytest.raises(SessionClosed):
                await session.ping()

        nursery.start_soon(ping)
        await peer.until(_is_ping)
        await peer.transport.aclose()


@pytest.mark.conformance(70)
async def test_a_ping_that_comes_while_our_writes_are_blocked_keeps_the_reader_going(driver) -> None:
    if driver == "tasks":
        ours, theirs = trio.testing.lockstep_stream_pair()
    else:
        ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "server") as session:
        peer = RawPeer(theirs)
        await peer.send(update(1, flags=SYN), update(1, 64 * MIB))
        stream = await session.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(16 * MIB))
            for number in range(100):  # Reading nothing meanwhile.
                await peer.send(encode_header(PING, SYN, 0, number), data(1, pattern(1000)))
                assert await receive_exactly(stream, 1000) == pattern(1000)
            pongs = await peer.until(lambda frame: frame.kind == PING)
            assert pongs[-1].flags == ACK
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(theirs)


@pytest.mark.conformance(71)
async def test_a_peer_that_falls_silent_is_closed_within_the_interval_and_the_time_out(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_session(ours, "client") as session, trio.open_nursery() as nursery:
        stream = await session.open_stream()
        await trio.sleep(12)
        await RawPeer(theirs).send(update(1, flags=ACK))
        nursery.start_soon(_expect_closed, stream.receive_some)
        nursery.start_soon(_expect_closed, session.accept)
        await session.wait_closed()
        assert 12 + INTERVAL <= trio.current_time() <= 12 + INTERVAL + TIMEOUT + 0.01
        with pytest.raises(SessionClosed) as caught:
            await session.open_stream()
        assert not caught.value.is_clean
        assert [frame.kind for frame in await RawPeer(theirs).rest()][-1] == PING
    assert trio.current_time() <= 12 + INTERVAL + TIMEOUT + 0.01


async def _expect_closed(call) -> None:
    with pytest.raises(SessionClosed):
        await call()


@pytest.mark.conformance(71, 13)
@pytest.mark.parametrize("last_words", [b"", update(1, flags=SYN) + data(1, bytes(100))[:-50]], ids=["", "half a body"])
async def test_the_dead_peers_deadline_holds_for_both_drivers(open_with_peer, last_words: bytes) -> None:
    """The switchboard needs sockets, and so the real clock: its limits are made small."""
    async with open_with_peer(limits=SessionLimits(keepalive_interval=0.05, ping_timeout=0.05)) as (session, peer):
        await peer.send(last_words)
        await session.wait_closed()
        with pytest.raises(SessionClosed) as caught:
            await session.ping()
        assert not caught.value.is_clean
        await peer.rest()


@pytest.mark.conformance(71)
async def test_a_dead_peer_behind_a_slow_link_that_still_takes_bytes_is_closed_too(autojump_clock) -> None:
    """Our ping may have to wait for what the driver holds, but not for all that is still to be sent."""
    rate, writers, driver_holds = 25_000, 50, 768 * 1024
    ours, _theirs = trio.testing.memory_stream_pair()
    async with open_session(SlowStream(ours, rate), "client") as session, trio.open_nursery() as nursery:
        for _ in range(writers):
            stream = await session.open_stream()
            nursery.start_soon(_expect_closed, lambda stream=stream: stream.send_all(bytes(MIB)))
        await session.wait_closed()
        assert trio.current_time() <= INTERVAL + driver_holds / rate + TIMEOUT


@pytest.mark.conformance(71)
async def test_a_peer_that_only_answers_pings_is_kept(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer), trio.open_nursery() as nursery:
        peer.answers_pings = True
        nursery.start_soon(peer.frame)
        await trio.sleep(3600)
        assert not session.is_closed
        nursery.cancel_scope.cancel()


@pytest.mark.conformance(72)
async def test_eighty_writers_on_a_slow_link_do_not_cost_the_session_its_life(autojump_clock) -> None:
    body = pattern(MIB)
    left, right = trio.testing.memory_stream_pair()
    finished = 0
    async with (
        open_session(SlowStream(left, MIB), "client") as client,
        open_session(SlowStream(right, MIB), "server") as server,
        trio.open_nursery() as nursery,
    ):

        async def take(stream) -> None:
            nonlocal finished
            assert await receive_exactly(stream, len(body)) == body
            finished += 1
            if finished == 80:
                nursery.cancel_scope.cancel()

        async def write() -> None:
            stream = await client.open_stream()
            await stream.send_all(body)

        async def ping_now_and_then() -> None:
            while True:
                with trio.fail_after(TIMEOUT):
                    await client.ping()
                await trio.sleep(1)

        nursery.start_soon(server.serve, take)
        nursery.start_soon(ping_now_and_then)
        for _ in range(80):
            nursery.start_soon(write)
    assert finished == 80
    assert trio.current_time() >= 80


@pytest.mark.conformance(72)
async def test_a_long_upload_over_a_link_of_25_kb_a_second_does_not_cost_the_session_its_life(autojump_clock) -> None:
    """Section 3: the keep-alive must not queue behind data and kill healthy links under load."""
    window = 4 * MIB
    body = pattern(window)
    left, right = trio.testing.memory_stream_pair()
    async with (
        open_session(SlowStream(left, 25_000), "client", limits=fixed_window(window)) as client,
        open_session(SlowStream(right, 25_000), "server", limits=fixed_window(window)) as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send_and_end, await client.open_stream(), body)
        assert await receive_all(await server.accept()) == body


@pytest.mark.conformance(72)
async def test_bytes_of_any_kind_count_as_life(autojump_clock) -> None:
    """A peer that is so busy sending one long frame that it answers no ping is alive."""
    async with session_and_peer("tasks") as (session, peer):
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await peer.transport.send_all(data(1, bytes(100))[:12])
        for _ in range(100):
            await trio.sleep(25)
            await peer.transport.send_all(b"\0")
            assert await stream.receive_some() == b"\0"
        assert not session.is_closed


@pytest.mark.conformance(13)
async def test_while_a_body_is_withheld_we_go_on_sending_and_a_deadline_ends_the_session(autojump_clock) -> None:
    async with session_and_peer("tasks") as (session, peer):
        await peer.send(update(1, flags=SYN), data(1, bytes(1000))[:-500])
        stream = await session.accept()
        assert len(await receive_exactly(stream, 500)) == 500
        await stream.send_all(b"outbound")
        assert await peer.body_of(1, 8) == b"outbound"
        with pytest.raises(SessionClosed):
            await stream.receive_some()
        assert trio.current_time() <= INTERVAL + TIMEOUT + 0.01
