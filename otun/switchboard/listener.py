"""A listening socket on the board."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

from .board import Switchboard

logger: logging.Logger = logging.getLogger(__name__)

ACCEPTS_PER_CALL: Final = 64
"""Connections taken in one call, before the members that have bytes to move get their turn."""

MAX_QUEUED: Final = 65_536
"""Connections taken when listening ends: others may come all the time, but the kernel queues no more."""

RETRY_DELAY: Final = 0.1
"""Seconds to wait when the system has no descriptor or memory left for another connection."""

REPORT_INTERVAL: Final = 1.0
"""Seconds between two lines in the log about that, of all listeners together: during a flood, shortages come and go."""

_BROKEN_CONNECTION: Final = {
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.ETIMEDOUT,
    getattr(errno, "ENONET", errno.ENETDOWN),  # Linux
}
"""One connection broke before it was accepted; the others are sound (accept(2), "Error handling")."""


class Listener:
    """Calls *accepted* with each new connection, as a non-blocking socket.  TCP_NODELAY is inherited from *sock*."""

    def __init__(self, board: Switchboard, sock: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
        self.deadline_slot = 0
        self._board = board
        self._sock = sock
        self._accepted = accepted
        self._is_failing = False
        self._is_paused = False
        sock.setblocking(False)
        board.add(sock, self, is_listening=True)

    def __repr__(self) -> str:
        return f"<Listener {self._sock.fileno()}>"

    def ready(self, events: int) -> None:
        """Accept what is queued, some at a time."""
        if not self._is_paused and self._accept(ACCEPTS_PER_CALL):
            self._board.call_again(self)

    def finish(self) -> None:
        """Accept what is queued, and stop listening: closed unaccepted, those connections would be reset."""
        if not self._is_paused:
            self._accept(MAX_QUEUED)
        self.abort()

    def _accept(self, limit: int) -> bool:
        """Accept at most so many connections, and return whether there may be more."""
        for _ in range(limit):
            try:
                sock, _address = self._sock.accept()
            except BlockingIOError:
                self._board.emptied(self._sock)
                return False
            except OSError as error:
                if error.errno in _BROKEN_CONNECTION:
                    continue
                # Most likely out of descriptors.  No new edge comes for what is queued already: look again later.
                self._report(error)
                self._board.set_deadline(self, RETRY_DELAY)
                return False
            self._is_failing = False
            sock.setblocking(False)
            try:
                self._accepted(sock)
            except Exception:
                logger.exception("a connection could not be taken")
                sock.close()
        return True

    def pause(self) -> None:
        """Leave connections in the system's queue from now on."""
        self._is_paused = True

    def resume(self) -> None:
        """Accept again, first those that have been queued."""
        self._is_paused = False
        self._board.call_again(self)

    def _report(self, error: OSError) -> None:
        if not self._is_failing and self._board.now >= self._board.shortage_reported + REPORT_INTERVAL:
            self._is_failing = True
            self._board.shortage_reported = self._board.now
            logger.error("cannot accept connections: %s; trying again every %s s", error.strerror, RETRY_DELAY)

    def deadline_passed(self) -> None:
        """Try again after a shortage."""
        self.ready(0)

    def flush(self) -> None:
        """Nothing is put off."""

    def abort(self) -> None:
        """Stop listening."""
        self.pause()  # The board may be about to call it again.
        self._board.clear_deadline(self)
        self._board.close_listening(self._sock)
