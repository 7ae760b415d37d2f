"""The client's connection to the server, over all its sessions: when one is lost, another one takes its place."""

import logging
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

import trio

from ..addresses import TcpAddress
from ..background import open_background
from ..errors import (
    ConfigurationError,
    InvalidName,
    NameTaken,
    NotAllowed,
    OtunError,
    RegistrationRefused,
    TunnelUnprotected,
)
from ..mux import SessionClosed, TunnelEnded, TunnelLost
from .backoff import Backoff
from .contact import Contact, OpenSession, open_contact
from .events import Connected, Lost, Refused, Retrying, TunnelEvent
from .lease import Lease
from .suspend import suspended_seconds, watch_for_suspend

logger: logging.Logger = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = 3.0
"""Seconds for connecting again, and as many for TLS: when the link is back, no attempt hangs on for long that was begun
before."""

FIRST_CONNECT_TIMEOUT: Final = 10.0
"""The same for the first connection of all, which is tried once: a packet may be lost, a name service slow."""

MAX_SESSIONS: Final = 4
"""A server that goes away serves those who are there for as long as it likes; in the end, its session gives way to
those with the servers that have come after it."""

CHOICE_KEPT: Final = 30.0
"""Seconds of an outage in which a name or port that the server has chosen is asked for although somebody has it.

That may be our own last session, which a server takes for alive for up to 20 seconds.  Afterwards it chooses anew.
"""


