"""A client each of whose control bytes is the test's."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from otun import Session, SessionClosed, Stream, TcpAddress, open_session

from .visitors import reset


class RawClient:
    """A yamux session with a server, and the control stream on it."""

    def __init__(self, session: Session, transport: trio.abc.Stream, control: Stream) -> None:
        self.session = session
        self.transport = transport
        self.control = control
        self._received = b""

    async def say(self, message: object) -> None:
        """Send *message*: bytes as they are, anything else as JSON on a line."""
        await self.control.send_all(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    async def hear(self) -> dict[str, object]:
        """Receive the server's next message, which must be a JSON object on a line of its own."""
        while b"\n" not in self._received:
            piece = await self.control.receive_some()
            assert piece, f"the control stream ended after {self._received!r}"
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    async def register(self, name: str | None = None, **fields: object) -> dict[str, object]:
        """Register, and return the answer."""
        if name is not None:
            fields["subdomain"] = name
        await self.say({"type": "register", **fields})
        return await self.hear()

    async def hear_farewell(self) -> dict[str, object]:
        """Receive an error, and see the server end the session."""
        message = await self.hear()
        assert message["type"] == "error"
        await self.see_session_end()
        return message

    async def see_session_end(self) -> None:
        """Wait until the server has ended the session, without another message."""
        with suppress(SessionClosed):
            assert not await self.control.receive_some(), "the server has said more"
        await self.session.wait_closed()

    async def serve(self, handler: Callable[[Stream], Awaitable[None]]) -> None:
        """Call *handler* for each visitor until the session ends, however that comes about."""
        with suppress(SessionClosed):
            await self.session.serve(handler)

    async def see_no_streams_but_control(self) -> None:
        """Wait until the control stream is the only one."""
        while stream_count(self.session) != 1:
            await self.session.ping()

    async def vanish(self) -> None:
        """Close the connection by an RST."""
        assert isinstance(self.transport, trio.SocketStream)
        reset(self.transport)
        await trio.lowlevel.checkpoint()


async def see_no_streams_left(session: Session) -> None:
    """Wait until *session*, either end of one, knows of no stream but the control stream."""
    while stream_count(session) != 1:
        await session.ping()


def stream_count(session: Session) -> int:
    """The number of streams in the session's table, as its repr shows it."""
    return int(repr(session).rpartition("streams=")[2].rstrip(">"))


@asynccontextmanager
async def raw_client(control: TcpAddress) -> AsyncIterator[RawClient]:
    """Connect to a control port, and open the control stream."""
    transport = await trio.open_tcp_stream(control.host, control.port)
    async with open_session(transport, "client") as session:
        yield RawClient(session, transport, await session.open_stream())


@asynccontextmanager
async def registered_client(control: TcpAddress, name: str = "app") -> AsyncIterator[RawClient]:
    """The same, and register *name*."""
    async with raw_client(control) as client:
        answer = await client.register(name)
        assert answer["type"] == "registered", answer
        yield client


def port_of(answer: dict[str, object]) -> int:
    """The port of a TCP tunnel, by the server's *answer* to its registration."""
    return int(str(answer["url"]).rpartition(":")[2])
