"""WebSockets over Trio streams, by the sans-I/O cores of `websockets`, a client and a server that are not ours."""

from collections import deque
from collections.abc import AsyncIterator, Sequence

import trio
from websockets.client import ClientProtocol
from websockets.extensions import ClientExtensionFactory, ServerExtensionFactory
from websockets.frames import DATA_OPCODES, Close, Frame
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

_READ_SIZE = 64 * 1024


class WebSocket:
    """One end of a WebSocket.  It answers pings, and the far end's close, while it receives."""

    def __init__(self, stream: trio.SocketStream, protocol: ClientProtocol | ServerProtocol) -> None:
        self.stream = stream
        self.protocol = protocol
        self.bytes_received = 0
        self._events: deque[Frame | Request | Response] = deque()
        self._sending = trio.Lock()

    @classmethod
    async def connect(
        cls, stream: trio.SocketStream, host: str, *, extensions: Sequence[ClientExtensionFactory] = ()
    ) -> "WebSocket":
        """Open a WebSocket as a visitor of *host*; raises `websockets`' error when it is refused."""
        protocol = ClientProtocol(parse_uri(f"ws://{host}/socket"), extensions=extensions, max_size=None)
        websocket = cls(stream, protocol)
        protocol.send_request(protocol.connect())
        await websocket.flush()
        await websocket._next_event()
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return websocket

    @classmethod
    async def accept(
        cls, stream: trio.SocketStream, *, extensions: Sequence[ServerExtensionFactory] = (), received: bytes = b""
    ) -> "WebSocket":
        """Accept the WebSocket that a visitor asks for by the next request, of which *received* may be all."""
        protocol = ServerProtocol(extensions=extensions, max_size=None)
        websocket = cls(stream, protocol)
        if received:
            protocol.receive_data(received)
            websocket._events += protocol.events_received()
        request = await websocket._next_event()
        assert isinstance(request, Request)
        response = protocol.accept(request)
        assert response.status_code == 101, response
        protocol.send_response(response)
        await websocket.flush()
        return websocket

    async def flush(self) -> None:
        """Send what the protocol has to send.  Waits for nobody when that is nothing."""
        pieces = self.protocol.data_to_send()
        if not pieces:
            return
        async with self._sending:  # It is fair, so the order stays.
            for data in pieces:
                if data == SEND_EOF:
                    await self.stream.send_eof()
                else:
                    await self.stream.send_all(data)

    async def send(self, data: bytes, *, is_text: bool = False) -> None:
        """Send a message in one frame."""
        (self.protocol.send_text if is_text else self.protocol.send_binary)(data)
        await self.flush()

    async def send_fragments(self, *pieces: bytes, is_text: bool = False, ping: bytes | None = None) -> None:
        """Send a message in one frame for each piece, with a *ping* between any two."""
        for number, piece in enumerate(pieces, 1):
            is_last = number == len(pieces)
            if number == 1:
                (self.protocol.send_text if is_text else self.protocol.send_binary)(piece, fin=is_last)
            else:
                self.protocol.send_continuation(piece, fin=is_last)
            if ping is not None and not is_last:
                self.protocol.send_ping(ping)
            await self.flush()

    async def ping(self, data: bytes) -> None:
        """Send a ping; the pong is for who receives."""
        self.protocol.send_ping(data)
        await self.flush()

    async def receive(self) -> Frame | None:
        """Receive the next frame; none when the connection has ended."""
        event = await self._next_event()
        assert event is None or isinstance(event, Frame)
        return event

    async def receive_message(self) -> tuple[bytes, list[Frame]]:
        """Receive a message: what it says, and the frames that it came in, with those between them."""
        frames: list[Frame] = []
        while True:
            frame = await self.receive()
            assert frame is not None, "the connection has ended within a message"
            frames.append(frame)
            if frame.opcode in DATA_OPCODES and frame.fin:
                return b"".join([bytes(frame.data) for frame in frames if frame.opcode in DATA_OPCODES]), frames

    async def __aiter__(self) -> AsyncIterator[Frame]:
        while frame := await self.receive():
            yield frame

    async def close(self, code: int | None = None, reason: str = "") -> Close | None:
        """Say good-bye, and receive until the far end has done so and the connection has ended: what it said."""
        self.protocol.send_close(code, reason)
        await self.flush()
        async for _ in self:
            pass
        return self.protocol.close_rcvd

    async def _next_event(self) -> Frame | Request | Response | None:
        while not self._events:
            if self.protocol.reader.eof:
                return None
            data = await self.stream.receive_some(_READ_SIZE)
            self.bytes_received += len(data)
            if data:
                self.protocol.receive_data(data)
            else:
                self.protocol.receive_eof()
            self._events += self.protocol.events_received()
            await self.flush()
        return self._events.popleft()


async def echo(websocket: WebSocket) -> None:
    """Send each data frame back as it came, until the visitor leaves."""
    async for frame in websocket:
        if frame.opcode in DATA_OPCODES:
            websocket.protocol.send_frame(Frame(frame.opcode, frame.data, frame.fin))
            await websocket.flush()
