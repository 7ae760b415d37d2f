"""An endpoint whose time limit changes with what it is busy with."""

import math
import socket

from .board import Switchboard
from .endpoint import Endpoint


class PhasedEndpoint(Endpoint):
    """A socket with a limit for its present phase, which may change several times a request.

    The board is told only when it must wake the endpoint earlier than it would; what comes too early is put off.
    """

    __slots__ = ("_due", "_wakes_at")

    def __init__(self, board: Switchboard, sock: socket.socket) -> None:
        super().__init__(board, sock)
        self._due = math.inf
        self._wakes_at = math.inf

    def limit(self, seconds: float) -> None:
        """Give the present phase so much time from now on, whatever the last one had."""
        self._due = self.board.now + seconds
        if self._due < self._wakes_at:
            self._wakes_at = self._due
            self.board.set_deadline(self, seconds)

    def deadline_passed(self) -> None:
        """Look whether the phase's time is really over."""
        left = self._due - self.board.now
        self._wakes_at = math.inf
        if left > 0:
            self.limit(left)
        else:
            self.time_is_over()

    def time_is_over(self) -> None:
        """For subclasses: the present phase has taken too long."""
        self.abort()
