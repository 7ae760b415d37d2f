"""Drivers move a session's bytes: with two tasks over any Trio stream, or in plain calls on the switchboard."""

import socket
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ..switchboard import Endpoint, Switchboard
from ..switchboard.board import BYTES_PER_CALL, SECONDS_PER_CALL
from ..switchboard.endpoint import READ_SIZE

if TYPE_CHECKING:
    from .session import Session

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that an orderly end may take: sending what is queued, and waiting for the peer to close its side."""

STALL_TIMEOUT: Final = 10.0
"""Seconds in which a transport must take at least some bytes, or the session fails, as in hashicorp/yamux."""

TASK_READ_SIZE: Final = 64 * 1024
"""Bytes read between two checkpoints: some 5,000 of the smallest frames, a few milliseconds' work."""

TASK_WRITE_SIZE: Final = 64 * 1024
"""Bytes in one `send_all`, which must be done within `STALL_TIMEOUT`."""

JOIN_LIMIT: Final = 64 * 1024
"""Output below this size is joined into one buffer; above it, gathering is cheaper than copying."""

GATHER_SIZE: Final = 4 * 1024
"""Average size of the buffers from which on gathering is cheaper, however many they are."""

GATHER_COUNT: Final = 64
"""Buffers in one gathering write."""

NOT_SENT_LIMIT: Final = 256 * 1024
"""Bytes that the kernel may hold unsent for a session: more would only make pings and small frames wait behind them."""


class Driver(Protocol):
    """Whoever moves a session's bytes."""

    @property
    def is_backlogged(self) -> bool:
        """Whether the transport has not taken all output yet.  It fails by itself when it takes none for long."""

    def output_ready(self) -> None:
        """`Session.take_output` has something."""

    def session_ended(self) -> None:
        """Send what is left, and close the transport."""

    def abort(self) -> None:
        """Close the transport at once."""

    async def aclose(self) -> None:
        """Wait, not too long, until what is left is sent and the transport closed.  Cancelled, it is closed at once."""


class TaskDriver:
    """One task reads and one writes.  Only the writer touches the transport's sending side."""

    def __init__(self, transport: trio.abc.Stream, session: "Session") -> None:
        self._transport = transport
        self._session = session
        self._has_output = trio.Event()
        self._has_read_all = trio.Event()
        self._is_closed = trio.Event()
        self._tasks = trio.CancelScope()
        self.is_backlogged = False
        session.attach(self)

    def start(self, nursery: trio.Nursery) -> None:
        """Begin, in *nursery*."""
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            with self._tasks:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    await self._write()
                    await self._close_gently()
                    nursery.cancel_scope.cancel()
        finally:
            self._session.fail("the session was cancelled")
            await trio.aclose_forcefully(self._transport)
            self._is_closed.set()

    async def _read(self) -> None:
        session = self._session
        try:
            while data := await self._transport.receive_some(TASK_READ_SIZE):
                session.feed(data)
            session.feed_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            session.fail(_lost(error))
        self._has_read_all.set()

    async def _write(self) -> None:
        """Send the session's output until the session has ended and nothing is left."""
        while True:
            await self._has_output.wait()
            self._has_output = trio.Event()
            while output := self._session.take_output():
                self.is_backlogged = True
                for piece in _cut(b"".join(output)):
                    if not await self._send(piece):
                        return
            self.is_backlogged = False
            if self._session.is_closed:
                return

    async def _send(self, piece: memoryview) -> bool:
        with trio.move_on_after(CLOSE_TIMEOUT if self._session.is_closed else STALL_TIMEOUT):
            try:
                await self._transport.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self._read_rest()
                self._session.fail(_lost(error))
                return False
            return True
        self._session.fail(f"the peer took no bytes for {STALL_TIMEOUT:.0f} seconds")
        return False

    async def _read_rest(self) -> None:
        """Let the reader have what has arrived: a peer that is gone may have said something last."""
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self._has_read_all.wait()

    async def _close_gently(self) -> None:
        """Finish writing, and read on until the peer closes: closing over unread bytes would destroy sent ones."""
        with trio.move_on_after(CLOSE_TIMEOUT):
            try:
                if isinstance(self._transport, trio.abc.HalfCloseableStream):
                    await self._transport.send_eof()
                    await self._has_read_all.wait()
                else:
                    await self._transport.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return

    def output_ready(self) -> None:
        """Wake the writer."""
        self._has_output.set()

    def session_ended(self) -> None:
        """Wake the writer, which sees to the rest."""
        self._has_output.set()

    def abort(self) -> None:
        """End both tasks; the transport is closed on the way."""
        self._tasks.cancel()

    async def aclose(self) -> None:
        """Wait for the writer."""
        try:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self._is_closed.wait()
        finally:
            self.abort()


def _cut(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + TASK_WRITE_SIZE] for start in range(0, len(data), TASK_WRITE_SIZE)]


def _lost(error: Exception) -> str:
    reason = error.__cause__ or error
    return f"the connection to the peer was lost: {reason}" if str(reason) else "the connection to the peer was lost"


class BoardDriver(Endpoint):
    """A session's own socket on the switchboard: all frames of a batch leave in one write."""

    __slots__ = ("_closed", "_has_read_all", "_is_broken", "_is_draining", "_is_flushing", "_output", "_session")

    def __init__(self, board: Switchboard, sock: socket.socket, session: "Session") -> None:
        super().__init__(board, sock)
        self._session = session
        self._output: list[bytes | memoryview] = []
        self._closed = trio.Event()
        self._is_draining = False
        self._has_read_all = False
        self._is_broken = False
        self._is_flushing = False
        _tune(sock)
        session.attach(self)
        board.add(sock, self)

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
        self._session.fail(f"the connection to the peer was lost: {error.strerror}")
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
        if self._output and not self._session.is_closed and (sent or not self.deadline_slot):
            self.board.set_deadline(self, STALL_TIMEOUT)

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
            pass
        except OSError as error:
            self.broken(error)
        self._output = output[position:]
        return total

    def _all_sent(self) -> None:
        if self._session.is_closed:
            if not self._is_draining:
                self._is_draining = True
                self.send_eof()
                if self._has_read_all:
                    self.close()
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
        if self._output and not self._session.is_closed and self._send_output():
            # A slow peer may take bytes for long before the kernel says that there is room.
            self.board.set_deadline(self, STALL_TIMEOUT)
            self.output_ready()
            return
        self._session.fail(f"the peer took no bytes for {STALL_TIMEOUT:.0f} seconds")
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
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self._closed.wait()
        finally:
            self.abort()


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LIMIT)
