"""Raw TCP tunnels: a port for each, whose visitors are relayed as bytes."""

import errno
import logging
import random
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from ..addresses import TcpAddress
from ..mux import Patch, Session
from ..switchboard import Endpoint, Listener, Switchboard
from .admission import refuse
from .listening import listen_on_all
from .registry import Registration
from .stream_header import stream_header

logger: logging.Logger = logging.getLogger(__name__)

STREAM_TIMEOUT: Final = 10.0
"""Seconds in which a visitor's stream must be open."""

_BIND_ATTEMPTS: Final = 64
"""Ports to try for a client that wants any: other programs may have some of them."""


class TcpPorts:
    """The ports that clients may have: those of *ranges*, on the addresses of the public port."""

    def __init__(
        self, ranges: Sequence[range], addresses: Iterable[TcpAddress], board: Switchboard, *, max_streams: int
    ) -> None:
        self._ranges = ranges
        self._places = [
            (socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host) for address in addresses
        ]
        self._board = board
        self._max_streams = max_streams
        self._taken: set[int] = set()

    def open(self, registration: Registration, wanted: int | None) -> "TcpTunnel":
        """Listen on the port that is *wanted*, or on any.  Raises `otun.server.admission.Refused`."""
        if not self._ranges:
            raise refuse(
                "this server has no ports for TCP tunnels; its operator can give some with --tcp-ports",
                "port_not_allowed",
            )
        if wanted is None:
            port, sockets = self._listen_anywhere()
        else:
            if not any(wanted in ports for ports in self._ranges):
                raise refuse(f"port {wanted} is not among those for TCP tunnels on this server", "port_not_allowed")
            port, sockets = wanted, self._listen(wanted)
        self._taken.add(port)
        return TcpTunnel(self, registration, port, sockets, self._board, self._max_streams)

    def _listen(self, port: int) -> list[socket.socket]:
        try:
            if port in self._taken:
                raise OSError(errno.EADDRINUSE, "taken by another tunnel")
            return listen_on_all(self._places, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise refuse(f"port {port} is already in use", "port_taken", retryable=True) from error
            raise refuse(f"port {port} cannot be had: {error.strerror}", "port_not_allowed") from error

    def _listen_anywhere(self) -> tuple[int, list[socket.socket]]:
        free = [port for ports in self._ranges for port in ports if port not in self._taken]
        for port in random.sample(free, min(len(free), _BIND_ATTEMPTS)):
            try:
                return port, listen_on_all(self._places, port)
            except OSError as error:
                logger.debug("port %d cannot be had: %s", port, error)
        raise refuse("no port is free for another TCP tunnel", "no_port_free", retryable=True)

    def freed(self, port: int) -> None:
        """A tunnel does not need *port* any more."""
        self._taken.discard(port)


class TcpTunnel:
    """A port that leads to one client."""

    def __init__(
        self,
        ports: TcpPorts,
        registration: Registration,
        port: int,
        sockets: Iterable[socket.socket],
        board: Switchboard,
        max_streams: int,
    ) -> None:
        self._ports = ports
        self.registration = registration
        self.port: int = port
        self.board = board
        self._max_streams = max_streams
        self._listeners = [Listener(board, sock, self._visitor_connected) for sock in sockets]

    def _visitor_connected(self, sock: socket.socket) -> None:
        if self.registration.streams >= self._max_streams:
            sock.close()
        else:
            self.registration.streams += 1
            TcpVisitor(self, sock)

    def patch_ended(self, patch: Patch) -> None:
        """A visitor has left."""
        self.registration.streams -= 1

    def close(self) -> None:
        """Free the port.  The visitors that are there stay for as long as their streams do."""
        for listener in self._listeners:
            listener.abort()
        self._ports.freed(self.port)


class TcpVisitor(Endpoint):
    """A visitor whose stream is not open yet.  Nothing is read before."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: TcpTunnel, sock: socket.socket) -> None:
        super().__init__(tunnel.board, sock)
        self._tunnel = tunnel
        self.board.add(sock, self)
        self.board.set_deadline(self, STREAM_TIMEOUT)
        if not tunnel.registration.session.open_soon(self):
            self.abort()

    def slot_granted(self, session: Session) -> None:
        """Open the stream, and let a patch take over."""
        registration = self._tunnel.registration
        try:
            peer = TcpAddress(*self.sock.getpeername()[:2])
        except OSError:  # It has gone already.
            self.close()
            return
        patch = Patch(self.board, self.sock, self._tunnel)
        stream = session.open_core(patch)
        patch.attach(stream)
        patch.take_over(self)
        self.leave()
        if registration.has_stream_header:
            stream.send_data(stream_header(registration.tunnel_id, peer, self.sock))
        patch.pull()

    def connection_lost(self) -> None:
        """The tunnel's session ended before the stream was open."""
        self.abort()

    def broken(self, error: OSError) -> None:
        """The visitor has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection."""
        if not self.is_closed:
            self._tunnel.registration.session.forget_opener(self)
            super().close(with_reset=with_reset)
            self._tunnel.registration.streams -= 1
