"""A tunnel, as the program beside the local service sees it."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import attrs
import trio

from ..addresses import LocalAddress, TcpAddress
from ..mux import SessionClosed, Stream, serve_streams
from ..switchboard import Switchboard
from ..tls.trust import Trust
from .events import TunnelEvent
from .forwarder import forward_on_board
from .health import HealthCheck, ReportedHealth
from .lease import Lease
from .link import Link
from .request_tap import OnExchange

logger: logging.Logger = logging.getLogger(__name__)


class Tunnel(trio.abc.Listener[Stream]):
    """A name or port on the server, and the visitors who come by it.  Made by `open_tunnel` and `open_tunnels`.

    It is a `trio.abc.Listener` of visitors' streams: answer them in this program, or have them forwarded.  When the
    server is lost, the streams of those who are there raise `SessionClosed`, and the tunnel goes on as soon as the
    server is back, unless it was opened without reconnecting; `events` tells.
    """

    def __init__(self, link: Link, lease: Lease, board: Switchboard) -> None:
        self._link = link
        self._lease = lease
        self._board = board

    def __repr__(self) -> str:
        return f"<Tunnel {self.name} {self.url} {self._link.state}>"

    @property
    def url(self) -> str:
        """Where visitors find the tunnel, as the server has said last: it keeps this whenever it can."""
        return self._lease.granted.url

    @property
    def name(self) -> str:
        """The tunnel's name on the server, likewise."""
        return self._lease.granted.subdomain

    @property
    def resume_secret(self) -> str:
        """What takes the place of this tunnel's session, for `open_tunnel`; empty if the server knows of no such thing.

        Each session has another one.  Keep it to yourself, as a token.
        """
        return self._link.resume_secret

    def events(self) -> AsyncIterator[TunnelEvent]:
        """Return what happens to the tunnel, beginning with the last thing that has: `Connected`, at first.

        The iterator stops when the tunnel has ended.  Read it all the time: who is more than `EVENTS_KEPT` events late
        misses the oldest.  There may be several readers; each gets them all.
        """
        return self._lease.events.read()

    async def accept(self) -> Stream:
        """Wait for the next visitor, whose address is in `Stream.visitor` if the server tells it.

        Raises `SessionClosed` when the tunnel has ended for good: `TunnelEnded` if the server has said why, and
        `TunnelLost` if it could not be opened again.

        Cancelled, nobody is lost.
        """
        with suppress(SessionClosed):
            return await self._lease.visitors.accept()
        raise self._link.end_error()

    async def serve(self, handler: Callable[[Stream], Awaitable[object]]) -> None:
        """Call *handler* in a task for each visitor until the tunnel ends, as `otun.Session.serve` does.

        Returns when the tunnel was closed on this side, and all handlers are done; raises `SessionClosed` as `accept`
        does when the server ended it, however politely.  A visitor who breaks off ends its own handler only; with
        `trio.serve_listeners` it would end them all.
        """
        await serve_streams(self._lease.visitors, handler)
        if not self._link.is_left:
            raise self._link.end_error()

    async def drain(self) -> None:
        """Have no more visitors come, let those who are here finish, and then end the tunnel as `aclose` does.

        It is so for all tunnels that were opened together.  That may take as long as the visitors like: use
        `trio.move_on_after`.  Cancelled, it ends at once.
        """
        try:
            await self._link.drain()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the tunnel, and all that were opened together; what was sent to visitors before is delivered.

        Cancelled, it ends at once.
        """
        await self._link.aclose()

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
            self._lease.visitors,
            self._board,
            local,
            trust=trust,
            is_http=not self.url.startswith(("tcp:", "tls:")),
            proxy_protocol=proxy_protocol,
            on_exchange=on_exchange,
            health=self._reported(health) if health is not None else None,
        )
        raise self._link.end_error()

    def _reported(self, check: HealthCheck) -> ReportedHealth | None:
        """Return how to check, and where to say what was found; None if the server does not want to know."""
        if not self._lease.granted.health:
            logger.warning("the server does not know of health checks: visitors come, however the local service is")
            return None
        check = attrs.evolve(check, host=check.host or urlsplit(self.url).netloc)
        return ReportedHealth(check, partial(self._link.report_health, self._lease))
