"""Lines in the log about strangers: anybody can cause them, so there are only so many."""

import logging
from collections.abc import Callable
from typing import Final

from ..access.rates import TokenBucket
from ..addresses import TcpAddress

logger: logging.Logger = logging.getLogger(__name__)

LINES_AT_ONCE: Final = 100
"""Lines that may come at once."""

LINES_PER_SECOND: Final = 5
"""Lines a second in the long run: a log of some 50 MiB a day."""


class Reports:
    """Says what those who are *called* so did wrong, and how often it was not said."""

    def __init__(self, clock: Callable[[], float], *, called: str) -> None:
        self._called = called
        self._clock = clock
        self._lines = TokenBucket(LINES_PER_SECOND, burst=LINES_AT_ONCE)
        self._omitted = 0

    def add(self, peer: TcpAddress | str, text: str) -> None:
        """Write a line about *peer*, unless there have been too many."""
        if self._lines.take(self._clock()):
            self._omitted += 1
            return
        if self._omitted:
            logger.info("%d lines about a %s were left out", self._omitted, self._called)
            self._omitted = 0
        logger.info("%s %s: %s", self._called, peer, text)
