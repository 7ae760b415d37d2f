"""A visitor's connection over HTTP: its requests, one after the other, each to the tunnel that it names.

It costs no task: what happens to it happens in plain calls of the board's.
"""

import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from ..addresses import TcpAddress
from ..control.resets import ResetCode
from ..errors import BadBody, BadRequest
from ..http import forwarding, pages
from ..http.body import BodyReader, ChunkedBody, Data, LengthBody, as_chunks, last_chunk
from ..http.head import RequestHead, RequestHeadReader, ResponseHead
from ..http.pages import Page
from ..mux import Session
from ..switchboard import Endpoint, LingeringClose
from ..switchboard.board import BYTES_PER_CALL, SECONDS_PER_CALL
from .debt import Debt
from .holding_back import hand_on
from .reception import Phase, Reception
from .relayed import VisitorPatch
from .stream_header import stream_header
from .upstream import Upstream

if TYPE_CHECKING:
    from .http_port import HttpPort

HEAD_READ_SIZE: Final = 16 * 1024
"""Bytes asked for at once while a head is incomplete."""

CHUNKS_READ_SIZE: Final = 64 * 1024
"""Bytes of a chunked body asked for at once: a visitor may send them as chunks of one byte."""

_REPEATABLE: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods of requests that may be sent again when a connection that was in use before turns out to be dead
(RFC 9110, section 9.2.2)."""

_HSTS: Final = b"strict-transport-security"


class Visitor(Reception):
    """A visitor's connection.

    One request is served at a time: those that are sent ahead stay where they are.
    """

    __slots__ = (
        "_body",
        "_debt",
        "_is_closing",
        "_reader",
        "_unread",
        "_upstream",
    )

    def __init__(
        self, port: "HttpPort", sock: socket.socket, peer: TcpAddress, *, scheme: str = "http", unread: bytes = b""
    ) -> None:
        super().__init__(port, sock, peer, scheme=scheme)
        self._reader = RequestHeadReader()
        self._unread = unread  # Read, and of the present request's body or of the next ones: CHUNKS_READ_SIZE at most.
        self._body: BodyReader | None = None
        self._upstream: Upstream | None = None  # The one whose answer is awaited, or on its way to the visitor.
        self._is_closing = False  # After this response.
        self._debt = Debt()
        self.limit(port.timeouts.head)

    def start(self) -> None:
        """Take a new connection."""
        self.board.add(self.sock, self)

    def take_over(self, other: Endpoint) -> None:
        """Look at once at what there is."""
        super().take_over(other)
        self.pull()

    # Reading requests

    def pull(self) -> None:
        """Read what the present phase wants."""
        if self._phase is Phase.IDLE or self._phase is Phase.HEAD:
            self._read_head()
        elif self._phase is Phase.BODY:
            self._move_body()
        elif not self._goes_on():
            self._look_for_end()

    def _read_head(self) -> None:
        while True:
            data: bytes | None
            if self._unread:
                data, self._unread = self._unread, b""
            else:
                data = self.receive(HEAD_READ_SIZE)
                if data is None:
                    return
                if not data:
                    self.close()
                    return
            try:
                head = self._reader.feed(data)
            except BadRequest as error:
                self._head = self._reader.refused_head()
                self._port.reports.add(self._peer, f"bad request: {error}")
                self._refuse(pages.bad_request(error))
                return
            if head is not None:
                self._unread = self._reader.rest
                if head.framing.is_chunked:
                    self._body = ChunkedBody()
                elif head.framing.content_length:
                    self._body = LengthBody(head.framing.content_length)
                self._begin(head)
                return
            if self._phase is Phase.IDLE and not self._reader.is_untouched:
                self._phase = Phase.HEAD
                self.limit(self._port.timeouts.head)
            if not self.has_more:
                return

    def take_turn(self) -> bool:
        """Go on with what had to wait until bytes may be moved."""
        registration, upstream = self._registration, self._upstream
        if self._phase is Phase.PAUSED and registration is not None:
            self._end_pause(registration)
        elif self._phase is Phase.BODY and upstream is not None:
            before = upstream.moved
            self._move_body()
            return upstream.moved > before and self._has_more_body
        return False

    def slot_granted(self, session: Session) -> None:
        """Open the stream, and send the request."""
        self._session = None
        registration = self._registration
        assert registration is not None
        if self._is_full(registration):  # By now: many may have waited with this one.
            self._refuse(pages.busy())
            return
        upstream = Upstream(self, registration)
        upstream.stream = session.open_core(upstream)
        self._upstreams[registration] = upstream
        registration.stream_opened(upstream)
        if registration.has_stream_header:
            upstream.send(stream_header(registration.tunnel_id, self._peer, self.sock))
        self._send_head(upstream)

    def _send_head(self, upstream: Upstream) -> None:
        head = self._head
        assert head is not None
        registration = upstream.registration
        host = registration.host_header or head.authority or self._port.registry.host_of(registration.name).encode()
        self._upstream = upstream
        self._is_closing = self._port.is_draining or not head.is_persistent
        if self._body is None:
            self._request_ended()
        else:
            self._phase = Phase.BODY
            self.limit(self._port.timeouts.body)
        edits = registration.request_edits
        kept = None if registration.rules is None else self._kept_lines(head, edits)
        upstream.begin(head, forwarding.write_request(head, self._visitor, host=host, edits=edits, kept=kept))
        if self.is_closed:
            return
        if self._phase is Phase.RESPONSE and (self.has_hung_up or self.has_more):  # The end may be there already.
            self._look_for_end()
        elif self._has_more_body:
            self._move_body()

    def _kept_lines(self, head: RequestHead, edits: forwarding.FieldEdits) -> bytes:
        """Return what is passed on of the fields: it is known if they were the same in the last request."""
        known = self._pass
        assert known is not None
        if known.kept is None or known.edits is not edits:  # Those of a group need not have the same.
            known.edits, known.kept = edits, forwarding.kept_lines(head, edits)
        return known.kept

    @property
    def _has_more_body(self) -> bool:
        """Whether there may be more of the request's body to move."""
        return self._phase is Phase.BODY and not self.is_closed and (self.has_more or bool(self._unread))

    def upstream_ready(self, upstream: Upstream) -> None:
        """The stream takes more of the request."""
        if upstream is self._upstream and self._has_more_body:
            self._move_body()
        else:
            upstream.stream.decline()

    def _move_body(self) -> None:
        """Move what the visitor has sent of its request's body, as far as the stream takes it."""
        body, upstream = self._body, self._upstream
        assert body is not None
        assert upstream is not None
        budget, throttle = BYTES_PER_CALL, upstream.registration.throttle
        if throttle is not None:
            budget = throttle.turn(self)
            if not budget:
                upstream.stream.decline()
                return
        turn_ends = self.board.now + SECONDS_PER_CALL
        while not upstream.is_congested:
            allowance = upstream.stream.send_allowance()
            if not allowance:
                return  # `upstream_ready` will be called.
            data = self._take(min(allowance, budget, body.left if isinstance(body, LengthBody) else CHUNKS_READ_SIZE))
            if data is None:
                return
            try:
                if not data:
                    body.end()
                content, used = body.read(data)
            except BadBody as error:
                if not data:
                    self.abort()
                else:
                    self._give_up(upstream, pages.bad_request(BadRequest(str(error))))
                return
            self._unread = data[used:] + self._unread
            if isinstance(body, ChunkedBody):
                chunks = as_chunks(content)
                if body.is_complete:
                    chunks.append(last_chunk(body.trailers))
                out: Data = b"".join(chunks)
            else:
                out = content[0]
            self.limit(self._port.timeouts.body)
            if body.is_complete:
                self._request_ended()
            if out:
                upstream.send(out, allowance)
            if self._phase is not Phase.BODY or self._upstream is not upstream or self.is_closed:
                if (self.has_hung_up or self.has_more) and not self.is_closed:
                    self._look_for_end()
                return
            if not self.has_more and not self._unread:
                return
            budget -= len(data)
            if budget <= 0 or trio.current_time() > turn_ends:
                self.board.call_again(self)
                return

    def _take(self, size: int) -> bytes | None:
        """Return at most *size* bytes of what the visitor has sent; b"" is the end, None means nothing now."""
        if self._unread:
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        return self.receive(size)

    def _request_ended(self) -> None:
        """All of the request has been read."""
        self._body = None
        self._phase = Phase.RESPONSE
        upstream = self._upstream
        timeouts = self._port.timeouts
        self.limit(timeouts.body if upstream is not None and upstream.has_begun else timeouts.response)

    def _give_up(self, upstream: Upstream, page: Page) -> None:
        """Answer with *page*, if nothing of a response has left yet; else nothing is made to look complete."""
        if upstream.has_begun:
            self.abort()
        else:
            self._refuse(page)

    def _look_for_end(self) -> None:
        """Find out whether the visitor has finished sending: the local service may want to know that nobody waits."""
        if self._unread:
            return
        try:
            is_over = not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.has_more = False
            self.board.emptied(self.sock)
            return
        except OSError as error:
            self.broken(error)
            return
        if not is_over:
            return
        if self._upstream is not None and self._phase is Phase.RESPONSE:
            self._is_closing = True
            self._upstream.send_eof()
        elif self._attempt is not None:
            self._attempt.visitor_finished()

    # Responses, as the upstream reports them

    @property
    def base_domain(self) -> str:
        """The domain under which all tunnels have their names."""
        return self._port.registry.domain

    @property
    def takes_usual_heads(self) -> bool:
        """Whether nothing is added to a head: the request is whole, the connection stays open, and there is no HSTS."""
        return self._phase is Phase.RESPONSE and not self._is_closing and not self._has_hsts

    @property
    def _has_hsts(self) -> bool:
        return bool(self._port.hsts) and self._visitor.scheme == "https"

    def response_begins(self, response: ResponseHead, *, is_ended_by_close: bool) -> bytes:
        """Return the fields to add to *response*: what becomes of the connection after it, and of the next ones."""
        head = self._head
        assert head is not None
        if is_ended_by_close or self._phase is Phase.BODY:
            # What the visitor will do with the rest of its request, nobody knows: it may send it or not.
            self._is_closing = True
        if self._phase is not Phase.BODY:
            self.limit(self._port.timeouts.body)
        hsts = self._hsts(response)
        if self._is_closing:
            return hsts + b"Connection: close\r\n"
        return hsts + b"Connection: keep-alive\r\n" if head.version == "1.0" else hsts

    def _hsts(self, response: ResponseHead) -> bytes:
        if not self._has_hsts:
            return b""
        assert self._registration is not None
        edits = self._registration.response_edits
        if _HSTS in edits.removed:
            is_given = any(line.lower().startswith(_HSTS + b":") for line in edits.added)
        else:
            is_given = any(field.name == _HSTS for field in response.fields)
        return b"" if is_given else self._port.hsts

    def response_complete(self) -> None:
        """Go on with the next request, when the visitor has taken this response."""
        if self.is_closed:
            return
        self._phase = Phase.SENDING
        if not self.unsent:
            self._response_sent()

    def _response_sent(self) -> None:
        # Not before: for as long as the stream lives, what was kept of it counts.
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        if self._body is not None:
            upstream.reset()
        elif not upstream.is_persistent:
            upstream.close()
        if self._is_closing:
            self._linger(b"")
            return
        self._head = self._registration = self._body = None
        self._reader = RequestHeadReader()
        self._phase = Phase.IDLE
        self.limit(self._port.timeouts.idle)
        if self._unread or self.has_more:
            # Not at once: this may be a call from within the session, and there may be many requests.
            self.board.call_again(self)

    def response_is_missing(self, upstream: Upstream, *, is_silent: bool) -> None:
        """The stream has ended before the response's head was complete."""
        local = upstream.registration.local
        if is_silent and self._may_repeat(upstream):
            self._repeat(upstream)
        else:
            page = pages.empty_reply(local) if is_silent else pages.bad_response(local, "its head is cut short")
            self._give_up(upstream, page)

    def upstream_lost(self, upstream: Upstream, *, is_reset: bool) -> None:
        """The stream was reset, or its session has ended, before the response was complete."""
        if is_reset and self._may_repeat(upstream):
            self._repeat(upstream)
        else:
            page = pages.local_service_reset(upstream.registration.local) if is_reset else pages.tunnel_lost()
            self._give_up(upstream, page)

    def _may_repeat(self, upstream: Upstream) -> bool:
        """Whether the request may just have met a local service that was closing an idle connection."""
        head = self._head
        return (
            upstream.has_answered
            and not upstream.has_begun
            and head is not None
            and head.method in _REPEATABLE
            and not head.has_body
            and head.framing.upgrade is None
        )

    def _repeat(self, upstream: Upstream) -> None:
        registration = upstream.registration
        self._upstream = None
        upstream.close()
        self._open_upstream(registration)

    def response_is_bad(self, upstream: Upstream, error: str) -> None:
        """The response is no proper HTTP: nothing more of it is passed on."""
        self._give_up(upstream, pages.bad_response(upstream.registration.local, error))

    def upstream_cut(self, upstream: Upstream, page: Page) -> None:
        """The tunnel may relay nothing more."""
        self._give_up(upstream, page)

    def upgrade(self, upstream: Upstream, head: ResponseHead, rest: memoryview) -> None:
        """Relay bytes from now on: both sides speak another protocol."""
        request = self._head
        assert request is not None
        if request.framing.upgrade is None:
            self.response_is_bad(upstream, "it switches to another protocol, which nobody asked for")
            return
        self.pay_debt(upstream)
        protocol = next((field.value for field in head.special if field.name == b"upgrade"), request.framing.upgrade)
        edits = upstream.registration.response_edits
        self.send(
            forwarding.write_response(
                head, b"Connection: Upgrade\r\nUpgrade: %s\r\n" % protocol, base=self.base_domain, edits=edits
            )
        )
        if self.is_closed:
            return
        self._upstream = None
        patch = VisitorPatch(
            self.board, self.sock, self._port, upstream.registration, origins=self.origins, unread=self._unread
        )
        patch.attach(upstream.hand_over())
        hand_on(patch.stream, patch)
        patch.take_over(self)
        self._leave()
        if rest:
            patch.data_received(rest)
        if not patch.is_closed:
            patch.pull()

    def upstream_over(self, upstream: Upstream) -> None:
        """The stream is no more."""
        if self._upstreams.get(upstream.registration) is upstream:
            del self._upstreams[upstream.registration]

    # What has been received and not sent on

    def owe(self, upstream: Upstream, size: int) -> None:
        """Count *size* bytes of the stream as read once everything has left for the visitor."""
        if upstream.has_begun and self._phase in (Phase.BODY, Phase.RESPONSE):
            self.limit(self._port.timeouts.body)
        if self.unsent:
            self._debt.owe(upstream.stream, size)
        else:
            upstream.stream.consume(size)

    def owes(self, upstream: Upstream) -> bool:
        """Whether something of the stream's has not left."""
        return self._debt.is_owed_to(upstream.stream)

    def pay_debt(self, upstream: Upstream) -> None:
        """Count everything of the stream as read."""
        self._debt.settle(upstream.stream)

    def forget_debt(self, upstream: Upstream) -> None:
        """The stream keeps no account any more."""
        self._debt.forget(upstream.stream)

    def drained(self, size: int) -> None:
        """The visitor has taken *size* bytes of what was kept."""
        self._debt.pay(size if self.unsent else sys.maxsize)
        if self._phase is Phase.SENDING and not self.unsent:
            self._response_sent()
        elif self._phase is Phase.SENDING or (self._upstream is not None and self._upstream.has_begun):
            self.limit(self._port.timeouts.body)

    # Time

    def time_is_over(self) -> None:
        """Answer, if nothing of a response has left yet; else close."""
        timeouts, upstream = self._port.timeouts, self._upstream
        if self._is_held_back:
            self.limit(timeouts.body)
            return
        match self._phase:
            case Phase.IDLE | Phase.HEAD if self._reader.is_untouched:
                self._linger(b"")  # Browsers open connections that they may never use.
            case Phase.HEAD:
                self._refuse(pages.request_timeout("head", timeouts.head))
            case Phase.LOGIN:
                self._refuse(self._answer or pages.logins_busy())
            case Phase.WAITING:
                self._refuse(pages.busy())
            case Phase.BODY if upstream is not None and not upstream.has_begun and not self.has_more:
                self._refuse(pages.request_timeout("body", timeouts.body))
            case Phase.BODY | Phase.RESPONSE if upstream is not None and not upstream.has_begun:
                is_stalled = self._phase is Phase.BODY
                seconds = timeouts.body if is_stalled else timeouts.response
                upstream.reset(ResetCode.SERVICE_TIMEOUT)
                self._refuse(pages.local_service_timeout(upstream.registration.local, seconds))
            case Phase.RESPONSE if upstream is not None and self._may_be_silent(upstream):
                self.limit(timeouts.body)  # It is silent for as long as nothing happens.
            case _:
                self.abort()

    @property
    def _is_held_back(self) -> bool:
        """Whether nothing happens because the tunnel has to pause."""
        registration = self._registration
        if registration is None or registration.throttle is None:
            return False
        return registration.throttle.is_waiting(self) or (self._upstream is not None and self._upstream.is_held_back)

    def _may_be_silent(self, upstream: Upstream) -> bool:
        # A visitor who has finished has left, most likely, and only the next event would show that.
        return upstream.is_event_stream and not upstream.is_ending and not self.unsent

    # Ending

    def drain(self) -> None:
        """The server is about to end: this connection does, too, after its next answer or without a request."""
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and self._reader.is_untouched):
            self.limit(self._port.timeouts.idle)
        elif self._phase in (Phase.BODY, Phase.RESPONSE) and self._upstream is not None:
            # Once an answer has begun, it is too late for it to say so.
            self._is_closing = self._is_closing or not self._upstream.has_begun

    def _linger(self, last_bytes: bytes) -> None:
        if self.is_closed:
            return
        unsent = self.unsent
        self._leave()
        last_bytes = bytes(unsent) + last_bytes if unsent else last_bytes
        LingeringClose(self.board, self.sock, last_bytes, on_close=self._port.visitor_left)

    def broken(self, error: OSError) -> None:
        """The visitor has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection."""
        if not self.is_closed:
            super().close(with_reset=with_reset)
            self._leave()
            self._port.visitor_left()

    def _leave(self) -> None:
        """Leave the socket to somebody else."""
        self.leave()
        self._wait_no_more()
        current, self._upstream = self._upstream, None
        if current is not None and (current.request is not None or self._body is not None):
            current.reset()
        for upstream in list(self._upstreams.values()):
            upstream.close()
