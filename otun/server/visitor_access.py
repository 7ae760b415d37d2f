"""Who may visit a tunnel: the one place where visitors of every kind are checked, in what their tunnel's rules say.

What a request's head says is read from the same parsed head that the tunnel was found by.  Addresses come first, then
headers, then the log-in: a password is looked at only for those who could use it.
"""

import hmac
import logging
import os
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from ..access.credentials import Credentials, find_authorization, read_basic
from ..access.failures import FailedLogins, source_of
from ..access.proven import Proof, ProvenLogins
from ..access.rules import VisitorRules
from ..access.visitor_address import visitor_address
from ..addresses import read_ip_address
from ..errors import BadRequest
from ..http import pages
from ..http.fields import Field
from ..http.forwarding import FieldEdits
from ..http.head import RequestHead
from ..http.pages import Page
from ..http.paths import owners_of
from ..switchboard.board import Member, Switchboard
from .registry import Registration, Registry, Route

logger: logging.Logger = logging.getLogger(__name__)

THREADS: Final = 2
"""Passwords that are checked at a time: each takes a processor for 30 ms or more, and up to 64 MiB."""

MAX_WAITING: Final = 256
"""Visitors who wait for that: the last of them for some seconds."""

MAX_WAITING_FOR_ONE: Final = 64
"""Those of one tunnel, so that one that is attacked leaves room for others."""


def admits_address(registration: Registration, address: str) -> bool:
    """Whether a visitor from *address*, of whom nothing else is known, may be relayed to a tunnel."""
    return registration.rules is None or registration.rules.admits(address)


@attrs.define(eq=False)
class Pass:
    """What was found out of a request, and holds for each that has the very same fields.

    Heads that come again share them (`otun.http.head_reader.KnownHeads`), so that most need not be looked at again: a
    request of a visitor who has logged in costs 0.6 us more than any other.  *authorization* is what the *proof* is
    for, and *kept* are the lines that are passed on after the tunnel's *edits*.
    """

    rules: VisitorRules
    fields: list[Field]
    authorization: bytes | None = attrs.field(default=None, repr=False)
    proof: Proof | None = None
    edits: FieldEdits | None = attrs.field(default=None, repr=False)
    kept: bytes | None = attrs.field(default=None, repr=False)

    def covers(self, rules: VisitorRules, head: RequestHead, now: float) -> bool:
        """Whether a request for a tunnel with *rules* need not be looked at."""
        if self.rules is not rules or self.fields is not head.fields:
            return False
        return self.proof is None or self.proof.holds(now)


@attrs.frozen
class Refusal:
    """A log-in that was not right: the answer, and for how many seconds it is to be held back."""

    page: Page
    delay: float = 0.0


Verdict: TypeAlias = Pass | Refusal


class LoginAttempt:
    """A visitor who waits for a log-in to be checked.  When there is a *verdict*, the board calls the visitor."""

    __slots__ = ("_check", "_pass", "has_finished", "source", "verdict", "visitor")

    def __init__(self, check: "_Check", visitor: Member, source: str, wanted: Pass) -> None:
        self._check = check
        self._pass = wanted
        self.visitor = visitor
        self.source = source
        self.has_finished: bool = False
        self.verdict: Verdict | None = None

    def visitor_finished(self) -> None:
        """The visitor says no more: it may still want its answer, but has left more often than not."""
        self.has_finished = True

    def withdraw(self) -> None:
        """The visitor has left, or cannot wait any longer."""
        if self.verdict is None:
            self._check.leave(self)

    def admit(self, proof: Proof) -> Pass:
        """Return the pass for the visitor whose log-in was right."""
        self._pass.proof = proof
        return self._pass


