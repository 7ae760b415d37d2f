"""The services behind the tunnels: a strict one, lax ones, and one that recites an answer from the corpus.

Each but the last answers a request with what it has seen, as JSON.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final, Protocol

import attrs
import h11
import trio

from ..server.services import receive_all
from .cases import CANARY, ResponseCase
from .lax_reading import Laxness, read_request
from .messages import Request, answer_with
from .second_opinions import request_of_h11

SYNC: Final = "/sync"
"""The target of requests that are no part of a case: once one is answered, whatever came before it has arrived."""

MALFORMED: Final = "<malformed>"
"""The method of what the strict origin takes for no request."""

DRIP_SIZE: Final = 2048
"""Bytes that are sent one by one, if something is to drip; the rest follows in one piece."""

_MAX_HEAD: Final = 64 * 1024


Step = tuple[Request | None, bytes]
"""A request that is complete, if there is one, and what to send."""


class Reader(Protocol):
    """Reads one connection's requests, and knows how to answer them."""

    is_done: bool

    def receive(self, data: bytes) -> list[Step]:
        """Take the connection's next bytes."""


class StrictReader:
    """Reads with h11, and says so when h11 refuses."""

    def __init__(self, tunnel: str) -> None:
        self.is_done = False
        self._tunnel = tunnel
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._head: h11.Request | None = None
        self._body = bytearray()

    def receive(self, data: bytes) -> list[Step]:
        steps: list[Step] = []
        try:
            self._connection.receive_data(data)
            while not self.is_done and (step := self._next_step()):
                steps.append(step)
        except h11.RemoteProtocolError as error:
            steps.append((Request(MALFORMED, str(error)), answer_with(b"", is_last=True)))
            self.is_done = True
        return steps

    def _next_step(self) -> Step | None:
        while True:
            match event := self._connection.next_event():
                case h11.Request():
                    self._head = event
                    self._body.clear()
                case h11.Data():
                    self._body += event.data
                case h11.EndOfMessage():
                    return self._answer(event)
                case _ if self._connection.they_are_waiting_for_100_continue:
                    interim = h11.InformationalResponse(status_code=100, headers=[])
                    return None, self._connection.send(interim) or b""
                case _:
                    return None

    def _answer(self, end: h11.EndOfMessage) -> Step:
        assert self._head is not None
        connection = self._connection
        seen = attrs.evolve(request_of_h11(self._head, bytes(self._body), end), tunnel=self._tunnel)
        body = seen.to_json()
        sent = connection.send(h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))])) or b""
        sent += connection.send(h11.Data(data=b"" if seen.method == "HEAD" else body)) or b""
        sent += connection.send(h11.EndOfMessage()) or b""
        if connection.our_state is h11.DONE:
            connection.start_next_cycle()
        else:
            self.is_done = True
        return seen, sent


class LaxReader:
    """Reads with a certain laxness; never sends 100 (Continue), as many do not."""

    def __init__(self, tunnel: str, laxness: Laxness) -> None:
        self.is_done = False
        self._tunnel = tunnel
        self._laxness = laxness
        self._unread = b""

    def receive(self, data: bytes) -> list[Step]:
        self._unread += data
        steps: list[Step] = []
        while not self.is_done and (read := read_request(self._unread, self._laxness)):
            self._unread = self._unread[read.size :]
            seen = attrs.evolve(read.request, tunnel=self._tunnel)
            answer = answer_with(seen.to_json(), is_last=read.is_last, has_body=seen.method != "HEAD")
            steps.append((seen, answer))
            self.is_done = read.is_last
        return steps


@attrs.define(eq=False)
class Origin:
    """One service.  *make_reader* says how it reads just now; with a *script* it recites that, byte by byte
    if *is_dripping*.

    *seen* has the requests in the order in which they were complete, *wires* the bytes of each connection.
    """

    tunnel: str
    seen: list[Request]
    make_reader: Callable[[str], Reader] = StrictReader
    script: ResponseCase | None = None
    is_dripping: bool = False
    wires: list[bytearray] = attrs.field(factory=list)
    _connections: int = 0
    _left: trio.Event = attrs.field(factory=trio.Event)

    async def handle(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve a connection until its end."""
        self._connections += 1
        try:
            await self._serve(stream)
        except trio.BrokenResourceError:
            pass
        finally:
            self._connections -= 1
            self._left.set()

    async def wait_idle(self) -> None:
        """Wait until there are no connections."""
        while self._connections:
            self._left = trio.Event()
            await self._left.wait()

    async def _recite(self, stream: trio.abc.HalfCloseableStream, text: bytes) -> None:
        await send_dripping(stream, text) if self.is_dripping else await stream.send_all(text)

    async def _serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        reader = self.make_reader(self.tunnel)
        wire = bytearray()
        self.wires.append(wire)
        is_out_of_step = False
        while not reader.is_done:
            data = await stream.receive_some()
            if not data:
                return
            wire += data
            for request, answer in reader.receive(bytes(data)):
                if request is not None and request.target == SYNC:
                    self.wires.remove(wire)
                elif request is not None:
                    self.seen.append(request)
                    if self.script is not None and request.target != CANARY.target:
                        await self._recite(stream, self.script.sent)
                        if self.script.then != "keep":
                            await _finish(stream, with_reset=self.script.then == "reset")
                            return
                        is_out_of_step = self.script.is_surplus
                        continue
                    if is_out_of_step:
                        answer = answer_with(b"an answer too late", is_last=False)
                await stream.send_all(answer)
        await stream.send_eof()
        wire += await receive_all(stream)


async def send_dripping(stream: trio.abc.SendStream, data: bytes) -> None:
    """Send *data* byte by byte; what lies beyond `DRIP_SIZE` in one piece."""
    for number in range(min(DRIP_SIZE, len(data))):
        await stream.send_all(data[number : number + 1])
    await stream.send_all(data[DRIP_SIZE:])


async def _finish(stream: trio.abc.HalfCloseableStream, *, with_reset: bool) -> None:
    if with_reset:
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    else:
        await stream.send_eof()
        await receive_all(stream)
    await trio.aclose_forcefully(stream)
