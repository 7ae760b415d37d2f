"""One session with the server, from the registration of all tunnels until it has ended."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Final, TypeAlias

import attrs
import trio

from ..addresses import TcpAddress
from ..control.messages import Registered
from ..mux import Session, SessionClosed
from .lease import Lease
from .registration import Registration, open_registration
from .visitors import Dispatcher

FAREWELL_GRACE: Final = 0.1
"""Seconds for a server that goes away to end the session, and say why; one that only drains does not."""

WAKING_TIMEOUT: Final = 3.0
"""Seconds in which the server must answer when this machine was asleep: mostly it has given us up."""

OpenSession: TypeAlias = Callable[[float], AbstractAsyncContextManager[Session]]
"""Connects to the server, in steps that may take so many seconds each.  Raises `OtunError`."""


@attrs.frozen(eq=False)
class Contact:
    """A session on which all tunnels are registered.  Made by `open_contact`."""

    session: Session
    registration: Registration
    granted: tuple[Registered, ...]

    async def wait_leaving(self) -> SessionClosed:
        """Wait until no more visitors come, and return why: those who have come may go on, if the server drains."""
        await self.session.wait_peer_left()
        with trio.move_on_after(FAREWELL_GRACE):
            await self.wait_ended()
            return await self.registration.end_error()
        return SessionClosed(f"the server at {self.registration.server} is going away", is_clean=True, code=0)

    async def wait_ended(self) -> None:
        """Wait until the session has ended, and everything is read that the server has said last."""
        await self.session.wait_closed()
        await self.registration.wait_ended()

    def report_health(self, lease: Lease) -> None:
        """Have the server told how the local service is, if it wants to know."""
        if self.registration.first.health:
            self.registration.report_health(lease.id, lease.is_healthy)

    async def check_alive(self) -> None:
        """End the session unless the server answers soon."""
        with trio.move_on_after(WAKING_TIMEOUT) as patience, suppress(SessionClosed):
            await self.session.ping()
        if patience.cancelled_caught:
            self.session.fail("it did not answer after this machine had been asleep")


@asynccontextmanager
async def open_contact(
    open_session: OpenSession, server: TcpAddress, leases: Sequence[Lease], *, timeout: float, resume: str
) -> AsyncIterator[Contact]:
    """Connect to *server*, register all tunnels, and give visitors to them until the body ends.

    *resume* is the secret of the session whose place it takes.  Raises what *open_session* and `Registration.add` do.
    """
    first, *others = (lease.request for lease in leases)
    first = attrs.evolve(first, resume=resume)
    async with open_session(timeout) as session, open_registration(session, server, first) as registration:
        visitors = {lease.id: lease.visitors for lease in leases}
        dispatcher = Dispatcher(session, visitors, has_headers=registration.first.stream_header)
        session.deliver_to(dispatcher.stream_opened)
        try:
            granted = [registration.first, *[await registration.add(request) for request in others]]
            yield Contact(session, registration, tuple(granted))
        finally:
            session.stop_delivery()
