"""A non-blocking socket on the board: what it still has to send, half-close, errors."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

import trio

from .board import BYTES_PER_CALL, FAILED, HUNG_UP, READABLE, WRITABLE, Switchboard

READ_SIZE: Final = 256 * 1024
"""Bytes asked for in one read."""

LINGER_TIMEOUT: Final = 5.0
"""Seconds for which a `LingeringClose` goes on reading what nobody wants."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


def abort_socket(sock: socket.socket | trio.socket.SocketType) -> None:
    """Make the coming close send RST: the other side sees that what it got was cut short."""
    with contextlib.suppress(OSError):  # Not a TCP socket, or already gone: then there is nobody to tell.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def unsent_bytes(sock: socket.socket | trio.socket.SocketType | None) -> int:
    """Return how many bytes the kernel still holds for the other side of *sock*; 0 where that is not known (Linux)."""
    if sock is None or not sys.platform.startswith("linux"):
        return 0
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def os_error(code: int) -> OSError:
    """Return the exception that stands for a system's error code."""
    return OSError(code, os.strerror(code))


class EncryptedSocket(socket.socket):
    """A socket that holds bytes back which the kernel has handed over.  *has_more* tells so after a read."""

    __slots__ = ("has_more",)

    has_more: bool


class Endpoint:
    """A member that owns one socket.

    Subclasses say what happens with bytes: `pull` when there may be some to read, `drained` when kept ones have left,
    `broken` when the socket fails.  Sending never waits: what the socket refuses is copied into `unsent`, whose bound
    is the subclass's concern (a stream's window, a page's size).
    """

    __slots__ = (
        "board",
        "deadline_slot",
        "has_hung_up",
        "has_more",
        "is_closed",
        "is_connecting",
        "is_ending",
        "is_finished",
        "sock",
        "unsent",
    )

    def __init__(self, board: Switchboard, sock: socket.socket, *, is_connecting: bool = False) -> None:
        self.board: Switchboard = board
        self.sock: socket.socket = sock
        self.unsent: bytearray | None = None
        self.deadline_slot: int = 0
        self.is_connecting: bool = is_connecting
        self.is_closed: bool = False
        self.is_ending: bool = False  # Writing is to be shut down once everything has left …
        self.is_finished: bool = False  # … and has been.
        self.has_more: bool = True  # The socket may have bytes that no event will announce again.
        # The other side has finished, or the board cannot tell whether it has: read on until it shows, or EAGAIN.
        self.has_hung_up: bool = board.is_level_triggered

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "connecting" if self.is_connecting else "open"
        return f"<{type(self).__name__} {self.sock.fileno()} {state}>"

    # For subclasses to fill in

    def pull(self) -> None:
        """Read, if anybody wants the bytes; otherwise leave `has_more` set and come back."""

    def drained(self, size: int) -> None:
        """*size* bytes of `unsent` have left."""

    def finished(self) -> None:
        """Everything has left, and writing is shut down."""

    def connected(self) -> None:
        """The connection that was being made stands."""

    def broken(self, error: OSError) -> None:
        """The socket has failed; it must be closed."""

    def abort(self) -> None:
        """Close at once, so that the other side notices."""
        self.close(with_reset=True)

    def flush(self) -> None:
        """Nothing is put off to the end of a batch here."""

    def deadline_passed(self) -> None:
        """A time limit was reached."""
        self.abort()

    # What the board calls

    def ready(self, events: int) -> None:
        """Look at what the socket can do now."""
        if self.is_closed:
            return
        if self.is_connecting and not self._finish_connecting(events):
            return
        if events & FAILED and self._has_failed():
            return
        if events & WRITABLE and (self.unsent or self.is_ending):
            self._send_unsent()
        if events & READABLE or not events:
            self.has_more = True
            if events & HUNG_UP:
                self.has_hung_up = True
            if not self.is_closed:
                self.pull()

    def _has_failed(self) -> bool:
        """Find out about a reset at once, even while nobody wants to read what may stand before it."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.broken(os_error(code))
        return bool(code)

    def _finish_connecting(self, events: int) -> bool:
        if not self._has_reached_it(events):
            return False
        self.is_connecting = False
        self.connected()
        return not self.is_closed

    def _has_reached_it(self, events: int) -> bool:
        if not events:
            return False  # Nothing happens to a socket before it has connected, or failed to.
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.broken(os_error(code))
        return not code

    # Verbs

    def receive(self, limit: int) -> bytes | None:
        """Read at most *limit* bytes.  b"" is the end; None means nothing now (an event will follow), or `broken`."""
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            self.has_more = False
            self.board.emptied(self.sock)
            return None
        except OSError as error:
            self.broken(error)
            return None
        if len(data) < limit and not self.has_hung_up:
            # A short read has emptied the socket, unless the end stands behind it.
            self.has_more = isinstance(self.sock, EncryptedSocket) and self.sock.has_more
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send *data*; what the socket does not take is kept.  Return how much has left; 0 after `broken`, too."""
        sent = 0
        if not self.unsent and not self.is_connecting:
            try:
                sent = self.sock.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self.broken(error)
                return 0
            if sent == len(data):
                return sent
            self.board.filled(self.sock)
        if self.unsent is None:
            self.unsent = bytearray()
        self.unsent += data[sent:]
        return sent

    def send_eof(self) -> None:
        """Shut down writing once everything has left."""
        self.is_ending = True
        if not self.unsent and not self.is_connecting:
            self._finish()

    def _send_unsent(self) -> None:
        unsent = self.unsent
        total = 0
        while unsent:
            try:
                with memoryview(unsent) as view:
                    sent = self.sock.send(view)
            except BlockingIOError:
                self.board.filled(self.sock)
                break
            except OSError as error:
                self.broken(error)
                return
            del unsent[:sent]
            total += sent
        if not unsent:
            self.unsent = None  # Gives the memory back.
        if total:
            self.drained(total)
        if self.is_ending and not self.unsent and not self.is_closed:
            self._finish()

    def _finish(self) -> None:
        if not self.is_finished:
            self.is_finished = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except BlockingIOError:  # TLS has something to say before.
                self.is_finished = False
                self.board.filled(self.sock)
                return
            except OSError as error:
                self.broken(error)
                return
            self.finished()

    def leave(self) -> None:
        """Leave the socket to another member; no call comes after this."""
        self.is_closed = True
        self.board.clear_deadline(self)

    def take_over(self, other: "Endpoint") -> None:
        """Go on for the socket's last owner, who leaves it, with what that one has not sent or read yet."""
        self.has_more, self.has_hung_up = other.has_more, other.has_hung_up
        self.unsent, other.unsent = other.unsent, None
        self.board.replace(self.sock, self)

    def close(self, *, with_reset: bool = False) -> None:
        """Close the socket; no call comes after this.  *with_reset* makes what was cut short look cut short."""
        if self.is_closed:
            return
        self.is_closed = True
        self.unsent = None
        self.board.clear_deadline(self)
        if with_reset:
            abort_socket(self.sock)
        self.board.close(self.sock)


