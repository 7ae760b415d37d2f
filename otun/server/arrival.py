"""A connection to a port that takes TLS, until its first words are there."""

import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from ..addresses import TcpAddress
from ..errors import BadClientHello
from ..switchboard import Endpoint, LingeringClose, Switchboard, TlsBuffers, TlsHandshake, TlsSocket
from ..tls.client_hello import HANDSHAKE_RECORD, ClientHello, ClientHelloReader, fatal_alert
from .bans import Barrable

HELLO_TIMEOUT: Final = 10.0
"""Seconds for a ClientHello, and as many for the rest of the handshake."""

_READ_SIZE: Final = 16 * 1024


class Gate(Protocol):
    """The port that an arrival is for."""

    def hello_received(self, arrival: "Arrival", hello: ClientHello) -> None:
        """It wants TLS: call one of the arrival's verbs."""

    def plain_received(self, arrival: "Arrival", received: bytes) -> None:
        """It does not speak TLS, and has begun with *received*: take over, or call `refuse`."""

    def arrival_failed(self, arrival: "Arrival", error: OSError | None) -> None:
        """It has come to nothing.  Without an *error* it has left without a word."""

    def called_again(self, arrival: "Arrival") -> None:
        """The board has called it, although its ClientHello has been received."""

    def arrival_left(self, arrival: "Arrival") -> None:
        """And now nothing is left of it."""


class Arrival(Endpoint, Barrable):
    """Reads a ClientHello and asks its gate what to do about it."""

    __slots__ = ("_buffers", "_gate", "_has_hello", "_reader", "peer", "received")

    def __init__(
        self, board: Switchboard, sock: socket.socket, gate: Gate, buffers: TlsBuffers, peer: TcpAddress
    ) -> None:
        super().__init__(board, sock)
        self._gate = gate
        self._buffers = buffers
        self._reader = ClientHelloReader()
        self.peer: TcpAddress = peer
        self.received: bytes = b""  # By whoever owned the socket before; then the ClientHello and what came with it.
        self._has_hello = False

    @property
    def origins(self) -> tuple[str, ...]:
        """Where it comes from."""
        return (self.peer.host,)

    def start(self) -> None:
        """Take a new connection."""
        self.board.add(self.sock, self)
        self.board.set_deadline(self, HELLO_TIMEOUT)

    def take_over(self, other: Endpoint, received: bytes = b"") -> None:
        """Take a connection on which *other* has read *received*."""
        super().take_over(other)
        self.board.set_deadline(self, HELLO_TIMEOUT)
        self.received = received
        self.pull()

    def pull(self) -> None:
        """Read until it is clear what the connection wants."""
        if self._has_hello:
            self._gate.called_again(self)
            return
        while not self.is_closed and not self._has_hello:
            data: bytes | None
            if self.received:
                data, self.received = self.received, b""
            else:
                data = self.receive(_READ_SIZE)
            if data is None:
                return
            if not data:
                self._fail(ConnectionAbortedError(errno.ECONNABORTED, "it left in the middle of its ClientHello"))
            elif not self._reader.received and data[0] != HANDSHAKE_RECORD:
                self._gate.plain_received(self, data)
                return
            else:
                self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            hello = self._reader.feed(data)
        except BadClientHello as error:
            self.refuse(error.alert, OSError(errno.EPROTO, str(error)))
            return
        if hello is not None:
            self._has_hello = True
            self.received = self._reader.received
            self._gate.hello_received(self, hello)

    # What a gate may do

    def encrypt(self, context: ssl.SSLContext, established: Callable[[TlsSocket], None]) -> None:
        """Answer the ClientHello; *established* gets the socket."""
        self.leave()
        sock = TlsSocket(self.sock, context, self._buffers, is_server=True, received=self.received)
        TlsHandshake(
            self.board,
            sock,
            timeout=HELLO_TIMEOUT,
            established=established,
            failed=lambda error: self._gate.arrival_failed(self, error),
            closed=lambda: self._gate.arrival_left(self),
        )

    def refuse(self, alert: int, error: OSError) -> None:
        """Say why there will be no TLS (RFC 8446, section 6.2), and close."""
        self.end_with(fatal_alert(alert), error)

    def end_with(self, last_bytes: bytes, error: OSError) -> None:
        """Send *last_bytes*, and close."""
        self.leave()
        self._gate.arrival_failed(self, error)
        LingeringClose(self.board, self.sock, last_bytes, on_close=lambda: self._gate.arrival_left(self))

    # Ending

    def _fail(self, error: OSError) -> None:
        self._end(error if self._reader.received else None)

    def deadline_passed(self) -> None:
        """The ClientHello has not come, or the gate has not answered it."""
        missing = "certificate" if self._has_hello else "whole ClientHello"
        self._fail(TimeoutError(errno.ETIMEDOUT, f"no {missing} within {HELLO_TIMEOUT:g} seconds"))

    def broken(self, error: OSError) -> None:
        """The other side has gone."""
        self._fail(error)

    def close(self, *, with_reset: bool = False) -> None:
        """Close the connection: the board ends, or a bug has shown."""
        self._end(None, with_reset=with_reset)

    def _end(self, error: OSError | None, *, with_reset: bool = False) -> None:
        if not self.is_closed:
            super().close(with_reset=with_reset)
            self._gate.arrival_failed(self, error)
            self._gate.arrival_left(self)