class _Check:
    """A password that is to be checked, once for all who have sent the same."""

    def __init__(self, access: "VisitorAccess", scope: str, rules: VisitorRules, credentials: Credentials) -> None:
        self._access = access
        self.scope = scope
        self._credentials = credentials
        self._login = rules.login_of(credentials.user)
        # Unknown users take as long as others: a hash that is not theirs is checked, and whatever it says is wrong.
        # (As the first user does, that is: those whose own client has chosen other costs can be told apart.)
        self._hash = self._login or rules.logins[0]
        self.mark: bytes = access.proven.mark_of(credentials, self._hash.hash)
        self.key: tuple[str, bytes] = (scope, self.mark)
        self.attempts: list[LoginAttempt] = []
        self.sources: dict[str, int] = {}  # And how many come from each.
        self.is_running: bool = False

    @property
    def is_for_a_user(self) -> bool:
        """Whether there is such a user."""
        return self._login is not None

    def run(self) -> bool:
        """Check it, in a thread."""
        is_right = self._hash.is_right(self._credentials.password)
        return is_right and self._login is not None

    def leave(self, attempt: LoginAttempt) -> None:
        """Nobody waits for this one any more.  A check that runs counts all the same."""
        self.attempts.remove(attempt)
        self._access.attempt_left(self, attempt)

    @property
    def is_doubtful(self) -> bool:
        """Whether all who wait for it have probably left."""
        return all(attempt.has_finished for attempt in self.attempts)


