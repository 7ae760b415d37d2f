"""Whose turn it is: which names want a certificate, and when each may be ordered.  No I/O, no clock."""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from .budget import OrderBudget
from .failures import AcmeFailure, ValidationFailed
from .schedule import Attempts

MAX_NAMES: Final = 4096
"""Names that may want a certificate at a time: far more than an authority gives, and looked through in milliseconds."""

ORDERS_AT_ONCE: Final = 4
"""Orders under way at a time, so that a name whose validation takes long does not hold up the others."""

_NO_ATTEMPTS: Final = Attempts()


@attrs.define
class _Wanted:
    """A name that is to have a certificate.  *is_renewal*: it has had one."""

    is_renewal: bool
    renew_at: float = -math.inf


@attrs.frozen
class Turn:
    """A name that is to be ordered now.  *rejections*: validations that have failed since its last success."""

    name: str
    is_renewal: bool
    rejections: int


class Agenda:
    """The names, their attempts and the budget.

    Each turn is to be followed by `succeeded`, `failed`, `interrupted` or `stopped`.

    What is known of a name's failed attempts outlives `remove`, so that a tunnel that is opened again and again does
    not get its name more attempts.
    """

    def __init__(self, new_names: Mapping[str, float]) -> None:
        self._wanted: dict[str, _Wanted] = {}
        self._running: dict[str, bool] = {}  # The names, and whether they have had a certificate.
        self._attempts: dict[str, Attempts] = {}
        self._authority = Attempts()
        self._budget = OrderBudget(new_names)

    def __contains__(self, name: str) -> bool:
        return name in self._wanted

    def __repr__(self) -> str:
        return f"<Agenda wanted: {len(self._wanted)} running: {len(self._running)}>"

    @property
    def is_full(self) -> bool:
        """Whether no further name can be added."""
        return len(self._wanted) >= MAX_NAMES

    @property
    def new_names(self) -> dict[str, float]:
        """What the budget is to remember."""
        return self._budget.new_names

    def add(self, name: str, *, is_renewal: bool, renew_at: float = -math.inf) -> None:
        """Have *name* ordered from *renew_at* on.  *is_renewal*: it has had a certificate before.  Must not be full."""
        assert not self.is_full
        self._wanted[name] = _Wanted(is_renewal, renew_at)

    def remove(self, name: str) -> None:
        """Have *name* no longer ordered; an order under way goes on."""
        self._wanted.pop(name, None)

    def start_next(self, now: float) -> Turn | None:
        """Return whose turn it is now, if it is anybody's.

        Renewals come first, since a site runs on them; then those who have failed least, so that names which cannot be
        had do not use up the budget; then those who have asked first.
        """
        due = [(name, wanted) for name, wanted, time in self._due_times(now) if time <= now]
        if not due:
            return None
        name, wanted = min(due, key=self._rank)
        self._running[name] = wanted.is_renewal
        self._budget.spend(name, now, is_new=self._is_new(name, wanted))
        return Turn(name, wanted.is_renewal, self._attempts.get(name, _NO_ATTEMPTS).rejections)

    def next_due(self, now: float) -> float:
        """Return when `start_next` may find something, provided that nothing else happens until then."""
        return min((time for _, _, time in self._due_times(now)), default=math.inf)

    def held_until(self, now: float) -> float | None:
        """Return until when names are held back by nothing but the budget; None when there are none."""
        held = [time for name, wanted, time in self._due_times(now) if self._ready(name, wanted) <= now < time]
        return min(held, default=None)

    def succeeded(self, name: str, renew_at: float, now: float) -> None:
        """Take note that *name* has got a certificate."""
        if not self._running.pop(name):
            self._budget.confirm(name, now)
        self._attempts.pop(name, None)
        self._authority = Attempts()
        if name in self._wanted:
            self._wanted[name] = _Wanted(is_renewal=True, renew_at=renew_at)

    def failed(self, name: str, failure: AcmeFailure, now: float, jitter: float) -> float:
        """Take note that an attempt has failed; return when *name* may be ordered again."""
        del self._running[name]
        self._budget.give_back(name)
        self._authority = Attempts()  # It did answer.
        attempts = self._attempts.get(name, _NO_ATTEMPTS).failed(
            now, jitter, is_rejection=isinstance(failure, ValidationFailed), retry_after=failure.retry_after
        )
        self._remember(name, attempts)
        return attempts.not_before

    def interrupted(self, name: str, failure: AcmeFailure, now: float, jitter: float) -> float | None:
        """Take note that the authority is unavailable, which is no fault of *name*.

        Returns when anything may be ordered again; None when that is known already, from another order.
        """
        del self._running[name]
        self._budget.give_back(name)
        self._remember(name, self._attempts.get(name, _NO_ATTEMPTS).postponed(now))
        if self._authority.not_before > now:
            return None
        self._authority = self._authority.failed(now, jitter, retry_after=failure.retry_after)
        return self._authority.not_before

    def stopped(self, name: str) -> None:
        """Take note that the order was left where it was, and may be gone on with at any time."""
        del self._running[name]

    def _remember(self, name: str, attempts: Attempts) -> None:
        if name not in self._attempts and len(self._attempts) >= MAX_NAMES:
            del self._attempts[min(self._attempts, key=lambda name: self._attempts[name].not_before)]
        self._attempts[name] = attempts

    def _due_times(self, now: float) -> Iterator[tuple[str, _Wanted, float]]:
        """Give each name that no order is under way for, and when it may be ordered."""
        if len(self._running) >= ORDERS_AT_ONCE:
            return
        opening = self._budget.open_at(now, is_new=False)
        opening_for_new = self._budget.open_at(now, is_new=True)
        for name, wanted in self._wanted.items():
            if name not in self._running:
                opens = opening_for_new if self._is_new(name, wanted) else opening
                yield name, wanted, max(self._ready(name, wanted), opens)

    def _rank(self, entry: tuple[str, _Wanted]) -> tuple[bool, int]:
        name, wanted = entry
        return not wanted.is_renewal, self._attempts.get(name, _NO_ATTEMPTS).failures

    def _is_new(self, name: str, wanted: _Wanted) -> bool:
        return not wanted.is_renewal and not self._budget.has_counted(name)

    def _ready(self, name: str, wanted: _Wanted) -> float:
        attempts = self._attempts.get(name)
        not_before = attempts.not_before if attempts else -math.inf
        return max(wanted.renew_at, not_before, self._authority.not_before)
