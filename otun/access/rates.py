"""How much may be done in a time: so many at once and then so many a second, bytes a second, bytes a day.

*now* is an argument everywhere, in seconds.  A clock that goes back gives nothing, and takes nothing away.
"""

import math
from datetime import UTC, datetime
from typing import Final

SECONDS_A_DAY: Final = 86_400

_ROUNDING: Final = 1e-6
"""What may be missing of a whole one: waiting for just as long as it was said must do, whatever floats make of it."""


class _Bucket:
    """Holds *burst*, as it does in the beginning, and gets *per_second* again."""

    __slots__ = ("_burst", "_filled_at", "_left", "_per_second")

    def __init__(self, per_second: float, burst: float) -> None:
        if not 0 < per_second < math.inf:
            raise ValueError(f"a rate is a number over 0, not {per_second}")
        self._per_second = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._filled_at = -math.inf

    def is_full(self, now: float) -> bool:
        """Whether it is as in the beginning."""
        self._fill(now)
        return self._left >= self._burst

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            self._left = min(self._left + (now - self._filled_at) * self._per_second, self._burst)
            self._filled_at = now


class TokenBucket(_Bucket):
    """Allows *burst* things at once, and then *per_second* of them.  It is full in the beginning."""

    __slots__ = ()

    def __init__(self, per_second: float, *, burst: float) -> None:
        if not 1 <= burst < math.inf:
            raise ValueError(f"a burst is a number from 1 up, not {burst}")
        super().__init__(per_second, burst)

    def __repr__(self) -> str:
        return f"<TokenBucket {self._left:.1f} of {self._burst:g} left, {self._per_second:g} a second>"

    def take(self, now: float) -> float:
        """Take one, and return 0; or take none, and return in how many seconds there will be one."""
        delay = self.delay(now)
        if not delay:
            self._left = max(self._left - 1, 0.0)
        return delay

    def delay(self, now: float) -> float:
        """Return in how many seconds there will be one to take; never less than 0."""
        self._fill(now)
        missing = 1 - self._left
        return missing / self._per_second if missing > _ROUNDING else 0.0


class Bandwidth(_Bucket):
    """Lets *per_second* bytes pass a second in the long run, after *burst* bytes at once.

    Whoever reads does not know before how much there is, so it is told afterwards for how long not to read: what
    is left can be under zero.
    """

    __slots__ = ()

    def __init__(self, per_second: float, *, burst: float) -> None:
        if not 0 <= burst < math.inf:
            raise ValueError(f"a burst is a number of bytes, not {burst}")
        super().__init__(per_second, burst)

    def __repr__(self) -> str:
        return f"<Bandwidth {self._left:.0f} of {self._burst:g} bytes left, {self._per_second:g} a second>"

    def passed(self, size: int, now: float) -> float:
        """Count *size* bytes that have passed, and return for how many seconds to read nothing more."""
        self._fill(now)
        self._left -= size
        return self.pause(now)

    def pause(self, now: float) -> float:
        """Return for how many seconds to read nothing more; never less than 0."""
        self._fill(now)
        return max(-self._left, 0.0) / self._per_second


class DailyBytes:
    """Lets *limit* bytes pass a day.  Days are those of UTC: *now* is Unix time."""

    __slots__ = ("_day", "_limit", "_used")

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"a limit is a number of bytes, not {limit}")
        self._limit = limit
        self._used = 0
        self._day = -(2**63)  # Before every day that there is.

    def __repr__(self) -> str:
        return f"<DailyBytes {self._used} of {self._limit} used>"

    def passed(self, size: int, now: float) -> int:
        """Count *size* bytes that have passed, and return how many more may on this day."""
        self._turn_page(now)
        self._used = min(self._used + size, self._limit)
        return self._limit - self._used

    def left(self, now: float) -> int:
        """Return how many bytes may still pass on this day; never less than 0."""
        self._turn_page(now)
        return self._limit - self._used

    def _turn_page(self, now: float) -> None:
        day = math.floor(now / SECONDS_A_DAY)
        if day > self._day:
            self._day = day
            self._used = 0


def day_of(now: float) -> str:
    """Return the day of UTC on which *now*, in Unix time, is: `2026-12-31`."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"


def until_next_day(now: float) -> float:
    """Return the seconds from *now*, in Unix time, to the next day of UTC."""
    return SECONDS_A_DAY - now % SECONDS_A_DAY
