"""What is left of an `Allowance`: a bucket that fills again with time."""

from ..errors import LimitExceeded
from .limits import Allowance


class Budget:
    """Counts what the peer does.  *limit* and *deed* are for the error: the field's name, and what was done."""

    __slots__ = ("_allowance", "_deed", "_filled_at", "_left", "_limit")

    def __init__(self, allowance: Allowance, limit: str, deed: str) -> None:
        self._allowance = allowance
        self._limit = limit
        self._deed = deed
        self._left = float(allowance.at_once)
        self._filled_at = 0.0

    def spend(self, now: float) -> None:
        """Take note that it happened once more.  Raises `LimitExceeded` when that was too often."""
        allowance = self._allowance
        gained = (now - self._filled_at) * allowance.per_second
        self._filled_at = now
        self._left = min(self._left + gained, allowance.at_once)
        if self._left < 1:
            raise LimitExceeded(
                f"the peer {self._deed} more than {allowance.at_once:,} times,"
                f" and then more than {allowance.per_second:,.0f} times a second",
                limit=self._limit,
            )
        self._left -= 1
