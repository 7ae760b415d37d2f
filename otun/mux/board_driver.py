"""A session's bytes moved in plain calls, on the switchboard."""

import socket
from typing import TYPE_CHECKING, Final

import trio

from ..switchboard import Endpoint, Switchboard, unsent_bytes
from ..switchboard.board import BYTES_PER_CALL, SECONDS_PER_CALL
from ..switchboard.endpoint import READ_SIZE
from .drivers import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from .session import Session

JOIN_LIMIT: Final = 64 * 1024
"""Output below this size is joined into one buffer; above it, gathering is cheaper than copying."""

GATHER_SIZE: Final = 4 * 1024
"""Average size of the buffers from which on gathering is cheaper, however many they are."""

GATHER_COUNT: Final = 64
"""Buffers in one gathering write."""

NOT_SENT_LIMIT: Final = 256 * 1024
"""Bytes that the kernel may hold unsent for a session: more would only make pings and small frames wait behind them."""

_MAX_INT: Final = 2**31 - 1


class BoardDriver(Endpoint):
    """A session's own socket on the switchboard: all frames of a batch leave in one write."""

    __slots__ = (
        "_closed",
        "_has_read_all",
        "_is_broken",
        "_is_draining",
        "_is_flushing",
        "_left_in_kernel",
        "_output",
        "_session",
        "_stall_timeout",
    )

    def __init__(self, board: Switchboard, sock: socket.socket, session: "Session") -> None:
        super().__init__(board, sock)
        self._session = session
        self._stall_timeout = session.limits.stall_timeout
        self._output: list[bytes | memoryview] = []
        self._closed = trio.Event()
        self._is_draining = False
        self._left_in_kernel = 0
        self._has_read_all = False
        self._is_broken = False
        self._is_flushing = False
        _tune(sock, self._stall_timeout)
        session.attach(self)
        board.put(sock, self)

    @property
    def is_backlogged(self) -> bool:
        """Whether the socket refuses bytes."""
        return bool(self._output)

    # Reading

    def pull(self) -> None:
        """Feed the session what has arrived."""
        turn_ends = self.board.now + SECONDS_PER_CALL
        for _ in range(BYTES_PER_CALL // READ_SIZE):
            data = self.receive(READ_SIZE)
            if data is None:
                return
            if not data:
                self._has_read_all = True
                self._session.feed_eof()
                if self._is_draining:
                    self.close()
                return
            self._session.feed(data)
            if self.is_closed or not self.has_more:
                return
            if trio.current_time() > turn_ends:
                break
        self.board.call_again(self)

    def broken(self, error: OSError) -> None:
        """The connection is gone; but the peer may have said something last."""
        if self._is_broken:
            return
        self._is_broken = True
        while not self._session.is_closed and (data := self.receive(READ_SIZE)):
            self._session.feed(data)
        self._session.fail(f"the connection to the peer was lost: {error.strerror}", cause=error)
        self.abort()

    # Writing

    def ready(self, events: int) -> None:
        """Send what the socket refused before, then read."""
        if self._output or not events:
            self.flush()
        super().ready(events)

    def output_ready(self) -> None:
        """Send at the end of the batch, with everything else that it brings."""
        if not self.is_closed and not self._is_flushing:
            self.board.flush_later(self)

    def flush(self) -> None:
        """Send until the socket is full, nothing is left, or others must have their turn."""
        if self._is_flushing:
            return
        self._is_flushing = True  # What comes up meanwhile is sent in this call, or in the next batch.
        try:
            sent = self._send_for_a_turn()
        finally:
            self._is_flushing = False
        if self._output and (sent or not self.deadline_slot):
            self.board.set_deadline(self, self._patience)

    @property
    def _patience(self) -> float:
        """Seconds in which the peer must take something."""
        return CLOSE_TIMEOUT if self._session.is_closed else self._stall_timeout

    def _send_for_a_turn(self) -> int:
        """Return how many bytes have left."""
        total = 0
        while not self.is_closed:
            if not self._output:
                if total >= BYTES_PER_CALL:
                    self.board.call_again(self)
                    break
                self._output = self._session.take_output()
                if not self._output:
                    self._all_sent()
                    break
            total += self._send_output()
            if self._output:
                break
        return total

    def _send_output(self) -> int:
        """Hand the kernel what it takes, keep the rest in `_output`, and return the number of bytes taken."""
        output = self._output
        size = sum(map(len, output))
        if len(output) > 1 and (size < JOIN_LIMIT or size < len(output) * GATHER_SIZE):
            output = [b"".join(output)]
        position, count, total = 0, len(output), 0
        try:
            while position < count:
                sent = self.sock.sendmsg(output[position : position + GATHER_COUNT])
                total += sent
                while position < count and sent >= len(output[position]):
                    sent -= len(output[position])
                    position += 1
                if sent:
                    output[position] = memoryview(output[position])[sent:]
        except BlockingIOError:
            self.board.filled(self.sock)
        except OSError as error:
            self.broken(error)
        self._output = output[position:]
        return total

    def _all_sent(self) -> None:
        if self._session.is_closed:
            if not self._is_draining:
                self._is_draining = True
                self.send_eof()
                self._left_in_kernel = unsent_bytes(self.sock)
                if self._has_read_all:
                    self.close()
                else:
                    self.board.set_deadline(self, CLOSE_TIMEOUT)
        elif self.deadline_slot:
            self.board.clear_deadline(self)

    # Ending

    def session_ended(self) -> None:
        """Send what is left, shut down writing, and read on until the peer closes."""
        if not self.is_closed:
            self.board.set_deadline(self, CLOSE_TIMEOUT)
            self.board.flush_later(self)

    def deadline_passed(self) -> None:
        """The peer does not take what we send, or does not close."""
        if self._output and self._send_output():
            # A slow peer may take bytes for long before the kernel says that there is room.
            self.board.set_deadline(self, self._patience)
            self.output_ready()
            return
        if self._is_draining and (left := unsent_bytes(self.sock)) < self._left_in_kernel:
            self._left_in_kernel = left
            self.board.set_deadline(self, CLOSE_TIMEOUT)
            return
        self._session.fail(f"the peer took no bytes for {self._stall_timeout:g} seconds")
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._session.fail("the session was cancelled")
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close, and let `aclose` know."""
        self._output = []
        super().close(with_reset=with_reset)
        self._closed.set()

    async def aclose(self) -> None:
        """Wait until everything has left and the peer has closed."""
        try:
            await self._closed.wait()
        finally:
            self.abort()


def _tune(sock: socket.socket, stall_timeout: float) -> None:
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LIMIT)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # What is never acknowledged is not taken, either.
            milliseconds = int(min(stall_timeout * 1000, _MAX_INT))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
