"""What visitors use, and how much of it is left: of one tunnel, or of all tunnels of an identity.

*now* is the board's time; *unix* is Unix time, by which days are told apart.
"""

import sys
from typing import Final

from ..access import UNLIMITED, Quota
from ..access.rates import Bandwidth, DailyBytes, TokenBucket
from .settings import REQUEST_BURST

BANDWIDTH_BURST: Final = 1.0
"""Seconds' worth of bytes that may pass at once: nobody waits who needs less than that now and then."""


class Meter:
    """Counts what passes, as far as it is limited.  `limit` says how much may."""

    def __init__(self) -> None:
        self.quota: Quota = UNLIMITED
        self._requests: TokenBucket | None = None
        self._bandwidth: Bandwidth | None = None
        self._daily: DailyBytes | None = None

    def __repr__(self) -> str:
        return f"<Meter {self._requests} {self._bandwidth} {self._daily}>"

    def limit(self, quota: Quota, used: int, unix: float) -> None:
        """Let no more than *quota* pass from now on; *used* bytes have done so on this day.

        Of limits that stay as they are, nothing is given back.
        """
        before, self.quota = self.quota, quota
        if quota.requests != before.requests:
            per_second = quota.requests
            self._requests = None if per_second is None else TokenBucket(per_second, burst=per_second * REQUEST_BURST)
        if quota.bandwidth != before.bandwidth:
            per_second = quota.bandwidth
            self._bandwidth = None if per_second is None else Bandwidth(per_second, burst=per_second * BANDWIDTH_BURST)
        if quota.daily != before.daily:
            self._daily = None if quota.daily is None else DailyBytes(quota.daily)
            if self._daily is not None:
                self._daily.passed(used, unix)

    def request_delay(self, now: float) -> float:
        """Return in how many seconds there may be another request."""
        return 0.0 if self._requests is None else self._requests.delay(now)

    def take_request(self, now: float) -> None:
        """Count a request."""
        if self._requests is not None:
            self._requests.take(now)

    def pause(self, now: float) -> float:
        """Return for how many seconds no byte may pass."""
        return 0.0 if self._bandwidth is None else self._bandwidth.pause(now)

    def left_today(self, unix: float) -> int:
        """Return how many bytes may still pass on this day."""
        return sys.maxsize if self._daily is None else self._daily.left(unix)

    def passed(self, size: int, now: float, unix: float) -> None:
        """Count *size* bytes that have passed."""
        if self._bandwidth is not None:
            self._bandwidth.passed(size, now)
        if self._daily is not None:
            self._daily.passed(size, unix)

    def is_at_rest(self, now: float) -> bool:
        """Whether it would be the same if it were new; what has passed on this day is known elsewhere."""
        return (self._requests is None or self._requests.is_full(now)) and (
            self._bandwidth is None or self._bandwidth.is_full(now)
        )
