"""A patch joins a stream and a socket on the switchboard: bytes move in plain calls, with flow control both ways.

What the socket does not take counts as unread, so that the stream's window bounds what is kept; what the stream does
not take is left in the socket.
"""

import logging
import socket
import sys
from collections.abc import Callable
from functools import wraps
from typing import ClassVar, Concatenate, Final, ParamSpec, Protocol, TypeVar

import trio

from ..switchboard import Endpoint, LingeringClose, Switchboard
from ..switchboard.board import BYTES_PER_CALL, SECONDS_PER_CALL
from ..switchboard.endpoint import LINGER_TIMEOUT
from ..yamux import YamuxStream

logger: logging.Logger = logging.getLogger(__name__)

HALF_CLOSED_TIMEOUT: Final = 300.0
"""Seconds that a patch may stay without any byte once one direction has ended: as long as a closed stream may."""


class Tap(Protocol):
    """Whoever watches the bytes of a patch.  It must not raise, nor keep the memory that it is shown."""

    def to_socket(self, data: memoryview, now: float) -> None:
        """*data* came from the stream."""

    def from_socket(self, data: bytes, now: float) -> None:
        """*data* came from the socket."""

    def failed(self, problem: str) -> None:
        """The socket's side has failed; *problem* says how."""

    def ended(self, now: float) -> None:
        """Nothing more will come."""


class PatchOwner(Protocol):
    """Whoever ends a patch when its own time comes."""

    def patch_ended(self, patch: "Patch") -> None:
        """The socket is closed, and the stream over or on its way there."""


PatchT = TypeVar("PatchT", bound="Patch")
Arguments = ParamSpec("Arguments")


