"""Our sessions against py-libp2p's yamux, in both roles: what works, and what does not by a bug of its own.

The tests of its bugs assert what it does wrong, so that they fail when it is mended and the pinned version is raised.
"""

import contextlib
import hashlib
import signal
from collections.abc import AsyncIterator
from typing import Final

import attrs
import pytest
import trio
import trio.testing

import otun
from otun.yamux.frames import ACK, DATA, FIN, SYN, WINDOW_UPDATE, encode_header

from .libp2p_support import Libp2p, ask, command
from .support import LIMIT, Program, blocks

pytestmark = pytest.mark.interop

KIB: Final = 1024
MIB: Final = 1024 * KIB
SIZES: Final = (0, 1, 256 * KIB, 256 * KIB + 1, 5 * MIB)
"""Of bodies: about the window that streams begin with, and many times that."""

LOADS = pytest.mark.parametrize(("count", "size"), [(300, 10_000), (4, 2 * MIB)], ids=["300 streams", "2 MiB each"])


@attrs.frozen
class Connected:
    """Our session, and the program at its other end."""

    session: otun.Session
    peer: Program


@pytest.fixture(params=["server", "client"], ids=["our server", "our client"])
async def connected(request: pytest.FixtureRequest, libp2p: Libp2p) -> AsyncIterator[Connected]:
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect(request.param)
    async with otun.open_session(transport, request.param) as session:
        yield Connected(session, peer)


