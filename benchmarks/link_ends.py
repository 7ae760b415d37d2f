"""One end of a link; benchmarks/long_link.py and benchmarks/fairness.py run two of these with a relay between them.

    link_ends.py sink KIND                         prints its port; takes one connection and what comes on one stream;
                                                   prints "BYTES RATE LATER", the rates in MB/s
    link_ends.py source KIND PORT SECONDS          sends for so long on one stream; prints "BYTES"
    link_ends.py echo KIND                         prints its port; each stream's first byte says whether the rest is
                                                   thrown away (B) or echoed (E)
    link_ends.py mixed KIND PORT SECONDS STREAMS   sends bulk on so many streams; exchanges 64 bytes on another, and
                                                   pings, one after the other; prints a JSON object of the times

KIND is "tcp" (bare, and only for the first two), "task" (`otun.open_session`) or "board" (a session on otun's
switchboard, as in its tunnels).  A sink's rates are of the time between its first byte and its last, and of the second
half of that time: the first includes how the sender gets going, the second does not.
"""

import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import attrs
import trio

import otun
from otun.mux import open_board_session
from otun.switchboard import open_switchboard
from otun.yamux import Role

BLOCK: Final = bytes(256 * 1024)
MESSAGE: Final = bytes(64)

# How long the bulk runs before anything is timed: all queues on the way are full by then.
_WARM_UP: Final = 2.0


@contextlib.asynccontextmanager
async def open_session(kind: str, sock: socket.socket, role: Role) -> AsyncIterator[otun.Session]:
    if kind == "task":
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        async with otun.open_session(stream, role) as session:
            yield session
    else:
        async with open_switchboard() as board, open_board_session(board, sock, role) as session:
            yield session


def take_connection() -> socket.socket:
    """Print a free port, and take the first connection to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


# One stream


@attrs.define
class Meter:
    """What has arrived, and when."""

    arrivals: list[tuple[float, int]] = attrs.field(factory=list)
    total: int = 0

    def add(self, size: int) -> None:
        self.total += size
        self.arrivals.append((time.perf_counter(), self.total))

    def __str__(self) -> str:
        start, first = self.arrivals[0]
        end, _ = self.arrivals[-1]
        middle, early = next(arrival for arrival in self.arrivals if arrival[0] >= (start + end) / 2)
        whole = (self.total - first) / (end - start)
        later = (self.total - early) / (end - middle)
        return f"{self.total} {whole / 1e6:.3f} {later / 1e6:.3f}"


def sink_tcp(sock: socket.socket) -> None:
    meter, buffer = Meter(), bytearray(len(BLOCK))
    while size := sock.recv_into(buffer):
        meter.add(size)
    print(meter)


def source_tcp(sock: socket.socket, seconds: float) -> None:
    until, sent = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        sock.sendall(BLOCK)
        sent += len(BLOCK)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)
    print(sent)


async def sink(kind: str, sock: socket.socket) -> None:
    meter = Meter()
    async with open_session(kind, sock, Role.SERVER) as session, await session.accept() as stream:
        async for data in stream:
            meter.add(len(data))
    print(meter)


async def source(kind: str, sock: socket.socket, seconds: float) -> None:
    sent = 0
    async with open_session(kind, sock, Role.CLIENT) as session, await session.open_stream() as stream:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await stream.send_all(BLOCK)
            sent += len(BLOCK)
        await stream.send_eof()
        await stream.receive_some(1)
    print(sent)


# Many streams


async def echo(kind: str, sock: socket.socket) -> None:
    async def answer(stream: otun.Stream) -> None:
        is_echoed = await stream.receive_some(1) == b"E"
        async for data in stream:
            if is_echoed:
                await stream.send_all(data)

    async with open_session(kind, sock, Role.SERVER) as session:
        await session.serve(answer)


@attrs.define
class Mixed:
    """The sending end of the fairness benchmark."""

    session: otun.Session
    sent: int = 0

    async def send_bulk(self) -> None:
        async with await self.session.open_stream() as stream:
            await stream.send_all(b"B")
            while True:
                await stream.send_all(BLOCK)
                self.sent += len(BLOCK)

    async def exchange(self, stream: otun.Stream) -> None:
        missing = len(MESSAGE)
        await stream.send_all(MESSAGE)
        while missing:
            data = await stream.receive_some(missing)
            if not data:
                raise AssertionError("the other end did not echo everything")
            missing -= len(data)

    async def run(self, seconds: float, streams: int) -> str:
        exchanges: list[float] = []
        pings: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(streams):
                nursery.start_soon(self.send_bulk)
            async with await self.session.open_stream() as stream:
                await stream.send_all(b"E")
                await trio.sleep(_WARM_UP)
                before, start = self.sent, time.perf_counter()
                async with trio.open_nursery() as timed:
                    timed.start_soon(repeat, lambda: self.exchange(stream), seconds, exchanges)
                    timed.start_soon(repeat, self.session.ping, seconds, pings)
                rate = (self.sent - before) / (time.perf_counter() - start)
            nursery.cancel_scope.cancel()
        return json.dumps({"exchanges": exchanges, "pings": pings, "rate": rate})


async def repeat(action: Callable[[], Awaitable[object]], seconds: float, times: list[float]) -> None:
    """Do it again and again for so long, and keep how long each took."""
    until = time.perf_counter() + seconds
    while (start := time.perf_counter()) < until:
        await action()
        times.append(time.perf_counter() - start)


async def mixed(kind: str, sock: socket.socket, seconds: float, streams: int) -> None:
    async with open_session(kind, sock, Role.CLIENT) as session:
        print(await Mixed(session).run(seconds, streams), flush=True)


def main(what: str, kind: str, *numbers: str) -> None:
    match what, numbers:
        case "sink", [] if kind == "tcp":
            sink_tcp(take_connection())
        case "source", [port, seconds] if kind == "tcp":
            source_tcp(connect(int(port)), float(seconds))
        case "sink", []:
            trio.run(sink, kind, take_connection())
        case "source", [port, seconds]:
            trio.run(source, kind, connect(int(port)), float(seconds))
        case "echo", []:
            trio.run(echo, kind, take_connection())
        case "mixed", [port, seconds, streams]:
            trio.run(mixed, kind, connect(int(port)), float(seconds), int(streams))
        case _:
            sys.exit("usage: see the head of link_ends.py")


if __name__ == "__main__":
    main(*sys.argv[1:])