def contained(
    method: Callable[Concatenate[PatchT, Arguments], None],
) -> Callable[Concatenate[PatchT, Arguments], None]:
    """Let a bug in a patch's handling of its stream end that patch, and not the session that calls it."""

    @wraps(method)
    def call(patch: PatchT, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            method(patch, *args, **kwargs)
        except Exception:
            patch._failed()

    return call


class Patch(Endpoint):
    """The socket's member of the board and the stream's handler in one: a visitor costs no task, and few bytes.

    `attach` must follow at once.  A reset of the stream resets the socket and the other way round: what was cut short
    looks cut short on the far side, too.  *reset_code* tells the stream's other end that it was the socket that failed.
    """

    reset_code: ClassVar[int] = 0

    __slots__ = (
        "_has_lost_stream",
        "_has_read_all",
        "_own",
        "_owner",
        "_seen",
        "_stream",
        "_tap",
        "_unread",
        "moved",
    )

    def __init__(
        self,
        board: Switchboard,
        sock: socket.socket,
        owner: PatchOwner,
        *,
        unread: bytes = b"",
        tap: Tap | None = None,
        is_connecting: bool = False,
    ) -> None:
        super().__init__(board, sock, is_connecting=is_connecting)
        self._stream: YamuxStream
        self._owner = owner
        self._tap = tap
        self._unread = unread  # Read from the socket before it was patched.
        self._has_read_all = False
        self._has_lost_stream = False  # It was whole, but the socket does not have everything yet.
        self.moved: int = 0  # Bytes, both ways.
        self._seen = 0  # Of those, when the deadline was last looked at; -1 when something else has happened since.
        self._own = 0  # Bytes at the beginning of `unsent` that have not come from the stream.

    def attach(self, stream: YamuxStream) -> None:
        """Name the other end.  The caller sees to it that the stream's handler is this patch."""
        self._stream = stream

    def send_first(self, data: bytes) -> None:
        """Send bytes of our own before anything that comes from the stream."""
        self._own += len(data) - self.send(data)

    def take_over(self, other: Endpoint) -> None:
        """What *other* has not sent has not come from the stream."""
        super().take_over(other)
        self._own = len(self.unsent or b"")

    # Socket to stream

    def pull(self, budget: int = BYTES_PER_CALL) -> None:
        """Move what the socket has, as far as the stream takes it; after *budget* bytes, be called again."""
        turn_ends = self.board.now + SECONDS_PER_CALL
        while not self._has_read_all:
            allowance = self._stream.send_allowance()
            if not allowance:
                return  # `window_opened` will be called.
            if allowance > budget:
                allowance = budget
            if self._unread:
                data, self._unread = self._unread[:allowance], self._unread[allowance:]
            else:
                received = self.receive(allowance)
                if received is None:
                    return
                data = received
            if not data:
                self._socket_ended()
                return
            if self._tap is not None:
                self._tap.from_socket(data, self.board.now)
            self._stream.send_data(data)
            self.moved += len(data)
            if not self.has_more and not self._unread:
                return
            budget -= len(data)
            if budget <= 0 or trio.current_time() > turn_ends:
                self.board.call_again(self)
                return

    @contained
    def window_opened(self) -> None:
        """The stream takes bytes again."""
        if (self.has_more or self._unread) and not self.is_closed and not self.is_connecting:
            self.pull()
        else:
            self._stream.decline()

    def _socket_ended(self) -> None:
        self._has_read_all = True
        self._stream.send_eof()
        self._end_if_done()

    # Stream to socket

    def data_received(self, data: memoryview) -> None:
        """Hand *data* to the socket; what it does not take stays unread as far as the peer's window is concerned."""
        self.moved += len(data)
        try:  # What `contained` does, without the cost of another call.
            if self._tap is not None:
                self._tap.to_socket(data, self.board.now)
            sent = self.send(data)
        except Exception:
            self._failed()
            return
        if sent:
            self._stream.consume(sent)

    def drained(self, size: int) -> None:
        """What was kept has left."""
        self._seen = -1
        if self._own:
            own = min(self._own, size)
            self._own -= own
            size -= own
        self._stream.consume(size)
        if self._has_lost_stream:
            self.board.set_deadline(self, LINGER_TIMEOUT)

    @contained
    def stream_ended(self) -> None:
        """Shut the socket down for writing, after everything."""
        self.send_eof()

    def finished(self) -> None:
        """The socket's writing side is shut down."""
        if self._has_lost_stream:
            self._hand_over(b"")
        else:
            self._end_if_done()

    # Ending

    def _end_if_done(self) -> None:
        if self._has_read_all and self.is_finished:
            self.close()
        else:
            self.board.set_deadline(self, HALF_CLOSED_TIMEOUT)

    def deadline_passed(self) -> None:
        """One direction has ended, and the other one is silent: give up, unless bytes have moved in the meantime."""
        if self._seen != self.moved and not self._has_lost_stream:
            self._seen = self.moved
            self.board.set_deadline(self, HALF_CLOSED_TIMEOUT)
        else:
            self.abort()

    @contained
    def stream_reset(self, code: int) -> None:
        """The peer gave up on the stream."""
        self._stream_lost()

    @contained
    def evicted(self) -> None:
        """The socket takes too little, and the session holds too much."""
        logger.warning("%r was cut short: it holds more than any other stream of a session that holds too much", self)
        self.close(with_reset=True)

    @contained
    def connection_lost(self) -> None:
        """The session is gone."""
        self._stream_lost()

    def _stream_lost(self) -> None:
        if self.is_closed:
            return
        if not self.is_ending or self.is_connecting:
            self.abort()
        elif self.unsent:
            # The stream's end had arrived: the socket's other side has a right to all of it.
            self._has_lost_stream = self._has_read_all = True
            self.board.set_deadline(self, LINGER_TIMEOUT)
        else:
            self._hand_over(b"")

    def _hand_over(self, last_bytes: bytes) -> None:
        """Leave the socket to a `LingeringClose` that sends *last_bytes*, and reads what nobody wants."""
        self._leave()
        self._stream.close(self.board.now)
        LingeringClose(self.board, self.sock, last_bytes)

    def broken(self, error: OSError) -> None:
        """The socket failed.  What it had received before is still worth moving."""
        # Whatever `has_more` says: the bytes may have come with the failure, and not have been announced yet.
        if not self.is_connecting and not self._has_read_all and not self._stream.is_over:
            self.has_more = False
            self._move_rest()
        self._stream.reset(self.reset_code)
        self.close()

    def _move_rest(self, budget: int = sys.maxsize) -> None:
        while budget and (allowance := self._stream.send_allowance()):
            try:
                data = self.sock.recv(min(allowance, budget))
            except OSError:
                return
            if not data:
                return
            if self._tap is not None:
                self._tap.from_socket(data, self.board.now)
            self._stream.send_data(data)
            self.moved += len(data)
            budget -= len(data)

    def _failed(self) -> None:
        logger.exception("%r failed and is closed", self)
        self.abort()

    def abort(self) -> None:
        """Cut both sides short."""
        self._stream.reset()
        self.close(with_reset=True)

    def close(self, *, with_reset: bool = False) -> None:
        """Close the socket and tell the owner."""
        if not self.is_closed:
            super().close(with_reset=with_reset)
            self._leave()

    def _leave(self) -> None:
        self.leave()
        self._has_read_all = True
        if self._tap is not None:
            self._tap.ended(self.board.now)
        self._owner.patch_ended(self)
