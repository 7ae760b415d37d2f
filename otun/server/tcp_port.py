"""Raw TCP tunnels: a port for each, whose visitors are relayed as bytes."""

import errno
import logging
import random
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..addresses import TcpAddress
from ..mux import Patch
from ..switchboard import Listener, Switchboard
from .absence import Hold
from .admission import Refused, refuse
from .attendance import Attendance
from .bans import Bans
from .listening import listen_on_all, peer_or_close
from .registry import Registration, Route
from .relayed import RelayedVisitor
from .visitor_access import admits_address

logger: logging.Logger = logging.getLogger(__name__)

_BIND_ATTEMPTS: Final = 64
"""Ports to try for a client that wants any: other programs may have some of them."""


class TcpPorts:
    """The ports that clients may have: those of *ranges*, on the addresses of the public port.

    Those whose clients are away stay open for as long as *hold*, and accept nobody.
    """

    def __init__(
        self,
        ranges: Sequence[range],
        addresses: Iterable[TcpAddress],
        board: Switchboard,
        bans: Bans,
        *,
        max_streams: int,
        hold: Hold,
    ) -> None:
        self._ranges = ranges
        self._places = [
            (socket.AF_INET6 if ":" in address.host else socket.AF_INET, address.host) for address in addresses
        ]
        self._board = board
        self.bans: Bans = bans
        self.max_streams: int = max_streams
        self._hold = hold
        self._tunnels: dict[int, TcpTunnel] = {}  # By port.
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
        """Have *port* lead to *registration*, too, if others share it.  Raises `otun.server.admission.Refused`.

        Those who wait there for a client that is away wait for this one, if it is the same client; if it is not, they
        are cut off.
        """
        tunnel = self._tunnels.get(port)
        if tunnel is not None and (tunnel.is_left_to(registration.keeper) or tunnel.is_shared_with(registration)):
            tunnel.join(registration)
            return tunnel
        if tunnel is not None and not tunnel.route.members:
            tunnel.end()
        return self._open(registration, port, self._listen(port))

    def open_any(self, registration: Registration, ports: Sequence[int]) -> "TcpTunnel":
        """Have one of *ports* that is free lead to *registration*; if there is none, one that is kept.

        If its keeper keeps none, that is somebody else's.  Raises `otun.server.admission.Refused`.
        """
        try:
            return self._open(registration, *self._listen_on_one(ports))
        except Refused:
            kept = [port for port in ports if port in self._tunnels and not self._tunnels[port].route.members]
            if not kept:
                raise
        own = (port for port in kept if self._tunnels[port].is_left_to(registration.keeper))
        return self.open(registration, next(own, kept[0]))

    def expect(self, port: int, *, keeper: str, sockets: Sequence[socket.socket] = ()) -> None:
        """Expect a tunnel of *keeper*'s on *port*: it was there before the server started.

        *sockets* listen there already, and are closed if it does not come; without them, new ones listen if they can.
        """
        if port in self._tunnels or not any(port in ports for ports in self._ranges):
            for sock in sockets:
                sock.close()
            return
        try:
            sockets = sockets or listen_on_all(self._places, port)
        except OSError as error:
            logger.debug("port %d cannot be had: %s", port, error)
            return
        self._new(port, keeper, sockets).expect()

    def _open(self, registration: Registration, port: int, sockets: Sequence[socket.socket]) -> "TcpTunnel":
        tunnel = self._new(port, registration.keeper, sockets)
        tunnel.join(registration)
        return tunnel

    def _new(self, port: int, keeper: str, sockets: Sequence[socket.socket]) -> "TcpTunnel":
        tunnel = self._tunnels[port] = TcpTunnel(self, port, keeper, sockets, self._board, self._hold)
        return tunnel

    def _listen(self, port: int) -> list[socket.socket]:
        try:
            if port in self._tunnels:
                raise OSError(errno.EADDRINUSE, "taken by another tunnel")
            return listen_on_all(self._places, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise refuse(f"port {port} is already in use", "port_taken", retryable=True) from error
            raise refuse(f"port {port} cannot be had: {error.strerror}", "port_not_allowed") from error

    def _listen_on_one(self, ports: Iterable[int]) -> tuple[int, list[socket.socket]]:
        free = [port for port in ports if port not in self._tunnels]
        for port in random.sample(free, min(len(free), _BIND_ATTEMPTS)):
            try:
                return port, listen_on_all(self._places, port)
            except OSError as error:
                logger.debug("port %d cannot be had: %s", port, error)
        raise refuse("no port is free for another TCP tunnel", "no_port_free", retryable=True)

    def __iter__(self) -> Iterator["TcpTunnel"]:
        return iter(self._tunnels.values())

    def drain(self) -> None:
        """Let nobody else in."""
        for tunnel in self._tunnels.values():
            tunnel.drain()

    def freed(self, port: int) -> None:
        """A tunnel does not need *port* any more."""
        del self._tunnels[port]


class TcpTunnel:
    """A port that leads to one client, or to those of a group, or is kept for the one of *keeper* that is away.

    It accepts nobody at first.
    """

    def __init__(
        self,
        ports: TcpPorts,
        port: int,
        keeper: str,
        sockets: Sequence[socket.socket],
        board: Switchboard,
        hold: Hold,
    ) -> None:
        self._ports = ports
        self.port: int = port
        self.route: Route = Route(keeper=keeper)
        self.board = board
        self._hold = hold
        self.sockets: Sequence[socket.socket] = sockets
        self._listeners = [Listener(board, sock, self._visitor_connected) for sock in sockets]
        self._pause()

    def is_left_to(self, keeper: str) -> bool:
        """Whether its client is away, and *keeper* may come back to it."""
        return not self.route.members and self.route.keeper == keeper

    def is_shared_with(self, registration: Registration) -> bool:
        """Whether there are others here whose group *registration* is in."""
        return bool(self.route.members) and self.route.is_group_of(registration)

    def join(self, registration: Registration) -> None:
        """Accept visitors for *registration*, first those who have waited."""
        if not self.route.members:
            self.route.rules = registration.rules
        self.route.join(registration)
        for listener in self._listeners:
            listener.resume()

    def _visitor_connected(self, sock: socket.socket) -> None:
        registration = self.route.choose()
        if registration is None or registration.streams >= self._ports.max_streams:
            sock.close()
            return
        peer = peer_or_close(sock)
        if peer is None:
            return
        if self._ports.bans.turns_away(peer) or not admits_address(registration, peer.host):
            sock.close()
            return
        if not registration.admits_connection():
            sock.close()
            return
        self._ports.attendance.come()
        RelayedVisitor(self.board, sock, self, registration, peer).start()

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

    def close(self, registration: Registration) -> None:
        """Free the port.  The visitors that are there stay for as long as their streams do."""
        self.route.members.remove(registration)
        if not self.route.members:
            self.end()

    def lose(self, registration: Registration) -> None:
        """The client is away: have visitors wait in the system's queue."""
        self.route.members.remove(registration)
        if not self.route.members:
            self._pause()
            self.expect()

    def expect(self) -> None:
        """Wait for the client, if that is wanted, or else free the port."""
        if self.route.look_for_absence(self._hold, self.end) is None:
            self.end()

    def end(self) -> None:
        """Free the port; those who wait are cut off."""
        for listener in self._listeners:
            listener.abort()
        self.route.end_absence(in_vain=True)
        self._ports.freed(self.port)

    def _pause(self) -> None:
        for listener in self._listeners:
            listener.pause()