class LingeringClose(Endpoint):
    """Takes a socket over, sends some last bytes, and reads what still comes, unseen, until the other side closes.

    The socket is on the board, unless it *is_new*.  *on_close* is called when it has been closed.

    Closing at once would send RST if anything was unread, and the other side's system then throws away what it has
    received but not shown yet: the last bytes would be lost.
    """

    __slots__ = ("_on_close",)

    def __init__(
        self,
        board: Switchboard,
        sock: socket.socket,
        last_bytes: bytes,
        *,
        is_new: bool = False,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(board, sock)
        self._on_close = on_close
        if is_new:
            board.add(sock, self)
        else:
            board.replace(sock, self)
        board.set_deadline(self, LINGER_TIMEOUT)
        if last_bytes:
            self.send(last_bytes)
        if not self.is_closed:
            self.send_eof()
        if not self.is_closed:
            self.pull()

    def pull(self) -> None:
        """Throw away what comes."""
        for _ in range(BYTES_PER_CALL // READ_SIZE):
            data = self.receive(READ_SIZE)
            if data is None:
                return
            if not data:
                self.close()
                return
            if not self.has_more:
                return
        self.board.call_again(self)

    def drained(self, size: int) -> None:
        """The other side reads, if slowly."""
        self.board.set_deadline(self, LINGER_TIMEOUT)

    def broken(self, error: OSError) -> None:
        """The other side has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close, and say so."""
        if not self.is_closed:
            super().close(with_reset=with_reset)
            if self._on_close is not None:
                self._on_close()
