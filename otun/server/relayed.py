"""Visitors who are relayed as bytes: of raw TCP, of TLS that passes through, and after an upgrade."""

import socket
import sys
from typing import Final, Protocol

from ..addresses import TcpAddress
from ..http.pages import Page
from ..mux import Patch, PatchOwner, Session
from ..mux.patch import HALF_CLOSED_TIMEOUT
from ..switchboard import Endpoint, Switchboard
from ..switchboard.board import BYTES_PER_CALL
from ..yamux import YamuxStream
from .bans import Barrable
from .registry import Registration
from .stream_header import stream_header

STREAM_TIMEOUT: Final = 10.0
"""Seconds in which a visitor's stream must be open."""


class VisitorPatch(Patch, Barrable):
    """A visitor's connection and its stream, joined for good."""

    __slots__ = ("_origins", "_registration")

    def __init__(
        self,
        board: Switchboard,
        sock: socket.socket,
        owner: PatchOwner,
        registration: Registration,
        *,
        origins: tuple[str, ...],
        unread: bytes = b"",
    ) -> None:
        super().__init__(board, sock, owner, unread=unread)
        self._registration = registration
        self._origins = origins

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the visitor comes from."""
        return self._origins

    @property
    def stream(self) -> YamuxStream:
        """The other end."""
        return self._stream

    def attach(self, stream: YamuxStream) -> None:
        """Name the other end, which counts for the tunnel from now on."""
        super().attach(stream)
        self._registration.stream_opened(self)

    def pull(self, budget: int = BYTES_PER_CALL) -> None:
        """Move what the visitor has sent, when its turn has come."""
        throttle = self._registration.throttle
        if throttle is None:
            Patch.pull(self)
        elif size := throttle.turn(self):
            before = self.moved
            Patch.pull(self, min(size, budget))
            throttle.passed(self.moved - before)
        else:
            self._stream.decline()

    def take_turn(self) -> bool:
        """It has come."""
        before = self.moved
        self.pull()
        return self.moved > before and not self.is_closed and (self.has_more or bool(self._unread))

    def _move_rest(self, budget: int = sys.maxsize) -> None:
        throttle = self._registration.throttle
        if throttle is None:
            super()._move_rest(budget)
            return
        # A reset is no way around the limits: what would have to wait is lost.
        while size := throttle.turn(self):
            before = self.moved
            super()._move_rest(size)
            throttle.passed(self.moved - before)
            if self.moved - before < size:
                return

    def cut(self, page: Page) -> None:
        """End the connection: it has no place for a page."""
        self.abort()

    def retire(self) -> None:
        """The connection, as a whole, is under way."""

    def deadline_passed(self) -> None:
        """Give up, but not because the tunnel has had to pause."""
        throttle = self._registration.throttle
        if throttle is not None and (throttle.is_waiting(self) or throttle.is_waiting(self._stream.handler)):
            self.board.set_deadline(self, HALF_CLOSED_TIMEOUT)
        else:
            super().deadline_passed()

    def _leave(self) -> None:
        self._registration.stream_over(self)
        if self._registration.throttle is not None:
            self._registration.throttle.withdraw(self)
        super()._leave()


class RelayedVisitor(Endpoint, Barrable):
    """A visitor whose stream is not open yet.  Nothing is read before; *unread* was.

    It counts as one of the registration's streams.
    """

    __slots__ = ("_owner", "_peer", "_registration", "_unread")

    def __init__(
        self,
        board: Switchboard,
        sock: socket.socket,
        owner: "RelayOwner",
        registration: Registration,
        peer: TcpAddress,
        *,
        unread: bytes = b"",
    ) -> None:
        super().__init__(board, sock)
        self._owner = owner
        self._registration = registration
        self._peer = peer
        self._unread = unread
        registration.streams += 1

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the visitor comes from."""
        return (self._peer.host,)

    def start(self) -> None:
        """Take a new connection."""
        self.board.add(self.sock, self)
        self._begin()

    def take_over(self, other: Endpoint) -> None:
        """Take a connection that somebody else has looked at."""
        super().take_over(other)
        self._begin()

    def _begin(self) -> None:
        self.board.set_deadline(self, STREAM_TIMEOUT)
        self._find_stream()

    def _find_stream(self) -> None:
        """Get one, of another member of the group if need be."""
        registration, route = self._registration, self._registration.route
        others = route.others(registration) if route is not None else []
        if not any(map(self._reaches, (registration, *others))):
            self.abort()

    def _reaches(self, registration: Registration) -> bool:
        self._registration.streams -= 1
        self._registration = registration
        registration.streams += 1
        return registration.session.open_soon(self)

    def slot_granted(self, session: Session) -> None:
        """Open the stream, and let a patch take over."""
        registration = self._registration
        patch = VisitorPatch(
            self.board, self.sock, self._owner, registration, origins=self.origins, unread=self._unread
        )
        stream = session.open_core(patch)
        patch.attach(stream)
        patch.take_over(self)
        self.leave()
        if registration.has_stream_header:
            stream.send_data(stream_header(registration.tunnel_id, self._peer, self.sock))
        patch.pull()

    def connection_lost(self) -> None:
        """The tunnel's session ended before the stream was open: nothing has been sent to it."""
        self._find_stream()

    def broken(self, error: OSError) -> None:
        """The visitor has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection."""
        if not self.is_closed:
            self._registration.session.forget_opener(self)
            super().close(with_reset=with_reset)
            self._registration.streams -= 1
            self._owner.visitor_left()


class RelayOwner(PatchOwner, Protocol):
    """The port that relayed visitors come to."""

    def visitor_left(self) -> None:
        """A visitor has left before its stream was open."""
