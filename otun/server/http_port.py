"""The public port: visitors over HTTP, on the switchboard.

The head of a visitor's first request says which tunnel the connection is for; from then on its bytes are relayed as
they are.  A visitor costs no task: what happens to it happens in plain calls of the board's.
"""

import logging
import socket
from typing import Final

from ..errors import BadRequest
from ..http import pages
from ..http.head import RequestHead, RequestHeadReader
from ..mux import Patch, Session
from ..mux.patch import contained
from ..switchboard import Endpoint, LingeringClose, Switchboard
from .registry import Registry

logger: logging.Logger = logging.getLogger(__name__)

HEAD_TIMEOUT: Final = 10.0
"""Seconds in which a visitor's first request head must be whole, and its stream be open."""

HEAD_READ_SIZE: Final = 16 * 1024
"""Bytes asked for at once while the head is incomplete."""


class HttpPort:
    """Takes visitors' connections and joins each to the tunnel that its first request names."""

    def __init__(self, registry: Registry, board: Switchboard) -> None:
        self.registry = registry
        self.board = board

    def visitor_connected(self, sock: socket.socket) -> None:
        """Take a new connection."""
        Visitor(self, sock)

    def patch_ended(self, patch: Patch) -> None:
        """A visitor has left."""


class Visitor(Endpoint):
    """A visitor whose first request is still on its way, or whose stream cannot be opened yet."""

    __slots__ = ("_head", "_port", "_reader", "_received", "_session")

    def __init__(self, port: HttpPort, sock: socket.socket) -> None:
        super().__init__(port.board, sock)
        self._port = port
        self._reader = RequestHeadReader()
        self._received: list[bytes] = []  # Bounded by the reader, which refuses what is too large.
        self._head: RequestHead | None = None
        self._session: Session | None = None
        port.board.add(sock, self)
        port.board.set_deadline(self, HEAD_TIMEOUT)

    def pull(self) -> None:
        """Read until the head is there; what follows it is the local service's to read."""
        while self._head is None:
            data = self.receive(HEAD_READ_SIZE)
            if data is None:
                return
            if not data:
                self.close()
                return
            self._received.append(data)
            try:
                self._head = self._reader.feed(data)
            except BadRequest as error:
                self._answer(pages.bad_request(error))
                return
            if self._head is not None:
                self._route(self._head)
                return
            if not self.has_more:
                return

    def _route(self, head: RequestHead) -> None:
        registration = self._port.registry.find(head.host)
        if registration is None:
            has_tunnels = len(self._port.registry) > 0
            self._answer(pages.nobody_there(head.host, has_tunnels=has_tunnels, is_head=self._is_head_request))
            return
        self._session = registration.session
        if not registration.session.open_soon(self):
            page = pages.tunnel_lost if registration.session.is_going_away else pages.busy
            self._answer(page(is_head=self._is_head_request))

    def slot_granted(self, session: Session) -> None:
        """Open the stream, and let a patch take over."""
        patch = VisitorPatch(
            self._port, self.sock, unread=b"".join(self._received), is_head_request=self._is_head_request
        )
        patch.has_more, patch.has_hung_up = self.has_more, self.has_hung_up
        patch.attach(session.open_core(patch))
        self._leave()
        self.board.replace(self.sock, patch)
        patch.pull()

    def connection_lost(self) -> None:
        """The tunnel's session ended before the stream was open."""
        self._session = None
        self._answer(pages.tunnel_lost(is_head=self._is_head_request))

    @property
    def _is_head_request(self) -> bool:
        return self._head is not None and self._head.method == "HEAD"

    def _answer(self, page: bytes) -> None:
        self._leave()
        LingeringClose(self.board, self.sock, page)

    def deadline_passed(self) -> None:
        """The visitor, or the tunnel's client, was too slow."""
        if self._head is None:
            self._answer(pages.bad_request(BadRequest("the request's head took too long", status=408)))
        else:
            self._answer(pages.busy(is_head=self._is_head_request))

    def broken(self, error: OSError) -> None:
        """The visitor has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection."""
        if not self.is_closed:
            self._forget_session()
            super().close(with_reset=with_reset)

    def _leave(self) -> None:
        """Leave the socket to somebody else."""
        self.is_closed = True
        self._forget_session()
        self.board.clear_deadline(self)

    def _forget_session(self) -> None:
        if self._session is not None:
            self._session.forget_opener(self)
            self._session = None


class VisitorPatch(Patch):
    """A visitor's patch.  A stream that ends without a single byte is explained to the visitor: no empty replies."""

    __slots__ = ("_is_head_request",)

    def __init__(self, port: HttpPort, sock: socket.socket, *, unread: bytes, is_head_request: bool) -> None:
        super().__init__(port.board, sock, port, unread=unread)
        self._is_head_request = is_head_request

    @contained
    def stream_ended(self) -> None:
        """Pass the end on, behind an answer of ours if the local service gave none."""
        if not self.has_received and not self.is_closed:
            self._hand_over(pages.empty_reply(is_head=self._is_head_request))
        else:
            super().stream_ended()

    @contained
    def connection_lost(self) -> None:
        """The same when the client went away."""
        if not self.has_received and not self.is_closed:
            self._hand_over(pages.tunnel_lost(is_head=self._is_head_request))
        else:
            super().connection_lost()
