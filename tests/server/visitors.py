"""Those who come from outside: requests, and what came back."""

import http.client
import io
import socket
import struct
from collections.abc import Mapping

import attrs
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


class _Replay(io.BytesIO):
    """Bytes in the place of a socket, for `http.client`."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self


def parse(received: bytes, *, method: str = "GET") -> Answer:
    """Read *received* as one response and nothing more."""
    replay = _Replay(received)
    answer = http.client.HTTPResponse(replay, method=method)  # type: ignore[arg-type]
    answer.begin()
    parsed = Answer(answer.status, dict(answer.getheaders()), answer.read())
    assert replay.closed or not replay.read(), f"bytes behind the response: {received!r}"
    return parsed


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
