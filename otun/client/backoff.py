"""How long to wait before the next attempt to reach the server.  All times are seconds on one clock."""

from collections.abc import Callable
from typing import Final

FIRST_DELAY: Final = 0.2
"""The longest that the first wait of an outage can be; each further one may be twice as long."""

MAX_DELAY: Final = 2.0
"""The longest wait in the first minutes of an outage: a server that has restarted is found again soon."""

LONG_OUTAGE: Final = 300.0
"""After so long, haste is of no use."""

MAX_DELAY_IN_LONG_OUTAGE: Final = 30.0

HEALTHY_AFTER: Final = 60.0
"""A connection that has lasted for so long ends an outage; one that is lost sooner was a part of it."""


class Backoff:
    """Exponential back-off with full jitter: a thousand clients that have lost a server do not come back at once.

    *random* returns a number from 0 up to, but not including, 1, as `random.random` does.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempts = 0
        self._began: float | None = None  # The outage, if there is one.
        self._connected_at: float | None = None

    @property
    def attempts(self) -> int:
        """How many delays there were in this outage."""
        return self._attempts

    def connected(self, now: float) -> None:
        """The server was reached, and has taken the tunnels."""
        self._connected_at = now

    def next_delay(self, now: float) -> float:
        """Return how long to wait before the next attempt: the connection was lost, or an attempt has failed."""
        if self._connected_at is not None and now - self._connected_at >= HEALTHY_AFTER:
            self._began = None
        self._connected_at = None
        if self._began is None:
            self._began = now
            self._attempts = 0
        is_long = now - self._began >= LONG_OUTAGE
        longest = MAX_DELAY_IN_LONG_OUTAGE if is_long else MAX_DELAY
        delay = min(FIRST_DELAY * 2.0 ** min(self._attempts, 16), longest)
        self._attempts += 1
        return self._random() * delay
