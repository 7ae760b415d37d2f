"""py-libp2p's yamux as a peer for the interop tests: over bare TCP, without noise and multistream in front of it.

    libp2p_peer.py client PORT [OPTIONS]      connects to 127.0.0.1:PORT, and is the yamux client
    libp2p_peer.py server [OPTIONS]           prints "listening PORT", takes one connection, and is the yamux server

Each stream that it accepts begins with a command, 32 bytes padded with spaces; what it does is in `COMMANDS`.  It runs
in a virtual environment of its own (see libp2p_support.py) and shares no code with otun.

    --deaf        accept streams only from SIGUSR1 on, and tell when the reader waits for that
    --piece N     read at most so many bytes at a time from the socket
    --tear        begin with a write that is cancelled half-way
"""

import argparse
import hashlib
import signal
import socket
import sys
from collections.abc import Awaitable, Callable

import trio
import trio.testing
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF, MuxedStreamError
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

COMMAND_SIZE = 32
BLOCK = 65536


def say(*words: object) -> None:
    print(*words, flush=True)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def body_of(size: int, seed: int) -> bytes:
    """The repetition of a digest, different for each *seed*."""
    return (hashlib.sha256(b"%d" % seed).digest() * (size // 32 + 1))[:size]


async def read_until_error(stream: YamuxStream, limit: int) -> tuple[bytes, MuxedStreamError]:
    """Its `read` never returns b"": the end is an exception, too."""
    data = bytearray()
    while True:
        try:
            data += await stream.read(limit)
        except MuxedStreamError as error:
            return bytes(data), error


# What a stream may ask for


async def echo(conn: Yamux, stream: YamuxStream) -> None:
    """Send back what comes, and then end."""
    while True:
        try:
            data = await stream.read(BLOCK)
        except MuxedStreamEOF:
            await stream.close()
            return
        await stream.write(data)


async def digest(conn: Yamux, stream: YamuxStream) -> None:
    """Read to the end, and only then answer."""
    data, _ = await read_until_error(stream, BLOCK)
    await stream.write(digest_of(data).encode())
    await stream.close()


async def end_first(conn: Yamux, stream: YamuxStream) -> None:
    """Send a word, end, and go on reading."""
    await stream.write(b"farewell")
    await stream.close()
    data, error = await read_until_error(stream, BLOCK)
    say("read", len(data), digest_of(data), type(error).__name__)


async def read(conn: Yamux, stream: YamuxStream, limit: int) -> None:
    """Read *limit* bytes at a time (-1: whatever is there), say before each time what it has, and how that ended."""
    size = 0
    while True:
        say("has", size)  # Its next `read` has begun when anything else happens.
        try:
            size += len(await stream.read(limit))
        except MuxedStreamError as error:
            say("read", size, type(error).__name__)
            return


async def hoard(conn: Yamux, stream: YamuxStream, size: int) -> None:
    """Read nothing until *size* bytes are there."""
    while len(conn.stream_buffers[stream.stream_id]) < size:  # noqa: ASYNC110 - it has no event for that
        await trio.sleep(0.01)
    say("hoards", len(conn.stream_buffers[stream.stream_id]))


async def write(conn: Yamux, stream: YamuxStream, size: int) -> None:
    """Send so much, with the stream as a context manager, which ends it in any case."""
    body = body_of(size, 0)
    try:
        async with stream:
            await stream.write(body)
    except MuxedStreamError as error:
        say("wrote", type(error).__name__, error)
    else:
        say("wrote", size, digest_of(body))


async def reset(conn: Yamux, stream: YamuxStream) -> None:
    await stream.reset()


async def load(conn: Yamux, stream: YamuxStream, count: int, size: int) -> None:
    """Open so many streams at once, send a body on each, end it, and compare what comes back."""

    async def exchange(number: int) -> None:
        body = body_of(size, number)
        opened = await conn.open_stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, opened, body)
            received, error = await read_until_error(opened, BLOCK)
        if received == body and isinstance(error, MuxedStreamEOF):
            passed.append(number)

    async def send(opened: YamuxStream, body: bytes) -> None:
        await opened.write(body)
        await opened.close()

    passed: list[int] = []
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(exchange, number)
    say(len(passed), "passed,", count - len(passed), "failed")


async def one_by_one(conn: Yamux, stream: YamuxStream, count: int) -> None:
    """Open so many streams, each after the one before has ended."""
    for _ in range(count):
        opened = await conn.open_stream()
        await opened.close()
        await read_until_error(opened, BLOCK)
    say("ended", count)


async def hold(conn: Yamux, stream: YamuxStream, count: int) -> None:
    """Open so many streams, have each answered, and keep them; then open one more, and end one when that waits."""

    async def open_one_more() -> None:
        held.append(await conn.open_stream())

    held = [await conn.open_stream() for _ in range(count)]
    for opened in held:
        await opened.write(b"?")
    for opened in held:
        await opened.read(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_one_more)
        await trio.testing.wait_all_tasks_blocked()
        say("holds", len(held))
        await held[0].close()
    say("holds", len(held))


async def answer_wanted(conn: Yamux, stream: YamuxStream) -> None:
    """Open a stream, and say what could be read from it before the next byte came on this one."""
    data, end = b"", "no end"

    async def read_opened() -> None:
        nonlocal data, end
        while True:
            try:
                data += await opened.read(BLOCK)
            except MuxedStreamError as error:
                end = type(error).__name__
                return

    opened = await conn.open_stream()
    say("opened", opened.stream_id)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_opened)
        await stream.read(1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    say("read", data, "and", end)


async def round_trip(conn: Yamux, stream: YamuxStream) -> None:
    """Wait until its own ping, half a second after the start, was answered.

    The time is nonsense when the answer is read before `_measure_rtt_loop` has taken note of when it sent the ping.
    """
    while not conn.rtt():  # noqa: ASYNC110 - it has no event for that
        await trio.sleep(0.01)
    say("its ping was answered")


async def table(conn: Yamux, stream: YamuxStream) -> None:
    """Say how many streams it keeps, without this one."""
    await trio.testing.wait_all_tasks_blocked()  # It removes a stream after having sent the end.
    say("keeps", len(conn.streams) - 1)


async def leave(conn: Yamux, stream: YamuxStream, code: int) -> None:
    """Close the connection."""
    await conn.close(code)


Command = Callable[..., Awaitable[None]]  # Some take numbers, too.
COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        *(echo, digest, end_first, read, hoard, write, reset),
        *(load, one_by_one, hold, answer_wanted, round_trip, table, leave),
    )
}


