"""Noticing that the machine was asleep: the clock that does not stop then has gone ahead of the one that does."""

import time
from collections.abc import Callable
from typing import Final

import trio

CHECK_INTERVAL: Final = 2.0
"""Seconds between two looks at the clocks: no system tells a program without privileges that it has slept."""

SHORTEST_SUSPEND: Final = 1.0
"""Seconds of sleep that count: a clock that was set, or two that were not read at once, are no sleep."""


def suspended_seconds() -> float:
    """Return for how long the machine has been asleep since it was started; always 0 where that cannot be known."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):  # macOS, where CLOCK_MONOTONIC is the one that goes on
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


async def watch_for_suspend(suspended: Callable[[], float], on_waking: Callable[[], None]) -> None:
    """Call *on_waking* soon after each time that the machine was asleep, until cancelled.

    *suspended* is `suspended_seconds`.
    """
    before = suspended()
    while True:
        await trio.sleep(CHECK_INTERVAL)
        now = suspended()
        if now - before >= SHORTEST_SUSPEND:
            on_waking()
        before = now