async def echo(stream: otun.Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def read_all(stream: otun.Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def send_and_end(stream: otun.Stream, body: bytes) -> None:
    await stream.send_all(body)
    await stream.send_eof()


async def exchange(session: otun.Session, size: int, seed: int = 0) -> None:
    """Have a body echoed, and compare."""
    body = b"".join(blocks(size, seed))
    async with await ask(session, "echo") as stream, trio.open_nursery() as sending:
        sending.start_soon(send_and_end, stream, body)
        received = await read_all(stream)
    assert (len(received), sha256(received)) == (size, sha256(body))


# What works


@LOADS
async def test_libp2p_echoes_our_streams(connected: Connected, count: int, size: int) -> None:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(exchange, connected.session, size, number)


async def test_libp2p_echoes_bodies_of_any_size(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        for size in SIZES:
            await exchange(connected.session, size)


@LOADS
async def test_we_echo_libp2ps_streams(connected: Connected, nursery: trio.Nursery, count: int, size: int) -> None:
    nursery.start_soon(connected.session.serve, echo)
    with trio.fail_after(LIMIT):
        async with await ask(connected.session, "load", count, size):
            await connected.peer.wait_for_output(f"{count} passed, 0 failed")


async def test_we_echo_libp2ps_bodies_of_any_size(connected: Connected, nursery: trio.Nursery) -> None:
    nursery.start_soon(connected.session.serve, echo)
    with trio.fail_after(LIMIT):
        for number, size in enumerate(SIZES, 1):
            await ask(connected.session, "load", 1, size)
            await connected.peer.wait_for_output("1 passed, 0 failed", count=number)


async def test_libp2p_sends_5_mib_one_way(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        async with await ask(connected.session, "write", 5 * MIB) as stream:
            received = await read_all(stream)
        await connected.peer.wait_for_output(f"wrote {5 * MIB} {sha256(received)}")


async def test_libp2p_answers_5_mib_after_our_end(connected: Connected) -> None:
    body = b"".join(blocks(5 * MIB))
    with trio.fail_after(LIMIT):
        async with await ask(connected.session, "digest") as stream:
            await send_and_end(stream, body)
            assert await read_all(stream) == sha256(body).encode()


async def test_libp2p_reads_on_after_its_own_end(connected: Connected) -> None:
    body = b"".join(blocks(100_000))
    with trio.fail_after(LIMIT):
        async with await ask(connected.session, "end_first") as stream:
            assert await read_all(stream) == b"farewell"
            await send_and_end(stream, body)
            await connected.peer.wait_for_output(f"read {len(body)} {sha256(body)} MuxedStreamEOF")


async def test_libp2ps_reset_is_an_error_of_that_stream_only(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        reader, writer = await ask(connected.session, "reset"), await ask(connected.session, "reset")
        with pytest.raises(otun.StreamReset):
            await reader.receive_some()
        with pytest.raises(otun.StreamReset):
            await writer.send_all(bytes(64 * MIB))
        await exchange(connected.session, 10_000)


async def test_our_reset_is_seen_by_a_reader_of_whatever_is_there(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "read", -1)
        await connected.peer.wait_for_output("has 0")
        stream.reset()
        await connected.peer.wait_for_output("read 0 MuxedStreamReset")
        await exchange(connected.session, 10_000)


async def test_our_reset_is_seen_by_a_writer(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "write", 64 * MIB)
        await stream.receive_some()
        stream.reset()
        await connected.peer.wait_for_output("wrote MuxedStreamError Stream is closed")
        await exchange(connected.session, 10_000)


async def test_pings_are_answered_both_ways(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        assert await connected.session.ping() > 0
        await ask(connected.session, "round_trip")  # Its own first ping comes half a second after the start.
        await connected.peer.wait_for_output("its ping was answered")


async def test_when_libp2p_goes_away_the_session_ends_cleanly(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "leave", 0)
        with pytest.raises(otun.SessionClosed) as ended:
            await connected.session.accept()
        assert ended.value.is_clean
        with pytest.raises(otun.SessionClosed):  # It had not finished.
            await stream.receive_some()


async def test_libp2ps_error_code_is_reported(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        await ask(connected.session, "leave", 2)
        with pytest.raises(otun.SessionClosed) as ended:
            await connected.session.accept()
        assert (ended.value.is_clean, ended.value.code) == (False, 2)


async def test_libp2ps_death_is_an_error_and_no_end(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "echo")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        connected.peer.process.kill()
        with pytest.raises(otun.SessionClosed):
            await stream.receive_some()
        with pytest.raises(otun.SessionClosed):
            await connected.session.accept()


async def test_closing_our_session_ends_libp2ps_connection(connected: Connected) -> None:
    with trio.fail_after(LIMIT):
        await connected.session.aclose()
        await connected.peer.wait_for_output("the connection has ended")
        await connected.peer.wait_for_success()


async def test_both_open_any_number_of_streams_one_after_the_other(connected: Connected, nursery: trio.Nursery) -> None:
    """Earlier versions could open 256 in a connection's lifetime, and kept every one that had ended."""
    nursery.start_soon(connected.session.serve, echo)
    with trio.fail_after(LIMIT):
        async with await ask(connected.session, "one_by_one", 300):
            await connected.peer.wait_for_output("ended 300")
        for number in range(300):
            await exchange(connected.session, 100, number)
        await ask(connected.session, "table")
        # What began the 300 has not ended at its side.
        await connected.peer.wait_for_output("keeps 1")


# Its bugs


async def test_bug_libp2p_has_256_streams_open_at_most(connected: Connected, nursery: trio.Nursery) -> None:
    """Its limit is meant for opens without an answer, and ours are all answered; but it counts until it closes."""
    nursery.start_soon(connected.session.serve, echo)
    with trio.fail_after(LIMIT):
        await ask(connected.session, "hold", 256)
        await connected.peer.wait_for_output("holds 256")  # And has tried to open another one.
        await connected.peer.wait_for_output("holds 257")  # After it has closed one.


async def test_bug_libp2p_hears_nothing_while_eleven_streams_wait_to_be_accepted(libp2p: Libp2p) -> None:
    """Its reader waits for room in a queue of ten: no ping, window update or data of other streams is read."""
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect("server", "--deaf")
        async with otun.open_session(transport, "server") as session, trio.open_nursery() as nursery:
            await peer.wait_for_output("deaf")
            streams = [await ask(session, "echo") for _ in range(10)]
            await session.ping()
            streams.append(await ask(session, "echo"))
            await peer.wait_for_output("its reader waits")
            pinged = trio.Event()

            async def ping() -> None:
                await session.ping()
                pinged.set()

            nursery.start_soon(ping)
            await trio.testing.wait_all_tasks_blocked()
            assert not pinged.is_set()
            peer.process.send_signal(signal.SIGUSR1)
            await pinged.wait()
            for stream in streams:
                await send_and_end(stream, b"hello")
                assert await read_all(stream) == b"hello"


async def test_bug_libp2p_discards_what_it_has_not_read_when_we_close(libp2p: Libp2p) -> None:
    """It empties its buffers at a GoAway, even those of streams that have ended before."""
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect("server", "--deaf")
        async with otun.open_session(transport, "server") as session:
            await peer.wait_for_output("deaf")
            await send_and_end(await ask(session, "read", 100), b"hello")
            await session.ping()  # Nothing is left to be sent.
        # Our session ends when the peer has closed the connection.
        peer.process.send_signal(signal.SIGUSR1)
        await peer.wait_for_output("read 0 bytes of a command MuxedStreamReset")


async def test_bug_libp2p_ends_all_streams_when_we_only_go_away(connected: Connected) -> None:
    """GoAway 0 says that no new streams are taken; it closes the connection, and its streams with it."""
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "echo")
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        connected.session.go_away()
        with pytest.raises(otun.SessionClosed):
            await stream.receive_some()


async def test_bug_our_reset_is_an_orderly_end_to_libp2p(connected: Connected) -> None:
    """Its `read(n)` finds the stream gone from its table, and takes that for the end: a cut body looks whole."""
    with trio.fail_after(LIMIT):
        stream = await ask(connected.session, "read", 100)
        await connected.peer.wait_for_output("has 0")
        stream.reset()
        await connected.peer.wait_for_output("read 0 MuxedStreamEOF")


async def test_bug_libp2p_gives_a_slow_reader_five_seconds(libp2p: Libp2p) -> None:
    """Its `write` fails when the window stays empty for longer; closing the stream makes the cut body look whole."""
    size = 64 * MIB  # More than any window.
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect("server")
        async with otun.open_session(transport, "server") as session:
            stream = await ask(session, "write", size)
            await peer.wait_for_output("wrote MuxedStreamError Timed out waiting for window update")
            assert 0 < len(await read_all(stream)) < size


async def test_bug_a_cancelled_write_of_libp2p_breaks_the_connection(libp2p: Libp2p) -> None:
    """Half a frame has left, and it goes on with the next one.  We see that these are no headers."""
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect("server", "--tear", buffer_size=4096)
        async with transport:
            await peer.wait_for_output("cancelled")
            async with otun.open_session(transport, "server") as session:
                stream = await session.accept()
                with pytest.raises(otun.SessionClosed, match=r"broke the yamux protocol: .*version 255"):
                    await read_all(stream)


# Its bugs that need raw frames to be seen: our sessions do not send such, or not for certain.


@contextlib.asynccontextmanager
async def raw_client(libp2p: Libp2p, *options: str) -> AsyncIterator[tuple[trio.SocketStream, Program]]:
    with trio.fail_after(LIMIT):
        transport, peer = await libp2p.connect("client", *options)
        async with transport:
            yield transport, peer


def opening(number: int, *words: object) -> bytes:
    """The frames that open a stream which begins with a command."""
    text = command(*words)
    return encode_header(WINDOW_UPDATE, SYN, number, 0) + data(number, text)


def data(number: int, body: bytes, flags: int = 0) -> bytes:
    return encode_header(DATA, flags, number, len(body)) + body


def fin(number: int) -> bytes:
    return encode_header(WINDOW_UPDATE, FIN, number, 0)


async def test_bug_libp2p_never_enforces_its_window(libp2p: Libp2p) -> None:
    """It logs that 256 KiB were exceeded, and keeps it all: its memory is its peer's to fill."""
    async with raw_client(libp2p) as (transport, peer):
        await transport.send_all(opening(1, "hoard", 8 * MIB))
        for _ in range(128):
            await transport.send_all(data(1, bytes(64 * KIB)))
        await peer.wait_for_output(f"hoards {8 * MIB}")


async def test_bug_a_lost_connection_is_an_orderly_end_to_libp2p(libp2p: Libp2p) -> None:
    """A body that was cut short looks whole."""
    async with raw_client(libp2p) as (transport, peer):
        await transport.send_all(opening(1, "read", 100) + data(1, bytes(50)))
        await peer.wait_for_output("has 50")
        await transport.aclose()
        await peer.wait_for_output("read 50 MuxedStreamEOF")


@pytest.mark.parametrize("is_joined", [True, False], ids=["FIN with ACK", "FIN after ACK"])
async def test_bug_libp2p_ignores_a_fin_that_comes_with_the_ack(libp2p: Libp2p, is_joined: bool) -> None:
    """rust-yamux sends such frames; ours never."""
    async with raw_client(libp2p) as (transport, peer):
        await transport.send_all(opening(1, "answer_wanted"))
        await peer.wait_for_output("opened 2")
        answer = data(2, b"hi", ACK | FIN) if is_joined else data(2, b"hi", ACK) + fin(2)
        await transport.send_all(answer + data(1, b"."))
        await peer.wait_for_output("read b'hi' and " + ("no end" if is_joined else "MuxedStreamEOF"))


@pytest.mark.parametrize(("size", "arrived"), [(64_000, 64_000), (128_000, 0)], ids=["64 pieces", "128 pieces"])
async def test_bug_libp2p_loses_a_frame_that_arrives_in_more_than_101_pieces(
    libp2p: Libp2p, size: int, arrived: int
) -> None:
    """It gives up reading, and takes the rest for headers.  On an Ethernet, 146 KiB come in so many segments."""
    async with raw_client(libp2p, "--piece", "1000") as (transport, peer):
        await transport.send_all(opening(1, "read", 1000))
        await peer.wait_for_output("has 0")
        await transport.send_all(data(1, bytes(size)) + fin(1))
        await peer.wait_for_output(f"read {arrived} MuxedStreamEOF")
