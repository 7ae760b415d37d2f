"""Failed log-ins: those who fail often are answered later, and then not at all for a while.  *now* is an argument.

Failures are counted for each pair of a scope (the tunnel, so that one tunnel's owner cannot lock visitors of another's
out) and a source (where the visitor comes from).  A success makes none of them undone: who has one password could
otherwise try out others' for ever.
"""

import math
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

import attrs

FREE_FAILURES: Final = 3
"""Failures without consequences: people mistype."""

DELAY: Final = 1.0
"""Seconds by which the answer is delayed for each failure beyond them."""

MAX_FAILURES: Final = 10
"""Failures after which a source is refused; log-ins that are being checked count until they turn out to be right."""

REFUSAL_TIME: Final = 300.0
"""Seconds for which it is refused then: with them, a source has some 2,000 guesses a day."""

MEMORY: Final = 900.0
"""Seconds after the last failure in which it is forgotten."""

MAX_SOURCES: Final = 10_000
"""Sources that are remembered, of 300 bytes or so each.  Beyond them, the scope that has most forgets its oldest."""

SOURCE_PREFIX: Final = 64
"""Bits of an IPv6 address that count: whoever has one network has all addresses in it."""


def source_of(address: IPv4Address | IPv6Address) -> str:
    """Return what stands for *address* in the table."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, SOURCE_PREFIX), strict=False).network_address)


@attrs.define(eq=False)
class _Record:
    last: float
    failures: int = 0
    pending: int = 0
    refused_until: float = -math.inf


class FailedLogins:
    """The table of those who have failed, or are being checked."""

    def __init__(self) -> None:
        self._scopes: dict[str, dict[str, _Record]] = {}  # The oldest first, in each.
        self._size = 0

    def __repr__(self) -> str:
        return f"<FailedLogins of {self._size} sources>"

    def __len__(self) -> int:
        return self._size

    def begin(self, scope: str, source: str, now: float) -> float:
        """Take note of a log-in that is about to be checked, and return 0; call `withdraw` or `end` later.

        Otherwise it must not be checked: return for how many seconds the source is refused.
        """
        record = self._find(scope, source, now)
        if record is None:
            record = self._add(scope, source, now)
        elif record.refused_until > now:
            return record.refused_until - now
        elif record.failures + record.pending >= MAX_FAILURES:
            return DELAY  # Soon it is known what becomes of those that are pending.
        record.pending += 1
        return 0.0

    def withdraw(self, scope: str, source: str) -> None:
        """Undo `begin`: the log-in was not checked after all."""
        record = self._scopes[scope][source]
        record.pending -= 1
        if not record.pending and not record.failures:
            self._remove(scope, source)

    def end(self, scope: str, source: str, now: float, *, is_right: bool) -> float:
        """Take note of how a log-in that was begun has turned out; return by how many seconds to delay the answer."""
        if is_right:
            self.withdraw(scope, source)
            return 0.0
        records = self._scopes[scope]
        record = records[source] = records.pop(source)  # It is the youngest now.
        record.pending -= 1
        record.failures += 1
        record.last = max(now, record.last)
        delay = max(record.failures - FREE_FAILURES, 0) * DELAY
        if record.failures >= MAX_FAILURES:
            record.failures = FREE_FAILURES
            record.refused_until = now + REFUSAL_TIME
        return delay

    def _find(self, scope: str, source: str, now: float) -> _Record | None:
        record = self._scopes.get(scope, {}).get(source)
        if record is None or record.pending or now - record.last < MEMORY:
            return record
        self._remove(scope, source)
        return None

    def _add(self, scope: str, source: str, now: float) -> _Record:
        if self._size >= MAX_SOURCES:
            self._forget_one()
        record = self._scopes.setdefault(scope, {})[source] = _Record(now)
        self._size += 1
        return record

    def _forget_one(self) -> None:
        largest = max(self._scopes, key=lambda scope: len(self._scopes[scope]))
        oldest = next(self._settled(largest), None)
        if oldest is not None:  # Those that are pending are fewer by far than the table holds.
            self._remove(largest, oldest)

    def _settled(self, scope: str) -> Iterator[str]:
        return (source for source, record in self._scopes[scope].items() if not record.pending)

    def _remove(self, scope: str, source: str) -> None:
        records = self._scopes[scope]
        del records[source]
        if not records:
            del self._scopes[scope]
        self._size -= 1
