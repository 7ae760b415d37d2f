"""The visitors: a program that visits as it is told, and prints a line of JSON about each visit.

Run as `python -m tests.chaos.visitors SEED HTTP-PORT TCP-PORT`.  A line such as `{"probe": 10, "download": 2}` has it
begin: so many probes a second, and so many visitors of each other kind at a time.  An empty line has all visits come to
their end; then it prints `null`.
"""

import contextlib
import hashlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Final, TypeAlias

import h11
import trio
from websockets.exceptions import InvalidStatus, WebSocketException

from ..interop.support import blocks
from ..interop.websocket_peers import WebSocket
from .bodies import Expected, WrongBytes, messages
from .lines import lines_of
from .outcomes import LEFT, PROBE, RIGHT, WRONG
from .programs import first_of

VISIT_LIMIT: Final = 30.0
"""Seconds that a visitor waits: longer than the client and the server need to see that the other has gone."""

PAUSE: Final = 0.2
"""Seconds between two visits of the same visitor, and between two messages."""

SHORT_PAUSE: Final = 0.01
"""Seconds between two requests of somebody who is busy."""

MESSAGES: Final = 50
"""Messages of a visitor on a connection that stays: so it does for ten seconds."""

SLOW_PIECE: Final = 4096
"""Bytes that a slow visitor reads at a time."""

HOST: Final = "app.localhost"

SMALL, LARGE, SLOW = 1_000, 1_000_000, 100_000

Done: TypeAlias = Callable[[str], None]
"""What a visit calls with an outcome when it, or one message on a connection that stays, has gone well."""


class Ended(Exception):
    """The visit has come to another end than the right one; the text is its outcome."""


