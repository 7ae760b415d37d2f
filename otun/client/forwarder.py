"""Visitors to the local service, on the switchboard: each stream is patched to a connection of its own."""

import errno
import logging
import socket
from functools import partial
from typing import Final

import attrs
import trio

from ..addresses import LocalAddress
from ..background import open_background
from ..control.resets import ResetCode
from ..mux import Patch, Tap
from ..proxy_protocol import ProxyHeader, encode_v2
from ..switchboard import Switchboard, TlsSocket
from ..switchboard.endpoint import os_error
from ..tls.trust import Trust
from ..yamux import YamuxStream
from .connecting import explain_connect_error
from .health import ReportedHealth, keep_checking
from .local_service import LocalService, Place
from .request_tap import OnExchange, RequestTap
from .unreachable import Problem, UnreachableAnswer
from .visitors import Visitors

logger: logging.Logger = logging.getLogger(__name__)

LOCAL_CONNECT_TIMEOUT: Final = 10.0
"""Seconds in which the local service must take a connection."""

FULL_QUEUE_DELAY: Final = 0.01
"""Seconds between two attempts to connect to a Unix socket whose queue is full; the kernel does not say when to."""


async def forward_on_board(
    visitors: Visitors,
    board: Switchboard,
    local: LocalAddress,
    *,
    trust: Trust | None,
    is_http: bool,
    proxy_protocol: bool,
    on_exchange: OnExchange | None,
    health: ReportedHealth | None = None,
) -> None:
    """Relay *visitors* until no more come.  Then, and when cancelled, all of them are cut short."""
    service = LocalService(local, trust)
    await service.resolve()
    forwarder = Forwarder(board, service, is_http=is_http, proxy_protocol=proxy_protocol, on_exchange=on_exchange)
    async with open_background() as background:
        background.start_soon(service.keep_resolved)
        background.start_soon(forwarder.keep_retrying)
        if health is not None:
            background.start_soon(partial(keep_checking, service, health, proxy_protocol=proxy_protocol))
        visitors.deliver_to(forwarder.visitor_arrived)
        try:
            await visitors.wait_ended()
        finally:
            visitors.stop_delivery()
            forwarder.end()


class Forwarder:
    """Connects each visitor's stream that is given to it with the local service."""

    def __init__(
        self,
        board: Switchboard,
        service: LocalService,
        *,
        is_http: bool,
        proxy_protocol: bool,
        on_exchange: OnExchange | None,
    ) -> None:
        self.board = board
        self.service = service
        self._is_http = is_http
        self._proxy_protocol = proxy_protocol
        self._on_exchange = on_exchange if is_http else None
        self._patches: set[Patch] = set()
        self._before_full_queue: dict[ServicePatch, None] = {}
        self._has_full_queue = trio.Event()

    def visitor_arrived(self, stream: YamuxStream, header: ProxyHeader | None) -> None:
        """A visitor has come."""
        stream.acknowledge()
        tap = RequestTap(self._on_exchange) if self._on_exchange is not None else None
        preface = b""
        if self._proxy_protocol:
            preface = encode_v2(attrs.evolve(header, tlvs=()) if header is not None else ProxyHeader(None, None))
        connect_to_service(self, stream, tap, preface)

    def patch_made(self, patch: Patch) -> None:
        """A connection is being made."""
        self._patches.add(patch)

    def patch_ended(self, patch: Patch) -> None:
        """A visitor has left."""
        self._patches.discard(patch)

    def unreachable(self, stream: YamuxStream, problem: Problem, tap: Tap | None, received: bytes = b"") -> None:
        """Answer the visitor that the local service cannot be reached: never with an empty reply.

        *received* are the bytes that have come from the visitor already.
        """
        self.service.failed()
        if not self._is_http:
            logger.warning("the local service %s cannot be reached: %s", self.service, problem.reason)
            stream.reset(ResetCode.SERVICE_RESET)
            return
        answer = UnreachableAnswer(stream, self.board, str(self.service), problem, tap)
        if received:
            answer.take(received)

    def retry_soon(self, patch: "ServicePatch") -> None:
        """The service's queue is full: let *patch* try again in a moment."""
        self._before_full_queue[patch] = None
        self._has_full_queue.set()

    async def keep_retrying(self) -> None:
        """Let patches that stand before a full queue try again, until cancelled."""
        while True:
            await self._has_full_queue.wait()
            self._has_full_queue = trio.Event()
            await trio.sleep(FULL_QUEUE_DELAY)
            patches, self._before_full_queue = self._before_full_queue, {}
            for patch in patches:
                patch.retry()

    def end(self) -> None:
        """Cut all visitors short."""
        for patch in list(self._patches):
            patch.abort()


def connect_to_service(forwarder: Forwarder, stream: YamuxStream, tap: Tap | None, preface: bytes) -> None:
    """Join *stream* with a new connection, which begins with *preface*; if there can be none, answer it."""
    attempt = _begin_connecting(forwarder.service.places, Problem(forwarder.service.problem))
    if isinstance(attempt, Problem):
        forwarder.unreachable(stream, attempt, tap)
        return
    patch = ServicePatch(forwarder, attempt, tap, preface)
    patch.attach(stream)
    if preface and not forwarder.service.is_encrypted:
        patch.send_first(preface)
    stream.handler = patch
    forwarder.patch_made(patch)


