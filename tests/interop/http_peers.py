"""The two ends of HTTP/1.1 connections: what goes out is the test's own bytes, what comes in is read by h11."""

from typing import Final, TypeAlias

import attrs
import h11
import trio

_READ_SIZE: Final = 64 * 1024
_MAX_HEAD: Final = 64 * 1024

_Fields: TypeAlias = dict[str, str]


class CutShort(Exception):
    """The connection ended, or was reset, before the message was whole: nobody takes it for a whole one."""


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"


def head(start: str, *fields: str) -> bytes:
    """The head of a message."""
    return "\r\n".join([start, *fields, "", ""]).encode("latin-1")


CHUNKED: Final = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")
CONTINUE: Final = head("HTTP/1.1 100 Continue")


def _fields_of(event: h11.Request | h11.Response | h11.InformationalResponse | h11.EndOfMessage) -> _Fields:
    fields: _Fields = {}
    for name, value in event.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


@attrs.frozen
class Request:
    """A request's head.  The fields' names are in lower case."""

    method: str
    target: str
    version: str
    fields: _Fields


@attrs.frozen
class Response:
    """A response's head."""

    status: int
    reason: str
    fields: _Fields


class _End:
    """One end of a connection.  Messages that are cut short raise `CutShort`, malformed ones h11's error."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.trailers: _Fields = {}
        self._machine: h11.Connection | None = None
        self._unread = b""
        self._has_ended = False

    async def send(self, *pieces: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(b"".join(pieces))

    async def receive_body_piece(self) -> bytes:
        """Receive some of the message's body; nothing at its end, and then its trailers are in `trailers`."""
        event = await self._receive_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), event
        self.trailers = _fields_of(event)
        self._finish_message()
        return b""

    async def receive_body(self) -> bytes:
        """Receive the rest of the message's body."""
        body = bytearray()
        while piece := await self.receive_body_piece():
            body += piece
        return bytes(body)

    async def receive_body_exactly(self, size: int) -> bytes:
        """Receive *size* bytes of the body, which must not be followed by more before the far end goes on."""
        body = b""
        while len(body) < size:
            piece = await self.receive_body_piece()
            assert piece, f"the body ended {size - len(body)} bytes early"
            body += piece
        return body

    async def receive_end(self) -> None:
        """See the connection end in an orderly way, with nothing behind the last message."""
        assert self._machine is None, "a message is still on its way"
        assert self._unread == b""
        if not self._has_ended:
            assert await self.stream.receive_some() == b""

    def leave_http(self) -> bytes:
        """Read no more HTTP from the stream: what has been received behind the last message."""
        if self._machine is not None:
            self._finish_message()
        unread, self._unread = self._unread, b""
        return unread

    async def _receive_event(self) -> h11.Event:
        machine = self._machine
        assert machine is not None
        while True:
            try:
                event = machine.next_event()
            except h11.RemoteProtocolError as error:
                if self._has_ended:
                    raise CutShort("ended") from error
                raise
            if event is not h11.NEED_DATA:
                assert isinstance(event, h11.Event), event
                return event
            try:
                data = await self.stream.receive_some(_READ_SIZE)
            except trio.BrokenResourceError as error:
                raise CutShort("reset") from error
            self._has_ended = not data
            machine.receive_data(data)

    def _begin_message(self, role: type[h11.CLIENT] | type[h11.SERVER]) -> h11.Connection:
        machine = h11.Connection(role, max_incomplete_event_size=_MAX_HEAD)
        if self._unread:
            machine.receive_data(self._unread)
        if self._has_ended:
            machine.receive_data(b"")
        self._machine, self._unread, self.trailers = machine, b"", {}
        return machine

    def _finish_message(self) -> None:
        assert self._machine is not None
        self._unread = self._machine.trailing_data[0]
        self._machine = None


class Origin(_End):
    """The local service's end of a connection."""

    async def receive_request(self) -> Request | None:
        """Receive the next request's head; none when the connection ends first, whether by an end or a reset."""
        self._begin_message(h11.SERVER)
        try:
            event = await self._receive_event()
        except CutShort as error:
            if str(error) == "reset":
                return None
            raise
        if isinstance(event, h11.ConnectionClosed):
            return None
        assert isinstance(event, h11.Request), event
        return Request(
            event.method.decode(), event.target.decode("latin-1"), event.http_version.decode(), _fields_of(event)
        )


class Visitor(_End):
    """The visitor's end of a connection."""

    async def receive_response(self, *, method: str = "GET", is_upgrading: bool = False) -> Response:
        """Receive the head of a response to a request with *method*: a final one, or one of those before it."""
        if self._machine is None:
            machine = self._begin_message(h11.CLIENT)
            fields = [("Host", "any"), *([("Connection", "upgrade"), ("Upgrade", "any")] if is_upgrading else [])]
            machine.send(h11.Request(method=method, target="/", headers=fields))
            if is_upgrading:
                machine.send(h11.EndOfMessage())
        event = await self._receive_event()
        if isinstance(event, h11.ConnectionClosed):
            raise CutShort("there is no response")
        assert isinstance(event, h11.Response | h11.InformationalResponse), event
        return Response(event.status_code, event.reason.decode("latin-1"), _fields_of(event))

    async def ask(self, *sent: bytes, method: str = "GET") -> tuple[Response, bytes]:
        """Send a request; receive the whole response."""
        await self.send(*sent)
        response = await self.receive_response(method=method)
        return response, await self.receive_body()