class Visitors:
    """Visit one tunnel for HTTP and one for TCP.  Each public method but the last two is one kind of visit."""

    def __init__(self, seed: int, http_port: int, tcp_port: int) -> None:
        self._chance = random.Random(seed)
        self._http_port = http_port
        self._tcp_port = tcp_port
        self._is_wanted = False

    async def probe(self, done: Done) -> None:
        """A small download on a connection of its own."""
        await self._download_alone(SMALL, done)

    async def download(self, done: Done) -> None:
        await self._download_alone(LARGE, done)

    async def slow(self, done: Done) -> None:
        """A download by somebody who reads a little at a time."""
        await self._download_alone(SLOW, done, pause=0.05)

    async def chain(self, done: Done) -> None:
        """One small download after the other on the same connection, for as long as that lasts."""
        await self._download_often(done, PAUSE)

    async def busy(self, done: Done) -> None:
        """The same with hardly a pause."""
        await self._download_often(done, SHORT_PAUSE)

    async def _download_often(self, done: Done, pause: float) -> None:
        connection = h11.Connection(h11.CLIENT)
        async with await connect(self._http_port) as stream:
            while self._is_wanted:
                await self._download(connection, stream, SMALL)
                done(RIGHT)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
                await trio.sleep(pause)

    async def upload(self, done: Done) -> None:
        """Send a body, and see by its hash that it is the one that has arrived."""
        seed = self._chance.randrange(1000)
        body = b"".join(blocks(LARGE, seed))
        connection = h11.Connection(h11.CLIENT)
        async with await connect(self._http_port) as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                head = ask(connection, "POST", f"/upload/{LARGE}/{seed}", LARGE)
                with contextlib.suppress(trio.BrokenResourceError):  # Why, the answer says, if there is one.
                    await stream.send_all(head + body)

            nursery.start_soon(send)
            received = bytearray()
            await receive_answer(connection, stream, received.extend)
            nursery.cancel_scope.cancel()
        if received.decode() != hashlib.sha256(body).hexdigest():
            raise WrongBytes("the service has had another body")
        done(RIGHT)

    async def abort(self, done: Done) -> None:
        """Leave in the middle of a download, by a reset every other time."""
        async with await connect(self._http_port) as stream:
            await stream.send_all(ask(h11.Connection(h11.CLIENT), "GET", f"/download/{LARGE}/1"))
            for _ in range(self._chance.randrange(4)):
                await stream.receive_some(SLOW_PIECE)
            if self._chance.random() < 0.5:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        done(LEFT)

    async def websocket(self, done: Done) -> None:
        """Send messages that come back."""
        async with await connect(self._http_port) as stream:
            websocket = await WebSocket.connect(stream, HOST)
            for message in islice(messages(self._chance.randrange(1000)), MESSAGES):
                await websocket.send(message)
                frame = await websocket.receive()
                if frame is None:
                    raise Ended("cut short")
                if frame.data != message:
                    raise WrongBytes("a message came back as another one")
                done(RIGHT)
                await trio.sleep(PAUSE)
                if not self._is_wanted:
                    break
            await websocket.close()

    async def echo(self, done: Done) -> None:
        """The same by TCP."""
        async with await connect(self._tcp_port) as stream:
            for message in islice(messages(self._chance.randrange(1000)), MESSAGES):
                await stream.send_all(message)
                received = b""
                while len(received) < len(message):
                    piece = await stream.receive_some(len(message) - len(received))
                    if not piece:
                        raise Ended("cut short")
                    received += piece
                    if not message.startswith(received):
                        raise WrongBytes("a message came back as another one")
                done(RIGHT)
                await trio.sleep(PAUSE)
                if not self._is_wanted:
                    return

    async def _download_alone(self, size: int, done: Done, *, pause: float = 0) -> None:
        async with await connect(self._http_port) as stream:
            await self._download(h11.Connection(h11.CLIENT), stream, size, pause=pause)
        done(RIGHT)

    async def _download(
        self, connection: h11.Connection, stream: trio.SocketStream, size: int, *, pause: float = 0
    ) -> None:
        seed = self._chance.randrange(1000)
        expected = Expected(size, seed)
        await stream.send_all(ask(connection, "GET", f"/download/{size}/{seed}"))
        await receive_answer(connection, stream, expected.take, pause=pause)
        if expected.missing:
            raise WrongBytes("a whole answer lacks bytes")

    def begin(self, wanted: Mapping[str, int], nursery: trio.Nursery) -> None:
        """Visit as it is *wanted*, by tasks in *nursery*."""
        self._is_wanted = True
        for kind, count in wanted.items():
            if kind == PROBE:
                nursery.start_soon(self._send_probes, 1 / count, nursery)
            else:
                for _ in range(count):
                    nursery.start_soon(self._repeat, kind)

    def stop(self) -> None:
        """Begin no visit any more, and leave the connections that would stay."""
        self._is_wanted = False

    async def _send_probes(self, interval: float, nursery: trio.Nursery) -> None:
        """Send them at a steady pace, whether those before have been answered or not."""
        due = trio.current_time()
        while self._is_wanted:
            nursery.start_soon(self._visit, PROBE)
            due += interval
            await trio.sleep_until(due)

    async def _repeat(self, kind: str) -> None:
        while self._is_wanted:
            await self._visit(kind)
            await trio.sleep(PAUSE * (1 + self._chance.random()))

    async def _visit(self, kind: str) -> None:
        """Make one visit, and print how it went."""
        began = time.monotonic()

        def tell(outcome: str, detail: str = "") -> None:
            nonlocal began
            now = time.monotonic()
            print(json.dumps([kind, outcome, began, now, detail]), flush=True)
            began = now
            scope.deadline = trio.current_time() + VISIT_LIMIT

        act: Callable[[Done], Awaitable[None]] = getattr(self, kind)
        with trio.move_on_after(VISIT_LIMIT) as scope:
            try:
                await act(tell)
            except* WrongBytes as group:
                tell(WRONG, str(first_of(group)))
            except* (Ended, WebSocketException, OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as group:
                tell(explain(first_of(group)))
        if scope.cancelled_caught:
            tell("time-out")


def explain(error: BaseException) -> str:
    """Return what a visitor would say."""
    match error:
        case Ended():
            return str(error)
        case InvalidStatus(response=response):
            return str(response.status_code)
        case trio.BrokenResourceError():
            return "reset"
        case OSError():
            return "refused"
        case _:
            return "cut short"


async def connect(port: int) -> trio.SocketStream:
    """Connect to the server."""
    return await trio.open_tcp_stream("127.0.0.1", port)


def ask(connection: h11.Connection, method: str, target: str, size: int = 0) -> bytes:
    """Return the bytes of a request whose body of *size* bytes is sent beside *connection*."""
    fields = [("Host", HOST), ("Content-Length", str(size))] if size else [("Host", HOST)]
    head = connection.send(h11.Request(method=method, target=target, headers=fields))
    if not size:
        connection.send(h11.EndOfMessage())
    assert head is not None
    return head


async def receive_answer(
    connection: h11.Connection,
    stream: trio.abc.ReceiveStream,
    take: Callable[[bytes], object],
    *,
    pause: float = 0,
) -> None:
    """Hand the body of a good answer over as it comes.  Raises `Ended` when there is another one, or none."""
    has_begun = False
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(SLOW_PIECE if pause else None)))
                await trio.sleep(pause)
            case h11.Response():
                has_begun = True
                if event.status_code != 200:
                    raise Ended(str(event.status_code))
            case h11.Data():
                take(event.data)
            case h11.EndOfMessage():
                return
            case h11.ConnectionClosed() if not has_begun:
                raise Ended("no answer")
            case _:
                raise Ended("cut short")


async def main(*numbers: str) -> None:
    visitors = Visitors(*map(int, numbers))
    orders = lines_of(trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())))
    async for order in orders:
        async with trio.open_nursery() as nursery:
            visitors.begin(json.loads(order), nursery)
            if await anext(orders, None) is None:
                nursery.cancel_scope.cancel()  # Whoever gave the order has gone.
            visitors.stop()
        print("null", flush=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