async def obey(conn: Yamux, stream: YamuxStream) -> None:
    line = b""
    try:
        while len(line) < COMMAND_SIZE:
            line += await stream.read(COMMAND_SIZE - len(line))
    except MuxedStreamError as error:
        say("read", len(line), "bytes of a command", type(error).__name__)
        return
    name, *numbers = line.decode().split()
    try:
        await COMMANDS[name](conn, stream, *map(int, numbers))
    except MuxedStreamError as error:
        say(name, "failed:", type(error).__name__, error)


# The connection


class SlowStream(TrioTCPStream):
    """As if its bytes came in pieces."""

    def __init__(self, stream: trio.SocketStream, piece: int) -> None:
        super().__init__(stream)
        self.piece = piece

    async def read(self, n: int | None = None) -> bytes:
        return await super().read(self.piece if n is None else min(n, self.piece))


async def tear(conn: Yamux) -> None:
    """Begin a write that the socket cannot take, cancel it, and go on writing as if nothing had happened."""
    first = await conn.open_stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.write, b"\xff" * 4 * BLOCK)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    say("cancelled")
    second = await conn.open_stream()
    await second.write(b"\xff" * 4 * BLOCK)


async def wait_for_signal(conn: Yamux) -> None:
    async def watch_reader() -> None:
        while not conn.new_stream_receive_channel.statistics().tasks_waiting_send:  # noqa: ASYNC110 - as above
            await trio.sleep(0.01)
        say("its reader waits")

    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        say("deaf")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_reader)
            await anext(signals)
            nursery.cancel_scope.cancel()


async def serve(conn: Yamux, options: argparse.Namespace) -> None:
    await conn.event_started.wait()
    if options.tear:
        await tear(conn)
    if options.deaf:
        await wait_for_signal(conn)
    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await conn.accept_stream()
            except MuxedConnUnavailable:
                break
            nursery.start_soon(obey, conn, stream)


async def main(options: argparse.Namespace) -> None:
    if options.role == "client":
        # Small, for --tear: a frame must not fit.
        sock = trio.socket.socket()
        if options.tear:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await sock.connect(("127.0.0.1", options.port))
        stream = trio.SocketStream(sock)
    else:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        say("listening", listener.socket.getsockname()[1])
        stream = await listener.accept()
    transport = TrioTCPStream(stream) if options.piece is None else SlowStream(stream, options.piece)
    conn = Yamux(transport, ID(b"peer"), is_initiator=options.role == "client")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conn.start)
        await serve(conn, options)
    say("the connection has ended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["client", "server"])
    parser.add_argument("port", type=int, nargs="?")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--piece", type=int)
    parser.add_argument("--tear", action="store_true")
    sys.exit(trio.run(main, parser.parse_args()))
