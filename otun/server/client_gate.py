"""Clients' connections, from the first byte to their session: TLS, or plain where that is allowed."""

import errno
import logging
import socket
from functools import partial
from typing import Final

import trio

from ..addresses import TcpAddress
from ..mux import open_board_session
from ..switchboard import Switchboard, TlsSocket
from ..tls.client_hello import AlertDescription, ClientHello
from .arrival import Arrival
from .attendance import Attendance
from .bans import Bans
from .clients import ClientAddress
from .control_port import CLIENT_LIMITS, MAX_UNREGISTERED, ControlPort
from .encryption import Encryption
from .listening import peer_or_close, plain_host
from .reports import Reports

logger: logging.Logger = logging.getLogger(__name__)

MAX_LEAVING: Final = 1024
"""Connections that have failed, and are read from until they close: each for some seconds at most."""


class ClientGate:
    """Takes clients' connections, and serves each in a task in *clients*."""

    def __init__(
        self,
        port: ControlPort,
        board: Switchboard,
        clients: trio.Nursery,
        encryption: Encryption,
        bans: Bans,
        *,
        is_plaintext_allowed: bool,
    ) -> None:
        self._port = port
        self._board = board
        self._clients = clients
        self._encryption = encryption
        self._bans = bans
        self.is_plaintext_allowed: bool = is_plaintext_allowed
        self._arriving: set[Arrival] = set()
        self._leaving = 0
        self.attendance: Attendance = Attendance()
        self._reports = Reports(trio.current_time, called="client")

    def client_connected(self, sock: socket.socket) -> None:
        """Take a new connection, or turn it away."""
        if self.is_full or self._leaving >= MAX_LEAVING:
            sock.close()
            return
        peer = peer_or_close(sock)
        if peer is None:
            return
        if self._bans.turns_away(peer):
            sock.close()
            return
        arrival = Arrival(self._board, sock, self, self._encryption.buffers, peer)
        self._arriving.add(arrival)
        arrival.start()

    @property
    def is_full(self) -> bool:
        """Whether a new connection must be turned away."""
        return len(self._arriving) + self._port.unregistered >= MAX_UNREGISTERED

    def hello_received(self, arrival: Arrival, hello: ClientHello) -> None:
        """Show the certificate that the client asks for."""
        context = self._encryption.context_for_client(hello.server_name)
        if context is None:
            problem = "it wants TLS, for which this server has no certificate; --state DIR gives it one"
            arrival.refuse(AlertDescription.UNRECOGNIZED_NAME, OSError(errno.EPROTO, problem))
        else:
            arrival.encrypt(context, partial(self._established, arrival))

    def _established(self, arrival: Arrival, sock: TlsSocket) -> None:
        self._arriving.remove(arrival)
        self.serve(sock, arrival.peer)

    def serve(self, sock: TlsSocket, peer: TcpAddress) -> None:
        """Serve a client from *peer* whose connection is encrypted; it may have arrived on another port."""
        self._start(sock, peer, b"", is_acceptable=True)

    def plain_received(self, arrival: Arrival, received: bytes) -> None:
        """Serve a client without TLS, if only to tell it that it needs it."""
        self._arriving.remove(arrival)
        arrival.leave()
        self._start(arrival.sock, arrival.peer, received, is_acceptable=self.is_plaintext_allowed)

    def called_again(self, arrival: Arrival) -> None:
        """Nobody waits for anything here."""

    def arrival_failed(self, arrival: Arrival, error: OSError | None) -> None:
        """Forget a connection that has come to nothing."""
        self._arriving.discard(arrival)
        self._leaving += 1
        if error is not None:
            self._reports.add(arrival.peer, f"ended before it was encrypted: {error.strerror or error}")

    def arrival_left(self, arrival: Arrival) -> None:
        """Its descriptor is free again.  Until then, those who have failed take up no room among the others."""
        self._leaving -= 1

    def _start(self, sock: socket.socket, peer: TcpAddress, received: bytes, *, is_acceptable: bool) -> None:
        try:
            client = ClientAddress(peer, plain_host(sock.getsockname()[0]))
        except OSError:  # It has gone already.
            self._board.close(sock)
        else:
            self.attendance.come()
            self._clients.start_soon(self._serve, sock, client, received, is_acceptable)

    async def _serve(self, sock: socket.socket, client: ClientAddress, received: bytes, is_acceptable: bool) -> None:
        try:
            async with open_board_session(
                self._board, sock, "server", limits=CLIENT_LIMITS, received=received
            ) as session:
                await self._port.serve_client(session, client, is_acceptable=is_acceptable)
        except Exception:
            logger.exception("client %s: failed", client)
        finally:
            self.attendance.leave()
