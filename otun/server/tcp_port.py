"""Raw TCP tunnels: a port for each, whose visitors are relayed as bytes."""

import errno
import logging
import random
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final

import trio

from ..addresses import TcpAddress
from ..mux import Patch
from ..switchboard import Listener, Switchboard
from .admission import refuse
from .attendance import Attendance
from .bans import Bans
from .listening import listen_on_all, peer_or_close
from .registry import Registration
from .relayed import RelayedVisitor
from .visitor_access import admits_address

logger: logging.Logger = logging.getLogger(__name__)

_BIND_ATTEMPTS: Final = 64
"""Ports to try for a client that wants any: other programs may have some of them."""

UNCLAIMED_LIMIT: Final = 60.0
"""Seconds in which clients must come back for the ports that they had with a server before this one."""


class TcpPorts:
    """The ports that clients may have: those of *ranges*, on the addresses of the public port.

    On *given* ports, a server before this one has listened; they belong to whoever has them next.
    """

    def __init__(
        self,
        ranges: Sequence[range],
        addresses: Iterable[TcpAddress],
        board: Switchboard,
        bans: Bans,
        *,
        max_streams: int,
        given: Mapping[int, Sequence[socket.socket]] | None = None,
    ) -> None:
        self._ranges = ranges
        self._places = [
            (socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host) for address in addresses
        ]
        self._board = board
        self.bans: Bans = bans
        self.max_streams: int = max_streams
        self._tunnels: dict[int, TcpTunnel] = {}  # By port.
        self._given = dict(given or {})  # Those of a server before this one: visitors wait there for the client.
        self.attendance: Attendance = Attendance()

    def __getitem__(self, port: int) -> "TcpTunnel":
        """Return the tunnel on *port*.  Raises `KeyError`."""
        return self._tunnels[port]

    def __contains__(self, port: object) -> bool:
        return port in self._tunnels

    def change(self, ranges: Sequence[range], *, max_streams: int) -> None:
        """Offer other ports, and let more or fewer visitors in.  Tunnels that are open stay where they are."""
        self._ranges = ranges
        self.max_streams = max_streams

    def check(self, wanted: int | None) -> Sequence[range]:
        """Return the ports that there are, if the one that is *wanted* is among them.

        Raises `otun.server.admission.Refused`.
        """
        if not self._ranges:
            raise refuse(
                "this server has no ports for TCP tunnels; its operator can give some with --tcp-ports",
                "port_not_allowed",
            )
        if wanted is not None and not any(wanted in ports for ports in self._ranges):
            raise refuse(f"port {wanted} is not among those for TCP tunnels on this server", "port_not_allowed")
        return self._ranges

    def open(self, registration: Registration, port: int) -> "TcpTunnel":
        """Listen on *port*.  Raises `otun.server.admission.Refused`."""
        return self._open(registration, port, self._listen(port))

    def open_any(self, registration: Registration, ports: Iterable[int]) -> "TcpTunnel":
        """Listen on one of *ports* that is free.  Raises `otun.server.admission.Refused`."""
        return self._open(registration, *self._listen_on_one(ports))

    def _open(self, registration: Registration, port: int, sockets: list[socket.socket]) -> "TcpTunnel":
        tunnel = self._tunnels[port] = TcpTunnel(self, registration, port, sockets, self._board)
        return tunnel

    def _listen(self, port: int) -> list[socket.socket]:
        try:
            if port in self._tunnels:
                raise OSError(errno.EADDRINUSE, "taken by another tunnel")
            if port in self._given:
                return list(self._given.pop(port))
            return listen_on_all(self._places, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise refuse(f"port {port} is already in use", "port_taken", retryable=True) from error
            raise refuse(f"port {port} cannot be had: {error.strerror}", "port_not_allowed") from error

    def _listen_on_one(self, ports: Iterable[int]) -> tuple[int, list[socket.socket]]:
        free = [port for port in ports if port not in self._tunnels and port not in self._given]
        for port in random.sample(free, min(len(free), _BIND_ATTEMPTS)):
            try:
                return port, listen_on_all(self._places, port)
            except OSError as error:
                logger.debug("port %d cannot be had: %s", port, error)
        raise refuse("no port is free for another TCP tunnel", "no_port_free", retryable=True)

    async def release_unclaimed(self) -> None:
        """Close the ports that were given and nobody has come for, after `UNCLAIMED_LIMIT`."""
        if self._given:
            await trio.sleep(UNCLAIMED_LIMIT)
            self._close_given()

    def _close_given(self) -> None:
        while self._given:
            for sock in self._given.popitem()[1]:
                sock.close()

    def open_ports(self) -> Iterator[int]:
        """Return the ports that have, or had, a tunnel."""
        return chain(self._tunnels, self._given)

    def sockets(self) -> dict[int, Sequence[socket.socket]]:
        """Return what listens on each of those."""
        return {port: tunnel.sockets for port, tunnel in self._tunnels.items()} | self._given

    def drain(self) -> None:
        """Let nobody else in."""
        self._close_given()
        for tunnel in self._tunnels.values():
            tunnel.drain()

    def freed(self, port: int) -> None:
        """A tunnel does not need *port* any more."""
        del self._tunnels[port]


class TcpTunnel:
    """A port that leads to one client."""

    def __init__(
        self,
        ports: TcpPorts,
        registration: Registration,
        port: int,
        sockets: Sequence[socket.socket],
        board: Switchboard,
    ) -> None:
        self._ports = ports
        self.registration = registration
        self.port: int = port
        self.board = board
        self.sockets: Sequence[socket.socket] = sockets
        self._listeners = [Listener(board, sock, self._visitor_connected) for sock in sockets]

    def _visitor_connected(self, sock: socket.socket) -> None:
        if self.registration.streams >= self._ports.max_streams:
            sock.close()
            return
        peer = peer_or_close(sock)
        if peer is None:
            return
        if self._ports.bans.turns_away(peer) or not admits_address(self.registration, peer.host):
            sock.close()
            return
        if not self.registration.admits_connection():
            sock.close()
            return
        self._ports.attendance.come()
        RelayedVisitor(self.board, sock, self, self.registration, peer).start()

    def patch_ended(self, patch: Patch) -> None:
        """A visitor has left."""
        self._ports.attendance.leave()

    def visitor_left(self) -> None:
        """Another one has left, before its stream was open."""
        self._ports.attendance.leave()

    def drain(self) -> None:
        """Let nobody else in.  The visitors that are there stay."""
        for listener in self._listeners:
            listener.finish()
        self._listeners.clear()

    def close(self) -> None:
        """Free the port.  The visitors that are there stay for as long as their streams do."""
        for listener in self._listeners:
            listener.abort()
        self._ports.freed(self.port)
