"""Those who come from outside: requests, and what came back."""

import socket
import struct
from collections.abc import Mapping

import attrs
import h11
import pytest
import trio

from otun.addresses import TcpAddress

from .services import receive_all


@attrs.frozen
class Answer:
    """What a visitor got."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Responses:
    """The responses that come on a connection, one after the other."""

    def __init__(self, visitor: trio.abc.ReceiveStream) -> None:
        self._visitor = visitor
        self._parser: h11.Connection | None = None

    async def next(self, *, method: str = "GET") -> Answer:
        """Receive the response to the next request, of that *method*; it must be whole and proper HTTP."""
        parser = self._ask(method)
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = parser.next_event()
            match event:
                case h11.NEED_DATA:
                    parser.receive_data(bytes(await self._visitor.receive_some()))
                case h11.Response():
                    head = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert head is not None
                    fields = {name.decode(): value.decode("latin-1") for name, value in head.headers.raw_items()}
                    return Answer(head.status_code, fields, bytes(body))
                case h11.InformationalResponse():
                    pass
                case _:
                    raise AssertionError(f"no response has come, but {event!r}")

    def _ask(self, method: str) -> h11.Connection:
        """Have the parser expect a response; it keeps what has come behind the one before."""
        if self._parser is None:
            self._parser = h11.Connection(h11.CLIENT)
        else:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
        self._parser.send(h11.EndOfMessage())
        return self._parser

    def check_nothing_is_left(self) -> None:
        """See that no byte has come behind the last response."""
        assert self._parser is not None
        data, _ = self._parser.trailing_data
        assert not data, f"bytes behind the response: {data!r}"


async def receive_answer(visitor: trio.abc.ReceiveStream, *, method: str = "GET") -> Answer:
    """Receive one response and nothing more, on a connection that may stay open."""
    responses = Responses(visitor)
    answer = await responses.next(method=method)
    responses.check_nothing_is_left()
    return answer


class _Replay(trio.abc.ReceiveStream):
    """Bytes that have come already, and then the end."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        received, self._received = self._received, b""
        return received

    async def aclose(self) -> None:
        pass


def parse(received: bytes, *, method: str = "GET") -> Answer:
    """Read *received* as one response and nothing more."""
    try:
        receive_answer(_Replay(received), method=method).send(None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    raise AssertionError("nobody waits for bytes that have come already")


def request(
    target: str = "/", *fields: str, host: str | None = "app.localhost", method: str = "GET", body: bytes = b""
) -> bytes:
    """The bytes of a request; a *body* brings its length along."""
    lines = [f"{method} {target} HTTP/1.1", *fields]
    if host is not None:
        lines.insert(1, f"Host: {host}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def connect(address: TcpAddress) -> trio.SocketStream:
    """Connect as a visitor."""
    return await trio.open_tcp_stream(address.host, address.port)


async def ask(address: TcpAddress, sent: bytes) -> bytes:
    """Send *sent*, and receive until the server closes in an orderly way."""
    async with await connect(address) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(visitor.send_all, sent)
        return await receive_all(visitor)


async def fetch(
    address: TcpAddress,
    target: str = "/",
    *fields: str,
    host: str | None = "app.localhost",
    method: str = "GET",
    body: bytes = b"",
) -> Answer:
    """Make one request on a connection of its own, which the far side closes after its answer."""
    sent = request(target, "Connection: close", *fields, host=host, method=method, body=body)
    return parse(await ask(address, sent), method=method)


async def receive_exactly(visitor: trio.abc.ReceiveStream, size: int) -> bytes:
    """Receive *size* bytes."""
    received = bytearray()
    while len(received) < size:
        piece = await visitor.receive_some(size - len(received))
        assert piece, f"the stream ended {size - len(received)} bytes early"
        received += piece
    return bytes(received)


async def receive_until_reset(visitor: trio.SocketStream) -> bytes:
    """Receive until the connection is reset, which it must be: an orderly end would hide that bytes are missing."""
    received = bytearray()

    async def receive() -> None:
        async for piece in visitor:
            received.extend(piece)

    with pytest.raises(trio.BrokenResourceError) as caught:
        await receive()
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    return bytes(received)


def reset(visitor: trio.SocketStream) -> None:
    """Close the connection by an RST."""
    visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.socket.close()
