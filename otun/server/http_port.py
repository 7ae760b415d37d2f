"""The HTTP port: visitors' connections, on the switchboard; also what all kinds of visitors have in common."""

import socket
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress
from ..http import pages
from ..http.forwarding import Network, is_in_networks
from ..mux import Patch
from ..switchboard import Endpoint, LingeringClose, Switchboard
from .attendance import Attendance
from .bans import Bans
from .listening import peer_or_close
from .proxied import ProxiedVisitor
from .redirects import Redirects
from .registry import Registry
from .reports import Reports
from .settings import HttpTimeouts, ServerSettings
from .visitor import Visitor
from .visitor_access import VisitorAccess

MAX_TURNED_AWAY: Final = 1024
"""Connections beyond the limit that are told so; still more are closed without a word."""


DRAINING_IDLE: Final = 2.0
"""Seconds for which a connection without a request is kept when the server is about to end: one may be on its way."""


class HttpPort:
    """Takes visitors' connections."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: Registry,
        board: Switchboard,
        redirects: Redirects | None,
        background: trio.Nursery,
        bans: Bans,
    ) -> None:
        self.registry = registry
        self.bans: Bans = bans
        self.redirects: Redirects | None = redirects
        self.reports = Reports(trio.current_time, called="visitor")
        self.hsts: bytes
        self.board = board
        self.timeouts: HttpTimeouts
        self.max_streams: int
        self._max_connections: int
        self._trusted: tuple[Network, ...]
        self.apply(settings)
        self.is_draining: bool = False
        self._attendance = Attendance()
        self.access: VisitorAccess = VisitorAccess(registry, board, background, trusts=self.trusts)

    def apply(self, settings: ServerSettings) -> None:
        """Put *settings* into force, for visitors who are there as well."""
        self.hsts = b"" if settings.hsts is None else b"Strict-Transport-Security: max-age=%d\r\n" % settings.hsts
        self.timeouts = settings.timeouts
        self.max_streams = settings.max_streams
        self._max_connections = settings.max_connections
        self._trusted = settings.trusted_proxies

    def visitor_connected(self, sock: socket.socket, peer: TcpAddress | None = None) -> None:
        """Take a new connection, or turn it away; it is from *peer*, if it cannot tell itself."""
        peer = self.admit(sock, peer)
        if peer is None:
            return
        if self.trusts(peer.host):
            ProxiedVisitor(self, sock, peer, self._take_over)
        else:
            Visitor(self, sock, peer).start()

    def _take_over(self, other: Endpoint, peer: TcpAddress, received: bytes) -> None:
        Visitor(self, other.sock, peer, unread=received).take_over(other)

    def admit(
        self, sock: socket.socket, peer: TcpAddress | None = None, *, speaks_http: bool = True
    ) -> TcpAddress | None:
        """Count a new connection and return where it comes from; None if it is turned away, or has gone already."""
        if self.visitors >= self._max_connections:
            self._turn_away(sock, speaks_http=speaks_http)
            return None
        peer = peer or peer_or_close(sock)
        if peer is None:
            return None
        if self.bans.turns_away(peer):
            sock.close()
            return None
        self._attendance.come()
        return peer

    def _turn_away(self, sock: socket.socket, *, speaks_http: bool) -> None:
        if not speaks_http or len(self.board) >= self._max_connections + MAX_TURNED_AWAY:
            sock.close()
            return
        LingeringClose(self.board, sock, pages.server_full().write(), is_new=True)

    @property
    def visitors(self) -> int:
        """Connections that there are."""
        return self._attendance.present

    def drain(self) -> None:
        """Have each connection end after its next answer; those that are relayed as bytes go on."""
        self.is_draining = True
        self.timeouts = attrs.evolve(self.timeouts, idle=min(self.timeouts.idle, DRAINING_IDLE))
        for member in self.board:
            if isinstance(member, Visitor):
                member.drain()

    async def wait_nobody(self) -> None:
        """Wait until no connection is left."""
        await self._attendance.wait_nobody()

    def visitor_left(self) -> None:
        """A connection has ended."""
        self._attendance.leave()

    def patch_ended(self, patch: Patch) -> None:
        """A connection that was relayed has ended."""
        self._attendance.leave()

    def trusts(self, address: str) -> bool:
        """Whether what the peer at *address* says about others is believed."""
        return is_in_networks(address, self._trusted)
