"""The public port: visitors over HTTP, on the switchboard."""

import socket
from typing import Final

from ..addresses import TcpAddress
from ..http import pages
from ..http.forwarding import is_in_networks
from ..mux import Patch
from ..switchboard import LingeringClose, Switchboard
from .proxied import ProxiedVisitor
from .registry import Registry
from .settings import HttpTimeouts, ServerSettings
from .visitor import Visitor

MAX_TURNED_AWAY: Final = 1024
"""Connections beyond the limit that are told so; still more are closed without a word."""


class HttpPort:
    """Takes visitors' connections."""

    def __init__(self, settings: ServerSettings, registry: Registry, board: Switchboard) -> None:
        self.registry = registry
        self.board = board
        self.timeouts: HttpTimeouts = settings.timeouts
        self.max_streams: int = settings.max_streams
        self._max_connections = settings.max_connections
        self._trusted = settings.trusted_proxies
        self._connections = 0

    def visitor_connected(self, sock: socket.socket) -> None:
        """Take a new connection, or turn it away."""
        if self._connections >= self._max_connections:
            self._turn_away(sock)
            return
        try:
            peer = TcpAddress(*sock.getpeername()[:2])
        except OSError:  # It has gone already.
            sock.close()
            return
        self._connections += 1
        if self.trusts(peer.host):
            ProxiedVisitor(self, sock, peer)
        else:
            Visitor(self, sock, peer).start()

    def _turn_away(self, sock: socket.socket) -> None:
        if len(self.board) >= self._max_connections + MAX_TURNED_AWAY:
            sock.close()
            return
        LingeringClose(self.board, sock, pages.server_full().write(), is_new=True)

    def visitor_left(self) -> None:
        """A connection has ended."""
        self._connections -= 1

    def patch_ended(self, patch: Patch) -> None:
        """A connection that had been upgraded has ended."""
        self._connections -= 1

    def trusts(self, address: str) -> bool:
        """Whether what the peer at *address* says about others is believed."""
        return is_in_networks(address, self._trusted)
