"""Where the local service is: its address, resolved."""

import logging
import socket
from typing import Final, TypeAlias

import trio

from ..addresses import LocalAddress, TcpAddress, UnixAddress
from ..switchboard import TlsBuffers, TlsSocket
from ..tls.contexts import HTTP_PROTOCOL
from ..tls.trust import Trust

logger: logging.Logger = logging.getLogger(__name__)

RESOLVE_INTERVAL: Final = 1.0
"""Seconds between two attempts to resolve the name anew after connections have failed."""

Place: TypeAlias = tuple[socket.AddressFamily, str | tuple[str, int]]
"""A socket's family and address."""


class LocalService:
    """The socket addresses of the local service.  The one that has worked last comes first.

    With *trust*, it speaks TLS.  Raises `ConfigurationError` for what cannot be trusted.
    """

    def __init__(self, address: LocalAddress, trust: Trust | None = None) -> None:
        self.address = address
        self._trust = trust
        self._context = trust.context([HTTP_PROTOCOL]) if trust is not None else None
        self._buffers = TlsBuffers() if trust is not None else None
        self.places: tuple[Place, ...] = ()
        self.problem: str = "its name has not been resolved yet"
        self._is_in_doubt = trio.Event()

    def __str__(self) -> str:
        return str(self.address) if self._trust is None else f"https://{self.address}"

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self._trust is not None

    def encrypt(self, sock: socket.socket) -> TlsSocket:
        """Return the encrypted connection in *sock*'s place; the handshake is still to be done."""
        assert self._trust is not None
        assert self._context is not None
        assert self._buffers is not None
        host = self.address.host if isinstance(self.address, TcpAddress) else "localhost"
        return TlsSocket(sock, self._context, self._buffers, is_server=False, server_name=self._trust.server_name(host))

    def check(self, sock: TlsSocket) -> None:
        """Check what the handshake has not.  Raises `OSError`."""
        assert self._trust is not None
        self._trust.check(sock)

    async def resolve(self) -> None:
        """Look the address up.  If that fails, `problem` says why, and what was known before stays."""
        if isinstance(self.address, UnixAddress):
            self.places = ((socket.AF_UNIX, self.address.path),)
            return
        try:
            found = await trio.socket.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            self.problem = "its host name cannot be resolved"
            logger.warning("the local service %s: %s", self, self.problem)
        else:
            self.places = tuple(
                dict.fromkeys((family, (str(place[0]), int(place[1]))) for family, _, _, _, place in found)
            )

    async def keep_resolved(self) -> None:
        """Resolve anew whenever connections have failed, until cancelled."""
        while True:
            await self._is_in_doubt.wait()
            await self.resolve()
            await trio.sleep(RESOLVE_INTERVAL)
            self._is_in_doubt = trio.Event()

    def failed(self) -> None:
        """None of the addresses could be reached."""
        self._is_in_doubt.set()

    def worked(self, place: Place) -> None:
        """*place* was reached: try it first from now on."""
        if self.places and self.places[0] != place:
            self.places = (place, *(other for other in self.places if other != place))
