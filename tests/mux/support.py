"""What the tests of sessions share: a hand-driven peer, transports with a character, small conversations."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Literal, TypeVar

import attrs
import trio
import trio.testing

from otun import SessionLimits
from otun.mux import Session, Stream, open_board_session, open_session
from otun.switchboard import TlsSocket, open_switchboard
from otun.yamux.frames import ACK, DATA, FIN, HEADER, HEADER_SIZE, PING, RST, SYN, WINDOW_UPDATE, encode_header

from ..switchboard.tls_peers import tls_pair

Result = TypeVar("Result")
Driver = Literal["tasks", "board", "TLS"]
RoleName = Literal["client", "server"]
Transports = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]

INITIAL_WINDOW: Final = 262144
"""The specification's number, on purpose not the package's constant."""

DEFAULT_LIMITS: Final = SessionLimits()

TINY_SOCKET_BUFFER: Final = 1024
"""Asked of the kernel, which makes it some 4 KiB."""


def fixed_window(size: int) -> SessionLimits:
    """Give limits under which all streams have a receive window of *size* bytes for good, whatever they hold."""
    return SessionLimits(receive_window=size, max_receive_window=size, max_held=2**40)


def pattern(size: int) -> bytes:
    """Give bytes in which no two places look alike, so that whatever is lost, doubled or swapped shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(-(-size // 4)))[:size]


def data(stream_id: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Encode a data frame."""
    return encode_header(DATA, flags, stream_id, len(body)) + body


def update(stream_id: int, delta: int = 0, flags: int = 0) -> bytes:
    """Encode a window update."""
    return encode_header(WINDOW_UPDATE, flags, stream_id, delta)


@attrs.frozen
class Frame:
    """A frame as the session under test sent it."""

    kind: int
    flags: int
    stream_id: int
    length: int
    body: bytes = b""

    def is_reset_of(self, stream_id: int) -> bool:
        """Whether this is an RST, on either of the frames that may carry it."""
        return self.stream_id == stream_id and self.kind in (DATA, WINDOW_UPDATE) and bool(self.flags & RST)

    def is_end_of(self, stream_id: int) -> bool:
        """Whether this is a FIN, on either of the frames that may carry it."""
        return self.stream_id == stream_id and self.kind in (DATA, WINDOW_UPDATE) and bool(self.flags & FIN)


class RawPeer:
    """The other end of a session's transport, driven frame by frame."""

    def __init__(self, transport: trio.abc.HalfCloseableStream) -> None:
        self.transport = transport
        self.answers_pings = False
        self._received = b""
        self._last_ping = 0x7000_0000

    async def send(self, *frames: bytes) -> None:
        """Send *frames* in one go."""
        await self.transport.send_all(b"".join(frames))

    async def frame(self) -> Frame | None:
        """Give the session's next frame; None at the end of its bytes."""
        while True:
            header = await self._take(HEADER_SIZE)
            if header is None:
                return None
            _version, kind, flags, stream_id, length = HEADER.unpack(header)
            if kind == PING and flags & SYN and self.answers_pings:
                await self.send(encode_header(PING, ACK, 0, length))
                continue
            body = await self._take(length) if kind == DATA else b""
            assert body is not None, "the session's bytes end within a frame"
            return Frame(kind, flags, stream_id, length, body)

    async def _take(self, size: int) -> bytes | None:
        while len(self._received) < size:
            more = await self.transport.receive_some(256 * 1024)
            if not more:
                assert not self._received, "the session's bytes end within a frame"
                return None
            self._received += more
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    async def next(self) -> Frame:
        """Give the next frame, which must exist."""
        frame = await self.frame()
        assert frame is not None, "the session has ended its bytes"
        return frame

    async def until(self, is_last: Callable[[Frame], bool]) -> list[Frame]:
        """Collect frames up to and including the one for which *is_last* holds."""
        frames = [await self.next()]
        while not is_last(frames[-1]):
            frames.append(await self.next())
        return frames

    async def rest(self) -> list[Frame]:
        """Collect frames until the session ends its bytes."""
        frames = []
        while (frame := await self.frame()) is not None:
            frames.append(frame)
        return frames

    async def settle(self) -> list[Frame]:
        """Collect what the session has said to all that it was sent so far.

        It must be read when it answers a ping.  Pongs overtake what else is queued, so that a second one is awaited.
        """
        frames = []
        for _ in range(2):
            self._last_ping += 1
            pong = Frame(PING, ACK, 0, self._last_ping)
            await self.send(encode_header(PING, SYN, 0, self._last_ping))
            frames += (await self.until(lambda frame, pong=pong: frame == pong))[:-1]
        return frames

    async def body_of(self, stream_id: int, size: int) -> bytes:
        """Collect *size* bytes that the session sends on a stream, in as many frames as it likes."""
        body = b""
        while len(body) < size:
            frame = await self.next()
            if frame.stream_id == stream_id:
                body += frame.body
        return body


@asynccontextmanager
async def open_over(
    driver: Driver,
    transport: trio.abc.Stream | socket.socket,
    role: RoleName,
    *,
    limits: SessionLimits = DEFAULT_LIMITS,
):
    """Open a session with *driver* over its kind of transport."""
    if driver == "tasks":
        async with open_session(transport, role, limits=limits) as session:
            yield session
    else:
        async with open_switchboard() as board, open_board_session(board, transport, role, limits=limits) as session:
            yield session


def transports_for(driver: Driver) -> tuple[trio.abc.Stream | socket.socket, trio.abc.HalfCloseableStream]:
    """Give a transport for *driver*, and the stream at its other end."""
    if driver == "tasks":
        return trio.testing.memory_stream_pair()
    if driver == "TLS":
        client_side, server_side = tls_pair()
        return client_side, TlsStream(server_side)
    ours, theirs = socket.socketpair()
    return ours, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


@asynccontextmanager
async def session_and_peer(
    driver: Driver, role: RoleName = "server", *, limits: SessionLimits = DEFAULT_LIMITS
) -> AsyncIterator[tuple[Session, RawPeer]]:
    """Give a session and the hand-driven peer at the other end; that one goes away first, without a word."""
    ours, theirs = transports_for(driver)
    async with open_over(driver, ours, role, limits=limits) as session:
        try:
            yield session, RawPeer(theirs)
        finally:
            await trio.aclose_forcefully(theirs)


@asynccontextmanager
async def tls_session_pair(*, limits: SessionLimits = DEFAULT_LIMITS) -> AsyncIterator[tuple[Session, Session]]:
    """Give what `board_session_pair` gives, over TLS."""
    client_side, server_side = tls_pair()
    async with (
        open_switchboard() as board,
        open_board_session(board, client_side, "client", limits=limits) as client,
        open_board_session(board, server_side, "server", limits=limits) as server,
    ):
        yield client, server


@asynccontextmanager
async def tight_pair(driver: Driver) -> AsyncIterator[tuple[Session, Session]]:
    """Give two sessions whose transport holds next to nothing."""
    if driver == "tasks":
        client_side, server_side = trio.testing.lockstep_stream_pair()
    else:
        client_side, server_side = socket.socketpair()
        for sock in (client_side, server_side):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TINY_SOCKET_BUFFER)
        if driver == "TLS":
            client_side, server_side = tls_pair(pair=(client_side, server_side))
    async with open_over(driver, client_side, "client") as client, open_over(driver, server_side, "server") as server:
        yield client, server


class TlsStream(trio.abc.HalfCloseableStream):
    """One end of a TLS connection as a stream."""

    def __init__(self, sock: TlsSocket) -> None:
        self._sock = sock

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        view = memoryview(data)
        while view:
            view = view[await self._when_ready(lambda view=view: self._sock.send(view), trio.lowlevel.wait_writable) :]

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return await self._when_ready(lambda: self._sock.recv(max_bytes or 2**16), trio.lowlevel.wait_readable)

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._when_ready(lambda: self._sock.shutdown(socket.SHUT_WR), trio.lowlevel.wait_writable)

    async def aclose(self) -> None:
        """Say goodbye if that goes, and close."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        await trio.lowlevel.checkpoint()

    async def _when_ready(self, call: Callable[[], Result], wait: Callable[[socket.socket], Awaitable[None]]) -> Result:
        while True:
            try:
                return call()
            except BlockingIOError:
                await wait(self._sock)
            except OSError as error:
                raise trio.BrokenResourceError from error


class SlowStream(trio.abc.HalfCloseableStream):
    """A stream that sends *rate* bytes per (virtual) second, and holds one piece of *piece_size* bytes at a time."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, rate: float, piece_size: int = 16 * 1024) -> None:
        self._stream = stream
        self._rate = rate
        self._piece_size = piece_size

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for start in range(0, len(data), self._piece_size):
            piece = data[start : start + self._piece_size]
            await trio.sleep(len(piece) / self._rate)
            await self._stream.send_all(piece)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Receive *size* bytes, and fail when the stream ends before."""
    received = bytearray()
    while len(received) < size:
        more = await stream.receive_some(size - len(received))
        assert more, f"the stream ended {size - len(received)} bytes early"
        received += more
    return bytes(received)


async def receive_all(stream: Stream) -> bytes:
    """Receive until the stream's end."""
    return b"".join([bytes(piece) async for piece in stream])


async def send_and_end(stream: Stream, body: bytes) -> None:
    """Send *body* and the end."""
    await stream.send_all(body)
    await stream.send_eof()


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    async for piece in stream:
        await stream.send_all(piece)


async def check_round_trip(opener: Session, acceptor: Session) -> None:
    """Show that the session is alive and its framing intact: a new stream carries data both ways."""
    body = pattern(5000)
    ours = await opener.open_stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, ours, body)
        theirs = await acceptor.accept()
        assert await receive_all(theirs) == body
        nursery.start_soon(send_and_end, theirs, body)
        assert await receive_all(ours) == body
    await opener.ping()


def stream_count(session: Session) -> int:
    """Give the number of streams in the session's table, as its repr shows it."""
    return int(repr(session).rpartition("streams=")[2].rstrip(">"))


async def let_run() -> None:
    """Let the tasks that were just started come to their first checkpoint."""
    for _ in range(2):
        await trio.lowlevel.checkpoint()