@attrs.frozen
class _Attempt:
    """A socket that is being connected, where to, and what can be tried after that."""

    sock: socket.socket
    place: Place
    untried: tuple[Place, ...]
    is_queue_full: bool


def _begin_connecting(places: tuple[Place, ...], problem: Problem) -> _Attempt | Problem:
    """Try *places* in their order; return why there is none left, if so: *problem*, or what came up last."""
    for number, place in enumerate(places):
        family, address = place
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # No descriptor left, for instance.
            problem = Problem.of(error)
            continue
        sock.setblocking(False)
        try:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            is_queue_full = _connect(sock, address)
        except OSError as error:
            sock.close()
            problem = Problem.of(error)
        else:
            return _Attempt(sock, place, places[number + 1 :], is_queue_full)
    return problem


def _connect(sock: socket.socket, address: str | tuple[str, int]) -> bool:
    """Begin to connect.  Returns True when that must be tried again, because the queue of a Unix socket is full."""
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
        raise os_error(code)
    return code == errno.EAGAIN


class ServicePatch(Patch):
    """A stream's connection to the local service, from the attempt to make it on."""

    reset_code = ResetCode.SERVICE_RESET

    __slots__ = ("_forwarder", "_place", "_preface", "_service", "_untried")

    def __init__(self, forwarder: Forwarder, attempt: _Attempt, tap: Tap | None, preface: bytes) -> None:
        super().__init__(forwarder.board, attempt.sock, forwarder, tap=tap, is_connecting=True)
        self._forwarder = forwarder
        self._service = forwarder.service
        self._preface = preface
        self._wait_for(attempt)

    def _wait_for(self, attempt: _Attempt) -> None:
        self.sock: socket.socket = attempt.sock
        self._place, self._untried = attempt.place, attempt.untried
        self.board.set_deadline(self, LOCAL_CONNECT_TIMEOUT)
        if attempt.is_queue_full:
            self._forwarder.retry_soon(self)
        else:
            self.board.add(self.sock, self)

    def retry(self) -> None:
        """Try again what a full queue has prevented."""
        if self.is_closed:
            return
        try:
            is_queue_full = _connect(self.sock, self._place[1])
        except OSError as error:
            self._attempt_failed(Problem.of(error))
            return
        if is_queue_full:
            self._forwarder.retry_soon(self)
        else:
            self.board.add(self.sock, self)

    def _finish_connecting(self, events: int) -> bool:
        """Go on with the connection, and with TLS if the service speaks that."""
        if not self._service.is_encrypted:
            return super()._finish_connecting(events)
        if not isinstance(self.sock, TlsSocket):
            if not self._has_reached_it(events):
                return False
            try:
                self.sock.sendall(self._preface)  # As it is; a new connection takes so little at once.
            except OSError as error:
                self.broken(error)
                return False
            self.sock = self._service.encrypt(self.sock)
        try:
            self.sock.handshake()
            self._service.check(self.sock)
        except BlockingIOError:
            self.board.emptied(self.sock)
            if self.sock.is_backlogged:
                self.board.filled(self.sock)
            return False
        except OSError as error:
            self.broken(error)
            return False
        self.is_connecting = False
        self.connected()
        if self.unsent and not self.is_closed:
            self._send_unsent()  # This need not be the socket's word that there is room …
        if not self.is_closed:
            self.board.call_again(self)  # … nor that there is something: that may have come with the handshake.
        return not self.is_closed

    def connected(self) -> None:
        """The local service has taken the connection."""
        self._forwarder.service.worked(self._place)
        self._untried = ()
        self.board.clear_deadline(self)
        if self.is_ending:
            self.send_eof()

    def broken(self, error: OSError) -> None:
        """Try the next address, if it was the attempt that failed."""
        if self.is_connecting:
            self._attempt_failed(Problem.of(error))
            return
        if self._tap is not None:
            self._tap.failed(explain_connect_error(error))
        super().broken(error)

    def stream_reset(self, code: int) -> None:
        """The visitor has gone, or the server has given up on the local service."""
        if code == ResetCode.SERVICE_TIMEOUT and self._tap is not None:
            self._tap.failed("no answer in time")
        super().stream_reset(code)

    def deadline_passed(self) -> None:
        """The attempt took too long, or one direction has been silent after the other one's end."""
        if self.is_connecting:
            self._attempt_failed(Problem(f"no answer within {LOCAL_CONNECT_TIMEOUT:g} seconds", is_timeout=True))
        else:
            super().deadline_passed()

    def _attempt_failed(self, problem: Problem) -> None:
        attempt = _begin_connecting(self._untried, problem)
        if isinstance(attempt, _Attempt):
            self.board.close(self.sock)
            self._wait_for(attempt)
            return
        tap, received = self._tap, bytes(self.unsent or b"")[self._own :]
        self._tap = None
        self.close()
        self._forwarder.unreachable(self._stream, attempt, tap, received)
        if self.is_ending and not self._stream.is_over:
            self._stream.handler.stream_ended()
