"""Visitors whose connection speaks another protocol than HTTP now, such as WebSocket."""

import socket

from ..mux import Patch, PatchOwner
from ..switchboard import Switchboard
from .registry import Registration


class UpgradedPatch(Patch):
    """A visitor's connection and its stream, joined for good."""

    __slots__ = ("_registration",)

    def __init__(
        self, board: Switchboard, sock: socket.socket, owner: PatchOwner, registration: Registration, *, unread: bytes
    ) -> None:
        super().__init__(board, sock, owner, unread=unread)
        self._registration = registration

    def _leave(self) -> None:
        self._registration.streams -= 1
        super()._leave()
