"""Visitors to the local service, on the switchboard: each stream is patched to a connection of its own."""

import errno
import os
import socket
from typing import Final

from ..addresses import LocalAddress
from ..background import open_background
from ..http import pages
from ..mux import Answer, Patch, Session, Tap
from ..switchboard import Switchboard
from ..yamux import YamuxStream
from .connecting import explain_connect_error
from .local_service import LocalService
from .request_tap import OnExchange, RequestTap

LOCAL_CONNECT_TIMEOUT: Final = 10.0
"""Seconds in which the local service must take a connection."""


async def forward_on_board(
    session: Session, board: Switchboard, local: LocalAddress, on_exchange: OnExchange | None
) -> None:
    """Relay the streams that the server opens until the session ends.  Cancelled, all of them are cut short."""
    service = LocalService(local)
    await service.resolve()
    forwarder = Forwarder(board, service, on_exchange)
    async with open_background() as background:
        background.start_soon(service.keep_resolved)
        try:
            session.deliver_to(forwarder.stream_opened)
            await session.wait_closed()
        finally:
            forwarder.end()


class Forwarder:
    """Connects each stream that is given to it with the local service."""

    def __init__(self, board: Switchboard, service: LocalService, on_exchange: OnExchange | None) -> None:
        self.board = board
        self.service = service
        self._on_exchange = on_exchange
        self._patches: set[Patch] = set()

    def stream_opened(self, stream: YamuxStream) -> None:
        """A visitor has come."""
        stream.acknowledge()
        tap = RequestTap(self._on_exchange) if self._on_exchange is not None else None
        connect_to_service(self, stream, tap)

    def patch_made(self, patch: Patch) -> None:
        """A connection is being made."""
        self._patches.add(patch)

    def patch_ended(self, patch: Patch) -> None:
        """A visitor has left."""
        self._patches.discard(patch)

    def end(self) -> None:
        """Cut all visitors short."""
        for patch in list(self._patches):
            patch.abort()


def connect_to_service(forwarder: Forwarder, stream: YamuxStream, tap: Tap | None) -> None:
    """Join *stream* with a new connection; if there can be none, answer it."""
    sock, place, reason = _begin_connecting(forwarder.service, 0)
    if sock is None:
        _answer_unreachable(forwarder, stream, reason, tap, request=b"")
        return
    patch = ServicePatch(forwarder, sock, place, tap)
    patch.attach(stream)
    stream.handler = patch
    forwarder.patch_made(patch)


def _begin_connecting(service: LocalService, start: int) -> tuple[socket.socket | None, int, str]:
    """Try the service's addresses from number *start* on.

    Returns a socket that is connecting and its address's number, or no socket and the reason.
    """
    reason = service.problem
    for number in range(start, len(service.places)):
        family, place = service.places[number]
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            reason = explain_connect_error(error)
            continue
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(place)
        if code in (0, errno.EINPROGRESS):
            return sock, number, ""
        sock.close()
        reason = os.strerror(code).lower()
    return None, len(service.places), reason


def _answer_unreachable(
    forwarder: Forwarder, stream: YamuxStream, reason: str, tap: Tap | None, *, request: bytes | bytearray
) -> None:
    """Answer the visitor that the local service cannot be reached: never with an empty reply."""
    now = forwarder.board.now
    forwarder.service.failed()
    page = pages.local_service_unreachable(str(forwarder.service), reason, is_head=request.startswith(b"HEAD "))
    if tap is not None:
        tap.from_socket(page, now)
        tap.ended(now)
    if not stream.is_over:
        stream.consume(len(request))
        Answer(stream, page, now)


class ServicePatch(Patch):
    """A stream's connection to the local service, from the attempt to make it on."""

    __slots__ = ("_forwarder", "_place")

    def __init__(self, forwarder: Forwarder, sock: socket.socket, place: int, tap: Tap | None) -> None:
        super().__init__(forwarder.board, sock, forwarder, tap=tap, is_connecting=True)
        self._forwarder = forwarder
        self._place = place
        self._wait_for_connection()

    def _wait_for_connection(self) -> None:
        self.board.add(self.sock, self)
        self.board.set_deadline(self, self.board.now + LOCAL_CONNECT_TIMEOUT)

    def connected(self) -> None:
        """The local service has taken the connection."""
        self._forwarder.service.worked(self._place)
        self.board.clear_deadline(self)
        if self.is_ending:
            self.send_eof()

    def broken(self, error: OSError) -> None:
        """Try the next address, if it was the attempt that failed."""
        if self.is_connecting:
            self._attempt_failed(explain_connect_error(error))
        else:
            super().broken(error)

    def deadline_passed(self) -> None:
        """The attempt took too long, or one direction has been silent after the other one's end."""
        if self.is_connecting:
            self._attempt_failed(f"no answer within {LOCAL_CONNECT_TIMEOUT:.0f} seconds")
        else:
            super().deadline_passed()

    def _attempt_failed(self, reason: str) -> None:
        sock, place, next_reason = _begin_connecting(self._forwarder.service, self._place + 1)
        if sock is not None:
            self.board.close(self.sock)
            self.sock, self._place = sock, place
            self._wait_for_connection()
            return
        tap, request = self._tap, self.unsent or b""
        self._tap = None
        self.close()
        is_untried = place > self._place + 1
        _answer_unreachable(self._forwarder, self._stream, next_reason if is_untried else reason, tap, request=request)
