"""What passes over one relayed connection, seen as HTTP/1.1 exchanges: for a request log.

The observer looks on: it changes nothing, and whatever it cannot read as HTTP it leaves alone.  Where messages end is
httptools' (llhttp's) to say; no field is looked at and no body is copied.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

MAX_OUTSTANDING: Final = 64
"""Requests that may await their answer at a time: browsers do not pipeline at all, benchmarks do 16 or 32 deep."""

MAX_TARGET_LENGTH: Final = 2048
"""Characters of a target that are kept, enough for a line in a log."""

_LEADING_LINE_ENDS: Final = re.compile(rb"[\r\n]+")
_BLANK_LINE: Final = re.compile(rb"\r\n\r\n")


@attrs.frozen
class Exchange:
    """One request and the answer to it.

    *target* is cut at `MAX_TARGET_LENGTH`; *status* is None when there was no answer; *duration* is in seconds, from
    the request's first byte to the answer's last, or to the connection's end when there was none.  *problem* says what
    was wrong with the local service, if the answer is missing for that, or is the tunnel's own.
    """

    method: str
    target: str
    status: int | None
    duration: float
    problem: str = ""


@attrs.define(eq=False)
class _Request:
    method: str
    target: str
    began: float
    status: int | None = None


class _RequestSide:
    """Appends every request whose head is complete to *outstanding*, until the bytes are no HTTP any more."""

    def __init__(self, outstanding: deque[_Request]) -> None:
        self._outstanding = outstanding
        self._is_upgrading = False
        self._is_overrun = False
        self._now = 0.0
        self._began = 0.0
        self._target = b""
        self._parser: HttpRequestParser | None = HttpRequestParser(self)

    def feed(self, data: bytes | memoryview, now: float) -> None:
        if self._parser is None:
            return
        self._now = now
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            # Also the parser's word for CONNECT.  Whether what follows is HTTP depends on the answer, and httptools
            # takes such a request to have no body, so nothing more is read until `upgrade_refused`.
            self._parser = None
            self._is_upgrading = True
        except HttpParserCallbackError:
            raise  # no doing of the bytes'
        except HttpParserError:
            self._parser = None
        if self._is_overrun:
            self._parser = None

    def upgrade_refused(self) -> None:
        """Every request has been answered: if the last one asked for another protocol, HTTP goes on all the same."""
        if self._is_upgrading:
            self._is_upgrading = False
            self._parser = HttpRequestParser(self)

    def stop(self) -> None:
        self._is_upgrading = False
        self._parser = None

    def on_message_begin(self) -> None:
        self._began = self._now
        self._target = b""

    def on_url(self, url: bytes) -> None:
        # Comes in pieces when the request does, unlike a field.
        self._target += url[: MAX_TARGET_LENGTH - len(self._target)]

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._is_overrun = self._is_overrun or len(self._outstanding) >= MAX_OUTSTANDING
        if not self._is_overrun:
            method = self._parser.get_method().decode("latin-1")
            self._outstanding.append(_Request(method, self._target.decode("latin-1"), self._began))


class _ResponseSide:
    """Gives the *outstanding* requests their answers, and moves those that have all of it to *finished*."""

    def __init__(self, outstanding: deque[_Request], finished: deque[Exchange]) -> None:
        self._outstanding = outstanding
        self._finished = finished
        self._is_head_answered = False
        self.is_over = False
        self.now = 0.0
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes | memoryview, now: float) -> None:
        self.now = now
        if self._parser is None:
            return
        if any(request.method == "HEAD" for request in self._outstanding):
            for piece in _cut_after_heads(data):
                self._parse(piece)
        else:
            self._parse(data)

    def stop(self) -> None:
        self.is_over = True
        self._parser = None

    def _parse(self, data: bytes | memoryview) -> None:
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self.is_over = True
        except HttpParserCallbackError:
            raise  # no doing of the bytes'
        except HttpParserError:
            self.is_over = True
        if self.is_over:
            self._parser = None
        elif self._is_head_answered:
            # The old one expects the body that the fields speak of, and cannot be told otherwise.
            self._is_head_answered = False
            self._parser = HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if self.is_over or (100 <= status < 200 and status != 101):
            return  # RFC 9110, section 15.2: an interim response is not the answer
        if not self._outstanding:
            self.is_over = True  # an answer to nothing that was asked, such as a 408 before the connection is closed
            return
        request = self._outstanding[0]
        request.status = status
        if status == 101 or (request.method == "CONNECT" and 200 <= status < 300):
            # RFC 9110, section 7.8 and 9.3.6: what follows, in both directions, is another protocol.
            self._finish()
            self._outstanding.clear()
            self.is_over = True
        elif request.method == "HEAD":
            self._finish()
            self._is_head_answered = True

    def on_message_complete(self) -> None:
        # Also called where an interim response ends, or the head of an answer to HEAD that says it has no body.
        is_settled = self.is_over or self._is_head_answered
        if not is_settled and self._outstanding and self._outstanding[0].status is not None:
            self._finish()

    def _finish(self) -> None:
        request = self._outstanding.popleft()
        self._finished.append(_exchange(request, self.now))


class ExchangeObserver:
    """Watches both directions of one relayed connection and reports every exchange on it to *on_exchange*.

    Keep-alive and pipelining are followed.  An answer of 101, or a CONNECT that succeeds, is reported at once and ends
    the observation.  So do bytes from the service that are no HTTP/1.1, without a word.  Such bytes from the visitor,
    or more than `MAX_OUTSTANDING` unanswered requests, end it as soon as what was asked before has been answered.

    After a request to upgrade that the service ignores, what the visitor sends before the answer is complete is
    passed over: httptools does not say where that request's body ends.

    No bytes make it raise; what *on_exchange* raises comes out of the method that called it.  `ended` must be called
    in the end: it breaks the reference cycles with the parsers.
    """

    def __init__(self, on_exchange: Callable[[Exchange], None]) -> None:
        self._on_exchange = on_exchange
        self._outstanding: deque[_Request] = deque()
        self._finished: deque[Exchange] = deque()
        self._requests = _RequestSide(self._outstanding)
        self._responses = _ResponseSide(self._outstanding, self._finished)
        self._problem = ""

    def __repr__(self) -> str:
        return f"<ExchangeObserver {len(self._outstanding)} outstanding{', over' * self._responses.is_over}>"

    def request_bytes(self, data: bytes | memoryview, now: float) -> None:
        """Take bytes that went from the visitor to the local service, at *now* in seconds."""
        self._requests.feed(data, now)

    def response_bytes(self, data: bytes | memoryview, now: float) -> None:
        """Take bytes that went from the local service to the visitor, at *now* in seconds."""
        self._responses.feed(data, now)
        if self._responses.is_over:
            self._requests.stop()
        elif not self._outstanding:
            self._requests.upgrade_refused()
        self._report()

    def failed(self, problem: str) -> None:
        """The local service has failed: say so of the exchanges that are reported from now on."""
        self._problem = problem

    def ended(self, now: float) -> None:
        """The connection has ended: report what is left.

        An answer that had begun counts as complete with its last byte, since the end of the connection may be how it
        ends (RFC 9112, section 6.3); a request without one is reported with the status None.
        """
        self._requests.stop()
        self._responses.stop()
        while self._outstanding:
            request = self._outstanding.popleft()
            self._finished.append(_exchange(request, now if request.status is None else self._responses.now))
        self._report()

    def _report(self) -> None:
        # Here and not in the parsers' callbacks, where httptools would swallow what a caller's function raises.
        while self._finished:
            exchange = self._finished.popleft()
            self._on_exchange(attrs.evolve(exchange, problem=self._problem) if self._problem else exchange)


def _exchange(request: _Request, ended: float) -> Exchange:
    return Exchange(request.method, request.target, request.status, ended - request.began)


def _cut_after_heads(data: bytes | memoryview) -> Iterator[memoryview]:
    """Cut *data* so that wherever a head ends, a piece ends; cuts elsewhere do no harm.

    After the answer to a HEAD the parser is replaced, and httptools does not say how far it has read.  A head ends
    with a blank line; one that began in earlier data ends within the line ends that this data starts with.
    """
    view = memoryview(data)
    start = 0
    leading = _LEADING_LINE_ENDS.match(view)
    if leading is not None:
        start = leading.end()
        yield view[:start]
    for blank_line in _BLANK_LINE.finditer(view, start):
        yield view[start : blank_line.end()]
        start = blank_line.end()
    if start < len(view):
        yield view[start:]
