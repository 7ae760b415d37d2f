"""A tunnel, as the program beside the local service sees it."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

import attrs
import trio

from ..addresses import LocalAddress, TcpAddress
from ..control.messages import Registered
from ..mux import Session, SessionClosed, Stream, serve_streams
from ..switchboard import Switchboard
from ..tls.trust import Trust
from .forwarder import forward_on_board
from .health import HealthCheck, ReportedHealth
from .registration import Registration
from .request_tap import OnExchange
from .visitors import Visitors

logger: logging.Logger = logging.getLogger(__name__)


class Tunnel(trio.abc.Listener[Stream]):
    """A name or port on the server, and the visitors who come by it.  Made by `open_tunnel` and `open_tunnels`.

    It is a `trio.abc.Listener` of visitors' streams: answer them in this program, or have them forwarded.
    """

    def __init__(
        self,
        session: Session,
        registration: Registration,
        granted: Registered,
        visitors: Visitors,
        board: Switchboard,
    ) -> None:
        self._session = session
        self._registration = registration
        self._granted = granted
        self._visitors = visitors
        self._board = board

    def __repr__(self) -> str:
        return f"<Tunnel {self.name} {self.url} {'closed' if self._session.is_closed else 'open'}>"

    @property
    def url(self) -> str:
        """Where visitors find the tunnel, as the server says."""
        return self._granted.url

    @property
    def name(self) -> str:
        """The tunnel's name on the server."""
        return self._granted.subdomain

    @property
    def resume_secret(self) -> str:
        """What takes the place of this tunnel's session, for `open_tunnel`; empty if the server knows of no such thing.

        Keep it to yourself, as a token.
        """
        return self._registration.first.resume

    async def accept(self) -> Stream:
        """Wait for the next visitor, whose address is in `Stream.visitor` if the server tells it.

        Raises `SessionClosed` when the tunnel has ended: `TunnelEnded` if the server has said why.

        Cancelled, nobody is lost.
        """
        try:
            return await self._visitors.accept()
        except SessionClosed:
            error = await self._registration.end_error()
        raise error

    async def serve(self, handler: Callable[[Stream], Awaitable[object]]) -> None:
        """Call *handler* in a task for each visitor until the tunnel ends, as `otun.Session.serve` does.

        Returns when the tunnel was closed on this side, and all handlers are done; raises `SessionClosed` as `accept`
        does when the server ended it, however politely.  A visitor who breaks off ends its own handler only; with
        `trio.serve_listeners` it would end them all.
        """
        try:
            await serve_streams(self._visitors, handler)
        except SessionClosed:
            error = await self._registration.end_error()
        else:
            if self._registration.is_left:
                return
            error = await self._registration.end_error()
        raise error

    async def aclose(self) -> None:
        """End the tunnel, and the others of its session; what was sent to visitors before is delivered.

        Cancelled, it ends at once.
        """
        self._registration.leave()
        await self._session.aclose()

    async def forward(
        self, host: str, port: int, *, proxy_protocol: bool = False, on_exchange: OnExchange | None = None
    ) -> None:
        """Relay all visitors to the service at *host* and *port* until the tunnel ends; then raise as `accept` does.

        When the service cannot be reached, the visitor gets an HTTP answer (502) that says so.  With *proxy_protocol*
        each connection to the service begins with a PROXY header, version 2, that says who the visitor is.
        *on_exchange* is called for each HTTP request and its answer.  Cancelled, the visitors that are being relayed
        are cut short.
        """
        await self.forward_to(TcpAddress(host, port), proxy_protocol=proxy_protocol, on_exchange=on_exchange)

    async def forward_to(
        self,
        local: LocalAddress,
        *,
        trust: Trust | None = None,
        proxy_protocol: bool = False,
        on_exchange: OnExchange | None = None,
        health: HealthCheck | None = None,
    ) -> None:
        """Relay as `forward` does, to a TCP address or a Unix socket; with *trust*, to a service that speaks TLS.

        With *health*, the service is asked now and then, and the server sends it no visitors while it is not well.

        Raises `ConfigurationError` for what cannot be trusted.
        """
        await forward_on_board(
            self._session,
            self._visitors,
            self._board,
            local,
            trust=trust,
            is_http=not self.url.startswith(("tcp:", "tls:")),
            proxy_protocol=proxy_protocol,
            on_exchange=on_exchange,
            health=self._reported(health) if health is not None else None,
        )
        raise await self._registration.end_error()

    def _reported(self, check: HealthCheck) -> ReportedHealth | None:
        """Return how to check, and where to say what was found; None if the server does not want to know."""
        if not self._granted.health:
            logger.warning("the server does not know of health checks: visitors come, however the local service is")
            return None
        check = attrs.evolve(check, host=check.host or urlsplit(self.url).netloc)
        return ReportedHealth(check, partial(self._registration.report_health, self._granted.id))