class Link:
    """Keeps tunnels open on a server for as long as `run` runs.

    With *reconnect*, a session that is lost is replaced by another one, on which the same names and ports are asked
    for; *max_retries* bounds the attempts in one outage.  *resume* is the secret of an earlier session, whose place the
    first one takes.  *random* is as for `Backoff`, and *suspended* as for `watch_for_suspend`.
    """

    def __init__(
        self,
        open_session: OpenSession,
        server: TcpAddress,
        leases: Sequence[Lease],
        *,
        resume: str = "",
        reconnect: bool = True,
        max_retries: int | None = None,
        random: Callable[[], float] = random.random,
        suspended: Callable[[], float] = suspended_seconds,
    ) -> None:
        self._open_session = open_session
        self._server = server
        self._leases = leases
        self._resume = resume
        self._reconnect = reconnect
        self._max_retries = max_retries
        self._suspended = suspended
        self._backoff = Backoff(random)
        self._contacts: list[Contact] = []  # The last one is new; those before it are with servers that go away.
        self._lost_at: float | None = -math.inf  # None while visitors can come.
        self._end_error: SessionClosed | None = None
        self._is_left = False
        self._scope = trio.CancelScope()
        self._efforts = trio.CancelScope()  # To have a session by which visitors come.
        self._pause = trio.CancelScope()
        self._left = trio.Event()
        self._finished = trio.Event()

    # For the tunnels

    @property
    def state(self) -> Literal["open", "reconnecting", "closed"]:
        """Whether visitors can come."""
        if self._end_error is not None:
            return "closed"
        return "open" if self._lost_at is None else "reconnecting"

    @property
    def is_left(self) -> bool:
        """Whether it was we who ended the tunnels."""
        return self._is_left

    @property
    def resume_secret(self) -> str:
        """What takes the place of the newest session; empty if the server knows of no such thing."""
        return self._resume

    def end_error(self) -> SessionClosed:
        """Return why the tunnels have ended for good.  They must have."""
        assert self._end_error is not None
        return self._end_error.with_traceback(None)

    def report_health(self, lease: Lease, is_healthy: bool) -> None:
        """Have every server told how the local service of a tunnel is, also those that come later."""
        lease.is_healthy = is_healthy
        for contact in self._contacts:
            contact.report_health(lease)

    async def drain(self) -> None:
        """Have no more visitors come, and wait until those who are here are done."""
        self._efforts.cancel()
        async with trio.open_nursery() as nursery:
            for contact in self._contacts:
                nursery.start_soon(contact.session.drain)

    async def aclose(self) -> None:
        """End the tunnels; what was sent to visitors before is delivered.  Cancelled, they end at once."""
        self._leave()
        try:
            await self._finished.wait()
        finally:
            self._scope.cancel()

    # Its life

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep the tunnels open until `aclose`.

        It has started once they are open; raises what the first attempt raises.  Cancelled, they end at once.
        """
        try:
            with self._scope:
                async with open_background() as sessions:
                    contact = await self._connect(sessions)
                    sessions.start_soon(watch_for_suspend, self._suspended, partial(self._woken, sessions))
                    task_status.started()
                    with self._efforts:
                        await self._stay_connected(sessions, contact)
                    await self._left.wait()
                    async with trio.open_nursery() as nursery:
                        for contact in self._contacts:
                            nursery.start_soon(contact.session.aclose)
        finally:
            self._leave()
            self._finished.set()

    async def _stay_connected(self, sessions: trio.Nursery, contact: Contact) -> None:
        try:
            while True:
                lost = await contact.wait_leaving()
                self._lost_at = trio.current_time()
                self._tell(Lost(str(lost)))
                contact = await self._come_back(sessions, lost)
                logger.info("connected again: %s", ", ".join(lease.granted.url for lease in self._leases))
        except SessionClosed as error:
            self._tell(Refused(error))
            self._end(error)

    async def _come_back(self, sessions: trio.Nursery, lost: SessionClosed) -> Contact:
        """Try until visitors can come again.  Raises `SessionClosed` when they never will."""
        if not self._reconnect:
            raise lost
        problem: OtunError = lost
        while True:
            self._check_hope(problem)
            delay = self._backoff.next_delay(trio.current_time())
            attempt = self._backoff.attempts
            if self._max_retries is not None and attempt > self._max_retries:
                raise TunnelLost(f"gave up after {self._max_retries} attempts to come back: {problem}", problem)
            self._announce(Retrying(delay, attempt, str(problem)), is_news=problem is lost)
            with trio.move_on_after(delay) as self._pause:
                await trio.sleep_forever()
            try:
                return await self._connect(sessions)
            except OtunError as error:
                problem = error

    def _check_hope(self, problem: OtunError) -> None:
        """Raise `SessionClosed` if the server will not have the tunnels back, or must not.

        Whatever the way to it says may change.  So may what shows that it can be trusted: in an outage it is not always
        the server that answers, but the portal of a hotel.
        """
        match problem:
            case NameTaken() | NotAllowed() if any(lease.has_servers_choice for lease in self._leases):
                if not problem.is_retryable or self._outage >= CHOICE_KEPT:
                    for lease in self._leases:
                        lease.forget_choice()
            case TunnelEnded() if not problem.refusal.is_retryable:
                raise problem
            case RegistrationRefused() if problem.code and not problem.is_retryable:
                raise TunnelEnded(f"the server at {self._server} refused to open the tunnel again: {problem}", problem)
            case TunnelUnprotected() | ConfigurationError() | InvalidName():
                raise TunnelLost(f"the tunnel cannot be opened again: {problem}", problem)

    @property
    def _outage(self) -> float:
        """For how many seconds no visitors could come."""
        return 0.0 if self._lost_at is None else trio.current_time() - self._lost_at

    def _announce(self, retrying: Retrying, *, is_news: bool) -> None:
        """Tell everybody, and the log as often as it is of interest: the more attempts there were, the less often."""
        if is_news:
            logger.warning("%s; retrying in %.1f s", retrying.reason, retrying.delay)
        else:
            level = logging.INFO if retrying.attempt & (retrying.attempt - 1) == 0 else logging.DEBUG
            logger.log(level, "%s; retrying in %.1f s (attempt %d)", retrying.reason, retrying.delay, retrying.attempt)
        self._tell(retrying)

    async def _connect(self, sessions: trio.Nursery) -> Contact:
        timeout = FIRST_CONNECT_TIMEOUT if self._outage == math.inf else CONNECT_TIMEOUT
        contact: Contact = await sessions.start(self._hold_session, timeout)
        self._backoff.connected(trio.current_time())
        self._lost_at = None
        self._resume = contact.registration.first.resume
        for lease, granted in zip(self._leases, contact.granted, strict=True):
            lease.grant(granted)
            lease.events.add(Connected(granted.url))
            if not lease.is_healthy:  # It is taken for well at first.
                contact.report_health(lease)
        return contact

    async def _hold_session(self, timeout: float, *, task_status: trio.TaskStatus[Contact]) -> None:
        async with open_contact(
            self._open_session, self._server, self._leases, timeout=timeout, resume=self._resume
        ) as contact:
            self._contacts.append(contact)
            for old in self._contacts[:-MAX_SESSIONS]:
                old.session.fail("other sessions have taken its place")
            try:
                task_status.started(contact)
                await contact.wait_ended()
            finally:
                self._contacts.remove(contact)

    def _woken(self, sessions: trio.Nursery) -> None:
        """This machine was asleep: try again at once, and see whether the server is still there."""
        self._pause.cancel()
        for contact in self._contacts:
            sessions.start_soon(contact.check_alive)

    def _tell(self, event: TunnelEvent) -> None:
        for lease in self._leases:
            lease.events.add(event)

    def _leave(self) -> None:
        if self._end_error is None:
            self._is_left = True
            for contact in self._contacts:
                contact.registration.leave()
            self._end(SessionClosed("the session was closed on this side", is_clean=True))
        self._efforts.cancel()
        self._left.set()

    def _end(self, error: SessionClosed) -> None:
        self._end_error = error
        for lease in self._leases:
            lease.end()
