"""A visitor's stream to one tunnel: requests leave on it one after the other, and its responses come back."""

import logging
from typing import TYPE_CHECKING, Final

from ..control.resets import ResetCode
from ..errors import BadBody, BadResponse
from ..http.body import (
    BodyReader,
    ChunkedBody,
    Data,
    EmptyBody,
    LengthBody,
    UntilClose,
    as_chunks,
    last_chunk,
)
from ..http.forwarding import NO_EDITS, write_response
from ..http.head import RequestHead, ResponseHead, ResponseHeadReader
from ..http.head_reader import MAX_HEAD_SIZE
from ..http.pages import Page
from ..yamux import YamuxStream
from .registry import Registration

if TYPE_CHECKING:
    from .visitor import Visitor

logger: logging.Logger = logging.getLogger(__name__)

JOIN_LIMIT: Final = 64 * 1024
"""Pieces of a response below this size leave in one write; above it, copying costs more than a write does."""

_NO_BODY: Final = EmptyBody()


class Upstream:
    """The stream's handler.  `stream` must be set at once.

    What has been received counts as unread until the visitor's socket has taken what was made of it.
    """

    __slots__ = (
        "_body",
        "_is_chunking",
        "_pending",
        "_reader",
        "_response",
        "has_answered",
        "has_begun",
        "is_ending",
        "is_over",
        "is_persistent",
        "moved",
        "registration",
        "request",
        "stream",
        "visitor",
    )

    def __init__(self, visitor: "Visitor", registration: Registration) -> None:
        self.visitor = visitor
        self.registration = registration
        self.stream: YamuxStream
        self.request: RequestHead | None = None  # The one that is being answered.
        self.has_answered: bool = False  # At least one request, before this one.
        self.has_begun: bool = False  # The visitor has got the beginning of the response.
        self.is_persistent: bool = True
        self.is_ending: bool = False  # The visitor has finished: nothing more will be asked.
        self.is_over: bool = False
        self.moved: int = 0  # Bytes, both ways.
        self._reader = ResponseHeadReader()
        self._response: ResponseHead | None = None
        self._body: BodyReader | None = None
        self._is_chunking = False
        self._pending = b""  # What the stream did not take: a head at most, and the frames of chunks.
        registration.streams += 1

    def __repr__(self) -> str:
        return f"<Upstream {self.registration.name} {'over' if self.is_over else 'open'}>"

    # The request

    def begin(self, request: RequestHead, data: bytes) -> None:
        """Send the head of the next request; `send` its body, if it has one."""
        self.request = request
        self._reader = ResponseHeadReader()
        self._body = None
        self.send(data)

    @property
    def is_congested(self) -> bool:
        """Whether nothing more may be sent until `Visitor.upstream_ready` is called."""
        return bool(self._pending)

    def send(self, data: Data, allowance: int | None = None) -> None:
        """Send *data*, at most a little more than the stream's allowance, or as much of it as the stream takes.

        *allowance* is what the stream has just said: asked again, it may give the turn to another stream.
        """
        self.moved += len(data)
        if self.registration.throttle is not None:
            self.registration.throttle.passed(len(data))
        if not self._pending:
            if allowance is None:
                allowance = self.stream.send_allowance()
            if len(data) <= allowance:
                self.stream.send_data(data)
                return
        self._pending += bytes(data)
        self._send_pending()

    def send_eof(self) -> None:
        """Tell the far side, after everything, that nothing more will be asked."""
        self.is_persistent = False
        self.is_ending = True
        self._send_pending()

    def _send_pending(self) -> None:
        while self._pending and (allowance := self.stream.send_allowance()):
            data, self._pending = self._pending[:allowance], self._pending[allowance:]
            self.stream.send_data(data)
        if self.is_ending and not self._pending:
            self.stream.send_eof()

    def window_opened(self) -> None:
        """The stream takes bytes again."""
        try:
            self._send_pending()
            if not self._pending:
                self.visitor.upstream_ready(self)
        except Exception:
            self._failed()

    # The response

    @property
    def is_event_stream(self) -> bool:
        """Whether the response may be silent for as long as nothing happens."""
        fields = self._response.fields if self._response is not None else []
        return any(
            field.name == b"content-type" and field.value.lower().startswith(b"text/event-stream") for field in fields
        )

    def data_received(self, data: memoryview) -> None:
        """Pass the response on."""
        self.moved += len(data)
        try:
            request = self.request
            if request is None:
                # Whatever it is, it answers nothing that was asked: the next request must not get it.
                self.stream.consume(len(data))
                self.reset()
                return
            if self._body is not None or not self._pass_usual(request, data):
                self._receive(data)
            if not self.is_over:
                self.visitor.owe(self, len(data))
        except Exception:
            self._failed()

    def _pass_usual(self, request: RequestHead, data: memoryview) -> bool:
        """Pass on a small answer that is whole, and whose head has come before; else do nothing, and return False.

        It does what `_receive` does, in a third of the time.
        """
        if len(data) > JOIN_LIMIT or request.method == "HEAD" or request.version == "1.0":
            return False
        received = bytes(data)
        end = received.find(b"\r\n\r\n") + 4
        head = ResponseHeadReader.known.find(received[:end])
        if head is None or head.usual is None or len(received) - end != head.framing.content_length:
            return False
        if not self._reader.is_untouched or self.registration.response_edits is not NO_EDITS:
            return False
        if not self.visitor.takes_usual_heads:
            return False
        self.visitor.send(head.usual + received[end:])
        self._end_response()
        return True

    def _receive(self, data: memoryview) -> None:
        out: list[Data] = []
        if self._body is None:
            try:
                rest = self._receive_heads(data, out)
            except BadResponse as error:
                self.visitor.response_is_bad(self, str(error))
                return
            if rest is None:
                self._send(out)
                return
            data = rest
        self._receive_body(data, out)

    def _receive_heads(self, data: memoryview, out: list[Data]) -> memoryview | None:
        """Read interim heads and the final one; return what follows it, and None while it is not complete."""
        size = len(data)
        while True:
            piece = bytes(data[: MAX_HEAD_SIZE + 4])
            head = self._reader.feed(piece)
            if head is None:
                return None
            data = data[len(piece) - len(self._reader.rest) :]
            if head.status == 101:
                self._send(out)
                out.clear()
                self.stream.consume(size - len(data))
                self.moved -= len(data)  # Whoever goes on counts it.
                self.visitor.upgrade(self, head, data)
                return None
            if not head.is_interim:
                self._begin_response(head, out)
                return data
            self._reader = ResponseHeadReader()
            assert self.request is not None
            if self.request.version == "1.1":
                out.append(write_response(head, b"", base=self.visitor.base_domain))
            if not data:
                return None

    def _begin_response(self, head: ResponseHead, out: list[Data]) -> None:
        request = self.request
        assert request is not None
        self.is_persistent = self.is_persistent and head.is_persistent
        self._body, framing, is_ended_by_close = _frame_response(head, request)
        self._is_chunking = framing is _CHUNKED
        self._response = head
        edits = self.registration.response_edits
        connection = self.visitor.response_begins(head, is_ended_by_close=is_ended_by_close)
        written = write_response(head, framing + connection, base=self.visitor.base_domain, edits=edits)
        is_usual = isinstance(self._body, LengthBody) and head.is_persistent and head.kept is not None
        if is_usual and not connection and edits is NO_EDITS:
            head.usual = written
        out.append(written)

    def _receive_body(self, data: memoryview, out: list[Data]) -> None:
        body = self._body
        assert body is not None
        try:
            content, used = body.read(data)
        except BadBody as error:
            self.visitor.response_is_bad(self, str(error))
            return
        out += as_chunks(content) if self._is_chunking else content
        if not body.is_complete:
            self._send(out)
            return
        if used < len(data):
            self.is_persistent = False  # It goes on although nothing else was asked.
        self._complete(body, out)

    def _complete(self, body: BodyReader, out: list[Data]) -> None:
        if self._is_chunking:
            out.append(last_chunk(body.trailers if isinstance(body, ChunkedBody) else []))
        self._send(out)
        self._end_response()

    def _end_response(self) -> None:
        if not self.is_over:
            self.request = self._response = None
            self.has_begun = False
            self.has_answered = True
            self.visitor.response_complete()

    def _send(self, out: list[Data]) -> None:
        self.has_begun = self._body is not None
        if len(out) > 1 and sum(map(len, out)) <= JOIN_LIMIT:
            self.visitor.send(b"".join(out))
            return
        for data in out:
            if not self.visitor.is_closed:
                self.visitor.send(data)

    # Ending

    def stream_ended(self) -> None:
        """The far side has said everything."""
        try:
            self.retire()
            if self.request is None:
                return
            if self._body is None:
                self.visitor.response_is_missing(self, is_silent=self._reader.is_untouched)
            elif not self._body.is_complete:
                self._end_body(self._body)
        except Exception:
            self._failed()

    def _end_body(self, body: BodyReader) -> None:
        try:
            body.end()
        except BadBody as error:
            self.visitor.response_is_bad(self, str(error))
            return
        self._complete(body, [])

    def stream_reset(self, code: int) -> None:
        """The far side gave up."""
        if self.request is None and self.stream.unread:
            self.is_persistent = False  # It had finished before: what it brought counts until the visitor has it.
            return
        self._lost(is_reset=code == ResetCode.SERVICE_RESET)

    def connection_lost(self) -> None:
        """The session is gone."""
        self._lost(is_reset=False)

    def _lost(self, *, is_reset: bool) -> None:
        try:
            self.visitor.forget_debt(self)
            has_request = self.request is not None
            self._leave()
            if has_request:
                self.visitor.upstream_lost(self, is_reset=is_reset)
        except Exception:
            self._failed()

    def evicted(self) -> None:
        """The visitor takes too little, and the session holds too much."""
        logger.warning("%r was cut short: it holds more than any other stream of a session that holds too much", self)
        self.visitor.forget_debt(self)
        self._leave()
        self.visitor.abort()

    def close(self) -> None:
        """End the stream in an orderly way: everything that was asked on it has been answered."""
        if self._pending:
            self.reset()  # It was answered before it had left.
        elif not self.is_over:
            self.visitor.pay_debt(self)
            self.stream.close(self.visitor.board.now)
            self._leave()

    def reset(self, code: ResetCode = ResetCode.UNKNOWN) -> None:
        """Cut the stream short."""
        if not self.is_over:
            self.visitor.forget_debt(self)
            self.stream.reset(code)
            self._leave()

    def cut(self, page: Page) -> None:
        """End what is being answered: with *page*, if nothing of an answer has left yet."""
        if self.request is not None:
            self.visitor.upstream_cut(self, page)
        else:
            self.retire()

    def retire(self) -> None:
        """End with the answer that is under way, if there is one."""
        self.is_persistent = False
        if self.request is None and not self.visitor.owes(self):  # Else the visitor closes it later.
            self.close()

    @property
    def is_held_back(self) -> bool:
        """Whether the far side is not to blame for silence: what it has said waits for its turn."""
        throttle = self.registration.throttle
        return throttle is not None and throttle.is_waiting(self.stream.handler)

    def _leave(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.request = None
            self.registration.stream_over(self)
            self.visitor.upstream_over(self)

    def hand_over(self) -> YamuxStream:
        """Leave the stream to somebody else; its bytes are no HTTP any more."""
        self.is_over = True
        self.registration.stream_handed_over(self)
        self.visitor.upstream_over(self)
        return self.stream

    def _failed(self) -> None:
        logger.exception("%r failed and is closed", self)
        self.reset()
        self.visitor.abort()


_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


def _frame_response(head: ResponseHead, request: RequestHead) -> tuple[BodyReader, bytes, bool]:
    """Return the reader of the body, the field that tells the visitor its length, and whether nothing can tell it.

    RFC 9112, section 6.3.
    """
    framing = head.framing
    length = b"" if framing.content_length is None else b"Content-Length: %d\r\n" % framing.content_length
    if head.status == 204:
        return _NO_BODY, b"", False
    if request.method == "HEAD" or head.status == 304:
        return _NO_BODY, length, False
    if framing.content_length is not None:
        return LengthBody(framing.content_length), length, False
    reader = ChunkedBody() if framing.is_chunked else UntilClose()
    if request.version == "1.0":
        return reader, b"", True
    return reader, _CHUNKED, False
