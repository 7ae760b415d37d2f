"""Those who answer: handlers for any Trio stream, and local services that run them."""

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from otun.addresses import TcpAddress

Handler = Callable[[trio.abc.HalfCloseableStream], Awaitable[None]]

END_OF_HEAD: Final = b"\r\n\r\n"


def response(body: bytes = b"", *fields: str, status: str = "200 OK") -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


@attrs.frozen
class Asked:
    """What a request's head says, as a local service or a program behind a tunnel sees it; names in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]

    @classmethod
    def of(cls, head: bytes) -> "Asked":
        line, *fields = head.removesuffix(END_OF_HEAD).decode("latin-1").split("\r\n")
        method, target, version = line.split(" ")
        assert version == "HTTP/1.1"
        pairs = [field.split(": ", 1) for field in fields]
        names = [name.lower() for name, _ in pairs]
        assert len(set(names)) == len(names), f"a field comes twice: {head!r}"
        return cls(method, target, dict(zip(names, [value for _, value in pairs], strict=True)))


async def receive_head(stream: trio.abc.ReceiveStream) -> tuple[bytes, bytes]:
    """Receive until a head is whole: it, and what has come behind it.  Both are empty when the stream ends at once."""
    received = b""
    while END_OF_HEAD not in received:
        piece = await stream.receive_some()
        if not piece:
            assert not received, f"the stream ended within a head: {received!r}"
            return b"", b""
        received += piece
    head, _, rest = received.partition(END_OF_HEAD)
    return head + END_OF_HEAD, rest


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive until the stream's orderly end."""
    return b"".join([bytes(piece) async for piece in stream])


def answering(body: bytes) -> Handler:
    """Answer one request with *body*, and finish."""

    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        head, _ = await receive_head(stream)
        if head:
            await stream.send_all(response(body))
            await stream.send_eof()
            await receive_all(stream)

    return answer


async def answer_with_target(stream: trio.abc.HalfCloseableStream) -> None:
    """Answer request after request, none of which has a body, with its target."""
    rest = b""
    while True:
        received = rest
        while END_OF_HEAD not in received:
            piece = await stream.receive_some()
            if not piece:
                await stream.send_eof()
                return
            received += piece
        head, _, rest = received.partition(END_OF_HEAD)
        await stream.send_all(response(head.split(b" ")[1]))


@attrs.define(eq=False)
class Service:
    """A local service, with the connections that it has now."""

    address: TcpAddress
    connections: set[trio.SocketStream] = attrs.field(factory=set)
    accepted: int = 0


async def start_service(
    nursery: trio.Nursery, handler: Handler, *, listener: trio.SocketListener | None = None
) -> Service:
    """Have *handler* called, in *nursery*, for each connection to a free port of 127.0.0.1, or to *listener*.

    A connection that a visitor breaks off ends its handler and nothing else.
    """
    if listener is None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(connection: trio.SocketStream) -> None:
        service.accepted += 1
        service.connections.add(connection)
        try:
            await handler(connection)
        except trio.BrokenResourceError:
            pass
        finally:
            service.connections.discard(connection)

    service = Service(address_of(listener.socket))
    await nursery.start(trio.serve_listeners, handle, [listener])
    return service


def address_of(sock: socket.socket | trio.socket.SocketType) -> TcpAddress:
    """Where a socket is bound; its path where it is a Unix socket."""
    place = sock.getsockname()
    return TcpAddress(place, 0) if isinstance(place, str) else TcpAddress(*place[:2])