class VisitorAccess:
    """Checks what visitors of HTTP tunnels send; passwords in threads, whose tasks are in *background*."""

    def __init__(
        self, registry: Registry, board: Switchboard, background: trio.Nursery, *, trusts: Callable[[str], bool]
    ) -> None:
        self._registry = registry
        self._board = board
        self._background = background
        self._trusts = trusts
        self._limiter = trio.CapacityLimiter(THREADS)
        self._workers = 0
        self._failures = FailedLogins()
        self._checks: dict[tuple[str, bytes], _Check] = {}  # By their keys: those that wait, in order, or run.
        self._waiting: dict[str, int] = {}  # How many visitors do, by scope.
        self.proven: ProvenLogins = ProvenLogins(os.urandom(32))

    def __repr__(self) -> str:
        return f"<VisitorAccess {sum(self._waiting.values())} waiting, {self._workers} workers>"

    def check(
        self, visitor: "AskingVisitor", route: Route, head: RequestHead, known: Pass | None
    ) -> Pass | Page | LoginAttempt | None:
        """Return a pass, the page that refuses the request, or what the visitor has to wait for; None: all may come.

        *route* is where the head leads to; it has rules, or is beside one that has some.  *known* is the pass that an
        earlier request of this visitor got.
        """
        if route.has_guarded_kin and self._is_ambiguous(route, head):
            return pages.bad_request(BadRequest("the path can be read as another tunnel's"))
        rules = route.rules
        if rules is None:
            return None
        if known is not None and known.covers(rules, head, self._board.now):
            return known
        address = None
        if rules.has_networks or rules.logins:
            address = visitor_address(visitor.peer_address, head.fields, self._trusts)
        if not rules.admits(address):
            return pages.forbidden()
        if not all(header.is_in(head.fields) for header in rules.headers):
            return pages.forbidden()
        if not rules.logins:
            return Pass(rules, head.fields)
        wanted = Pass(rules, head.fields, find_authorization(head.fields))
        if known is not None and known.proof is not None and self._is_same_login(known, wanted):
            wanted.proof = known.proof
            return wanted
        return self._check_login(visitor, route.name, wanted, address or visitor.peer_address)

    def _is_same_login(self, known: Pass, wanted: Pass) -> bool:
        """Whether the visitor logs in at the same tunnel by the same bytes as in an earlier request, and still may."""
        if known.rules is not wanted.rules or known.authorization is None or wanted.authorization is None:
            return False
        is_same = hmac.compare_digest(known.authorization, wanted.authorization)
        return is_same and known.proof is not None and known.proof.holds(self._board.now)

    def _is_ambiguous(self, route: Route, head: RequestHead) -> bool:
        routes = list(self._registry.beside(route))  # They may share their service, whichever host leads there.
        owners = owners_of(head.path, [b"" if one.path == b"/" else one.path for one in routes])
        return any(routes[index].rules is not None and routes[index] is not route for index in owners)

    # Log-ins

    def _check_login(
        self, visitor: "AskingVisitor", scope: str, wanted: Pass, address: str
    ) -> Pass | Page | LoginAttempt:
        credentials = None if wanted.authorization is None else read_basic(wanted.authorization)
        if credentials is None:
            return pages.login_required(scope)
        check = _Check(self, scope, wanted.rules, credentials)
        now = self._board.now
        proof = self.proven.find(check.mark, now)
        # Another tunnel may have the same hash, for a user that this one does not know.
        if proof is not None and check.is_for_a_user:
            wanted.proof = proof
            return wanted
        check = self._checks.get(check.key, check)
        source = _source(address)
        refused = self._enter(check, source, now)
        if refused is not None:
            return refused
        attempt = LoginAttempt(check, visitor, source, wanted)
        check.attempts.append(attempt)
        return attempt

    def _enter(self, check: _Check, source: str, now: float) -> Page | None:
        """Have one more from *source* wait for *check*, or return why not."""
        if source not in check.sources:
            seconds = self._failures.begin(check.scope, source, now)
            if seconds:
                return pages.too_many_logins(seconds)
            check.sources[source] = 0
        if not self._has_room(check):
            self._forget_source(check, source)
            return pages.logins_busy()
        check.sources[source] += 1
        self._waiting[check.scope] = self._waiting.get(check.scope, 0) + 1
        if check.key not in self._checks:
            self._checks[check.key] = check
            if self._workers < THREADS:
                self._workers += 1
                self._background.start_soon(self._work)
        return None

    def _has_room(self, newcomer: _Check) -> bool:
        scope = newcomer.scope
        if self._waiting.get(scope, 0) < MAX_WAITING_FOR_ONE and sum(self._waiting.values()) < MAX_WAITING:
            return True
        for check in self._checks.values():
            if check is not newcomer and check.scope == scope and check.is_doubtful and not check.is_running:
                self._drop(check)
                return True
        return False

    def _drop(self, check: _Check) -> None:
        """Answer those who have probably left without having checked anything."""
        for attempt in check.attempts.copy():
            check.leave(attempt)
            self._decide(attempt, Refusal(pages.logins_busy()))

    def attempt_left(self, check: _Check, attempt: LoginAttempt) -> None:
        """*attempt* does not wait any more, before *check* was made."""
        self._stop_waiting(check.scope)
        if check.is_running:
            return
        check.sources[attempt.source] -= 1
        self._forget_source(check, attempt.source)
        if not check.attempts:
            del self._checks[check.key]

    def _forget_source(self, check: _Check, source: str) -> None:
        """Nothing was found out about *source*, if nobody from there waits for *check*."""
        if not check.sources[source]:
            del check.sources[source]
            self._failures.withdraw(check.scope, source)

    def _stop_waiting(self, scope: str) -> None:
        self._waiting[scope] -= 1
        if not self._waiting[scope]:
            del self._waiting[scope]

    def _decide(self, attempt: LoginAttempt, verdict: Verdict) -> None:
        attempt.verdict = verdict
        self._board.call_again(attempt.visitor)

    @trio.lowlevel.enable_ki_protection
    async def _work(self) -> None:
        """Check passwords, one after the other, until none waits."""
        while (check := self._next_check()) is not None:
            check.is_running = True
            is_right: bool | None = None
            try:
                # A thread cannot be stopped, and whoever ends the server does not wait for it.
                is_right = await trio.to_thread.run_sync(check.run, abandon_on_cancel=True, limiter=self._limiter)
            except Exception:
                logger.exception("a password could not be checked")
            self._checked(check, is_right=is_right)
        self._workers -= 1

    def _next_check(self) -> _Check | None:
        return next((check for check in self._checks.values() if not check.is_running), None)

    def _checked(self, check: _Check, *, is_right: bool | None) -> None:
        """Tell all who have waited.  If it *is_right* is not known, that counts against nobody."""
        del self._checks[check.key]
        now = self._board.now
        proof = self.proven.add(check.mark, now) if is_right else None
        delays = {
            source: self._failures.end(check.scope, source, now, is_right=is_right is not False)
            for source in check.sources
        }
        for attempt in check.attempts:
            self._stop_waiting(check.scope)
            verdict: Verdict
            if proof is not None:
                verdict = attempt.admit(proof)
            elif is_right is None:
                verdict = Refusal(pages.logins_busy())
            else:
                verdict = Refusal(pages.login_required(check.scope), delays[attempt.source])
            self._decide(attempt, verdict)


class AskingVisitor(Member, Protocol):
    """A visitor who may have to wait."""

    @property
    def peer_address(self) -> str:
        """The other end of the connection, or whom it speaks for by a PROXY header."""
        ...


def _source(address: str) -> str:
    found = read_ip_address(address)
    return address if found is None else source_of(found)
