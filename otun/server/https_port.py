"""The HTTPS port: TLS ends here, or passes through to the local service that has the key."""

import errno
import socket
import ssl
from functools import partial
from typing import Final

from ..addresses import TcpAddress
from ..control.excerpt import excerpt
from ..http import pages
from ..switchboard import Endpoint, LingeringClose, TlsSocket
from ..tls.acme.challenges import TLS_ALPN_PROTOCOL
from ..tls.client_hello import AlertDescription, ClientHello
from ..tls.contexts import CONTROL_PROTOCOL
from .absence import Absence
from .arrival import HELLO_TIMEOUT, Arrival
from .client_gate import ClientGate
from .encryption import Encryption
from .http_port import HttpPort
from .proxied import ProxiedVisitor
from .registry import Registration, Route
from .relayed import RelayedVisitor
from .visitor import Visitor
from .visitor_access import admits_address

MAX_AWAITING: Final = 1000
"""Visitors who may wait for a certificate that is on its way."""


class HttpsPort:
    """Takes visitors' connections, and those of clients who share the port."""

    def __init__(self, http_port: HttpPort, encryption: Encryption, client_gate: ClientGate) -> None:
        self._http = http_port
        self._encryption = encryption
        self._clients = client_gate
        self._awaiting: dict[Arrival, str] = {}
        self._held: dict[Arrival, tuple[Absence, Route, ClientHello]] = {}

    def visitor_connected(self, sock: socket.socket) -> None:
        """Take a new connection, or turn it away."""
        peer = self._http.admit(sock, speaks_http=False)
        if peer is None:
            return
        if self._http.trusts(peer.host):
            ProxiedVisitor(self._http, sock, peer, self._take_over, speaks_http=False)
        else:
            self._arrival(sock, peer).start()

    def _arrival(self, sock: socket.socket, peer: TcpAddress) -> Arrival:
        return Arrival(self._http.board, sock, self, self._encryption.buffers, peer)

    def _take_over(self, other: Endpoint, peer: TcpAddress, received: bytes) -> None:
        self._arrival(other.sock, peer).take_over(other, received)

    def hello_received(self, arrival: Arrival, hello: ClientHello) -> None:
        """Find out who is to answer."""
        name = hello.server_name
        challenge = self._challenge(name) if TLS_ALPN_PROTOCOL.encode() in hello.alpn else None
        if challenge is not None:
            arrival.encrypt(challenge, self._authority_answered)
            return
        if CONTROL_PROTOCOL.encode() in hello.alpn:
            self._take_client(arrival, name)
            return
        route = self._http.registry.find(name or "")
        if route is not None and route.is_passthrough is not False:
            absence = self._http.registry.absence_of(route)
            if absence is not None:
                self._hold(arrival, hello, route, absence)
            else:
                self._relay(arrival, route.choose())
            return
        if not self._is_postponed(arrival, name):
            self._encrypt(arrival, name)

    def _encrypt(self, arrival: Arrival, name: str | None) -> None:
        context = self._encryption.context_for_visitor(name)
        if context is None:
            self._refuse(arrival, f"no certificate for the name {name!r}")
        else:
            arrival.encrypt(context, partial(self._established, arrival))

    def _established(self, arrival: Arrival, sock: TlsSocket) -> None:
        if self._http.bans.turns_away(arrival.peer):  # By now.
            LingeringClose(self._http.board, sock, b"", on_close=self._http.visitor_left)
            return
        self._http.board.put(sock, Visitor(self._http, sock, arrival.peer, scheme="https"))

    def _relay(self, arrival: Arrival, registration: Registration | None) -> None:
        if registration is None:
            arrival.refuse(AlertDescription.INTERNAL_ERROR, OSError(errno.EBUSY, "its local service is not well"))
            return
        if not admits_address(registration, arrival.peer.host):
            arrival.end_with(b"", OSError(errno.EACCES, f"its address may not visit tunnel {registration.name}"))
            return
        if registration.streams >= self._http.max_streams or not registration.admits_connection():
            arrival.refuse(AlertDescription.INTERNAL_ERROR, OSError(errno.EBUSY, "its tunnel has too many visitors"))
            return
        arrival.leave()
        RelayedVisitor(
            self._http.board, arrival.sock, self._http, registration, arrival.peer, unread=arrival.received
        ).take_over(arrival)

    # Clients that are away

    def _hold(self, arrival: Arrival, hello: ClientHello, route: Route, absence: Absence) -> None:
        """Have a visitor wait until it is known who is to answer: the client of a TLS tunnel is away, most likely."""
        if absence.wait(arrival):
            self._held[arrival] = absence, route, hello
            self._http.board.set_deadline(arrival, absence.seconds_left + HELLO_TIMEOUT)
        else:
            self._refuse_lost(arrival)

    def _end_absence(self, arrival: Arrival) -> None:
        absence, route, hello = self._held.pop(arrival)
        if absence.is_in_vain and route.is_passthrough:
            self._refuse_lost(arrival)
        else:
            self.hello_received(arrival, hello)

    def _refuse_lost(self, arrival: Arrival) -> None:
        arrival.refuse(AlertDescription.INTERNAL_ERROR, OSError(errno.ETIMEDOUT, "its tunnel's client is away"))

    # Certificates that are on their way

    def _is_postponed(self, arrival: Arrival, name: str | None) -> bool:
        automatic = self._encryption.automatic
        if name is None or automatic is None or self._encryption.covers(name) or not automatic.is_awaited(name):
            return False
        if len(self._awaiting) >= MAX_AWAITING:
            return False
        self._awaiting[arrival] = name
        return True

    def certificate_obtained(self, name: str) -> None:
        """Have the board go on with those who have waited for it, each in its turn."""
        for arrival, host in self._awaiting.items():
            if self._encryption.covers(host):
                self._http.board.call_again(arrival)

    def called_again(self, arrival: Arrival) -> None:
        """Go on with a visitor, if that was what it has waited for."""
        if arrival in self._held and self._held[arrival][0].is_over:
            self._end_absence(arrival)
            return
        host = self._awaiting.get(arrival)
        if host is not None and self._encryption.covers(host):
            del self._awaiting[arrival]
            self._encrypt(arrival, host)

    def _challenge(self, name: str | None) -> ssl.SSLContext | None:
        # If there is none, it may be the business of a local service that ends TLS itself.
        automatic = self._encryption.automatic
        return automatic.tls_context(name) if automatic is not None and name is not None else None

    def _authority_answered(self, sock: TlsSocket) -> None:
        LingeringClose(self._http.board, sock, b"", on_close=self._http.visitor_left)

    def _take_client(self, arrival: Arrival, name: str | None) -> None:
        context = self._encryption.context_for_client(name)
        if context is None or self._clients.is_full:
            self._refuse(arrival, "no room for another client" if context else "no certificate for clients")
        else:
            arrival.encrypt(context, partial(self._client_established, arrival))

    def _client_established(self, arrival: Arrival, sock: TlsSocket) -> None:
        if self._clients.is_full:  # By now: many handshakes may have begun while there was room.
            LingeringClose(self._http.board, sock, b"", on_close=self._http.visitor_left)
            return
        self._http.visitor_left()
        self._clients.serve(sock, arrival.peer)

    def plain_received(self, arrival: Arrival, received: bytes) -> None:
        """Tell people who have typed http:// what is wrong."""
        arrival.end_with(
            pages.https_needed().write(),
            OSError(errno.EPROTO, f"it begins with {excerpt(received[:16].decode('latin-1'))}, which is no TLS"),
        )

    def _refuse(self, arrival: Arrival, problem: str) -> None:
        arrival.refuse(AlertDescription.UNRECOGNIZED_NAME, OSError(errno.EPROTO, problem))

    def arrival_failed(self, arrival: Arrival, error: OSError | None) -> None:
        """A connection has come to nothing."""
        self._awaiting.pop(arrival, None)
        if arrival in self._held:
            self._held.pop(arrival)[0].leave(arrival)
        if error is not None:
            self._http.reports.add(arrival.peer, f"no TLS connection: {error.strerror or error}")

    def arrival_left(self, arrival: Arrival) -> None:
        """Its descriptor is free again."""
        self._http.visitor_left()
