"""A world works from its beginning to its end; `python -m tests.chaos` tries all faults out, at their length."""

import attrs
import trio

from .scenarios import BY_NAME
from .trial import Report, try_out

LIMIT = 120.0


async def try_out_in_time(scenario) -> Report:
    with trio.fail_after(LIMIT):
        return await try_out(scenario, calm=0.5)


def test_promises_are_kept_when_the_server_is_killed() -> None:
    """However late: no test here is about speed."""
    report = trio.run(try_out_in_time, attrs.evolve(BY_NAME["kill-server"], limit=LIMIT))
    print(report)
    assert not report.broken
