"""How it is noticed that the machine was asleep."""

import time

import pytest
import trio

from otun.client.suspend import CHECK_INTERVAL, SHORTEST_SUSPEND, suspended_seconds, watch_for_suspend


@pytest.mark.parametrize("clocks", [("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"), ("CLOCK_MONOTONIC", "CLOCK_UPTIME_RAW")])
def test_the_clock_that_does_not_stop_tells_it(monkeypatch: pytest.MonkeyPatch, clocks: tuple[str, str]) -> None:
    """The first pair is Linux's, the second one macOS's."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_UPTIME_RAW"):
        monkeypatch.delattr(time, name, raising=False)
    for name in clocks:
        monkeypatch.setattr(time, name, name, raising=False)
    times = dict(zip(clocks, (1000.0, 400.0), strict=True))
    monkeypatch.setattr(time, "clock_gettime", times.__getitem__)
    assert suspended_seconds() == 600.0


def test_without_such_a_clock_it_cannot_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOCK_BOOTTIME", "CLOCK_UPTIME_RAW"):
        monkeypatch.delattr(time, name, raising=False)
    assert suspended_seconds() == 0.0


async def test_each_waking_is_told_once_and_small_steps_are_none(autojump_clock) -> None:
    slept, woken = 0.0, []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_for_suspend, lambda: slept, lambda: woken.append(trio.current_time()))
        for step in (SHORTEST_SUSPEND / 2, 0.0, -5.0, 3600.0, 0.0, SHORTEST_SUSPEND):
            await trio.sleep(1.5 * CHECK_INTERVAL)
            slept += step
        await trio.sleep(1.5 * CHECK_INTERVAL)
        nursery.cancel_scope.cancel()
    assert len(woken) == 2
