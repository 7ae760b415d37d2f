"""The handshake of a `TlsSocket`: on the switchboard, by the member that owns it meanwhile, or in a task."""

import errno
from collections.abc import Callable

import trio

from .board import Switchboard
from .endpoint import Endpoint, LingeringClose
from .tls_socket import TlsSocket


class TlsHandshake(Endpoint):
    """The member that owns a `TlsSocket` during its handshake, in the place of the one that owned the plain socket.

    Then *established* gets the socket, still on the board, or *failed* the reason why it is being closed: None if that
    was the board's end.  In that case *closed* is called, too, when nothing is left of it.
    """

    __slots__ = ("_closed", "_established", "_failed", "_tls_sock")

    def __init__(
        self,
        board: Switchboard,
        sock: TlsSocket,
        *,
        timeout: float,
        established: Callable[[TlsSocket], None],
        failed: Callable[[OSError | None], None],
        closed: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(board, sock)
        self._tls_sock = sock
        self._established = established
        self._failed = failed
        self._closed = closed
        board.replace(sock, self)
        board.set_deadline(self, timeout)
        self.pull()

    def ready(self, events: int) -> None:
        """Go on, whatever it waited for."""
        if not self.is_closed:
            self.pull()

    def pull(self) -> None:
        """Take the next steps."""
        sock = self._tls_sock
        try:
            sock.handshake()
        except BlockingIOError:
            self.board.emptied(sock)
            if sock.is_backlogged:
                self.board.filled(sock)
        except OSError as error:
            self.broken(error)
        else:
            self.leave()
            self._established(sock)

    def deadline_passed(self) -> None:
        """The peer is too slow."""
        self.broken(OSError(errno.ETIMEDOUT, "the handshake took too long"))

    def broken(self, error: OSError) -> None:
        """Tell the peer what is wrong, if TLS has words for it."""
        self.leave()
        sock, last_bytes = self._tls_sock.to_plain()
        self._failed(error)
        LingeringClose(self.board, sock, last_bytes, on_close=self._closed)

    def close(self, *, with_reset: bool = False) -> None:
        """End without a word: the board ends."""
        if not self.is_closed:
            super().close(with_reset=with_reset)
            self._failed(None)
            if self._closed is not None:
                self._closed()


async def shake_hands(sock: TlsSocket) -> None:
    """Do the whole handshake.  Raises `OSError`.  Cancelled, *sock* can only be closed."""
    await trio.lowlevel.checkpoint()
    while True:
        try:
            sock.handshake()
        except BlockingIOError:
            if sock.is_backlogged:
                await trio.lowlevel.wait_writable(sock)
            else:
                await trio.lowlevel.wait_readable(sock)
        else:
            return
