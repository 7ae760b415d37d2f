"""Visitors who come through a proxy of ours, which may say whom it speaks for."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..addresses import TcpAddress
from ..errors import BadProxyHeader, BadRequest
from ..http import pages
from ..http.pages import Page
from ..proxy_protocol import ProxyHeaderReader
from ..switchboard import Endpoint, LingeringClose
from .visitor import HEAD_READ_SIZE

if TYPE_CHECKING:
    from .http_port import HttpPort

_MARKS = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n")  # How headers of version 1 and 2 begin; no request begins so.


class ProxiedVisitor(Endpoint):
    """A connection from a trusted proxy until it is known whether it begins with a PROXY header.

    Then *take_over* gets it, with the address of whom the proxy speaks for, and what was read behind the header.
    """

    __slots__ = ("_peer", "_port", "_reader", "_received", "_speaks_http", "_take_over")

    def __init__(
        self,
        port: "HttpPort",
        sock: socket.socket,
        peer: TcpAddress,
        take_over: Callable[[Endpoint, TcpAddress, bytes], None],
        *,
        speaks_http: bool = True,
    ) -> None:
        super().__init__(port.board, sock)
        self._port = port
        self._peer = peer
        self._take_over = take_over
        self._speaks_http = speaks_http
        self._reader = ProxyHeaderReader()
        self._received = b""  # Bounded by the reader.
        self.board.add(sock, self)
        self.board.set_deadline(self, port.timeouts.head)

    def pull(self) -> None:
        """Read until it is known who speaks."""
        while not self.is_closed:
            data = self.receive(HEAD_READ_SIZE)
            if data is None:
                return
            if not data:
                self.close()
                return
            self._received += data
            if not any(mark.startswith(self._received[: len(mark)]) for mark in _MARKS):
                self._pass_on(self._peer, self._received)
                return
            self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            header = self._reader.feed(data)
        except BadProxyHeader as error:
            self._port.reports.add(self._peer, f"bad PROXY header: {error}")
            self._refuse(pages.bad_request(BadRequest(str(error))))
            return
        if header is not None:
            self._pass_on(header.source or self._peer, self._reader.rest)

    def _pass_on(self, peer: TcpAddress, unread: bytes) -> None:
        if self._port.bans.turns_away(peer):
            self.close()
            return
        self.leave()
        self._take_over(self, peer, unread)

    def _refuse(self, page: Page) -> None:
        self.leave()
        last_bytes = page.write() if self._speaks_http else b""
        LingeringClose(self.board, self.sock, last_bytes, on_close=self._port.visitor_left)

    def deadline_passed(self) -> None:
        """The header, or anything else, did not come."""
        if self._received:
            self._refuse(pages.request_timeout("head", self._port.timeouts.head))
        else:
            self.close()

    def broken(self, error: OSError) -> None:
        """The proxy has gone."""
        self.close()

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection."""
        if not self.is_closed:
            super().close(with_reset=with_reset)
            self._port.visitor_left()
