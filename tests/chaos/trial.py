"""One scenario, from its world's beginning to its end, and what came of it."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from .outcomes import PROBE, Visits, describe, longest_gap
from .programs import ROOT, Descriptors, ProgramFailed, Usage, first_of
from .promises import chatter, endings, left_open, leftovers, mistakes, wrong_bytes
from .scenarios import Scenario
from .starting import open_world
from .world import World

CALM: Final = 3.0
"""Seconds of visits before anything is measured, and after service has returned: these must all be good."""

BEFORE: Final = 1.0
"""Seconds of visits, before harm is done, so that there is something that can be cut off."""

GRACE: Final = 0.5
"""Seconds from the first good answer by one tunnel until all tunnels must be there: they are opened in turn."""

NOTICEABLE: Final = 3.0
"""Seconds without a good answer to any probe that count as an interruption, even if nothing fails."""

MEMORY_LIMIT: Final = 16 * 1024
"""KiB that a program may have more after a fault than before it: one stream's window, at its largest.

What grows by less and never stops growing is found by the soak, which goes on for longer.
"""

WAITING_LIMIT: Final = 60.0
"""Seconds to wait for service, so that the table can say how late it was."""

KEPT_LOGS: Final = ROOT / "build" / "chaos"
"""Where the logs of a scenario are left that has shown a broken promise."""


@attrs.frozen(kw_only=True)
class Report:
    """What a scenario has shown; *broken* are the promises that were not kept, *late* is the one about time."""

    scenario: Scenario
    link: str = ""
    saw: str = ""
    recovery: str = ""
    lost: str = ""
    growth: str = ""
    broken: Sequence[str] = ()
    late: str = ""

    @property
    def is_good(self) -> bool:
        """Whether all promises were kept."""
        return not self.broken and not self.late

    @property
    def row(self) -> str:
        """The line of the table."""
        return f"| `{self.scenario.name}`: {self.scenario.what} | {self.saw} | {self.recovery} | {self.lost} |"

    def __str__(self) -> str:
        head = (
            f"{self.scenario.name} ({self.link}): {self.saw}; back: {self.recovery}; lost: {self.lost}; {self.growth}"
        )
        return "\n".join([head, *(f"  BROKEN: {promise}" for promise in [*self.broken, self.late] if promise)])


async def try_out(scenario: Scenario, *, calm: float = CALM) -> Report:
    """Try *scenario* out in a world of its own, with so many seconds of visits before and after."""
    report = Report(scenario=scenario)
    with tempfile.TemporaryDirectory(prefix="otun-chaos-") as name:
        try:
            async with open_world(Path(name), scenario.setting) as world:
                report = await _try_out(scenario, world, calm)
        except* ProgramFailed as group:
            report = attrs.evolve(report, broken=[str(first_of(group))])
        if not report.is_good:
            keep_logs(Path(name), scenario.name)
    return report


def keep_logs(folder: Path, name: str) -> None:
    """Leave what the programs said where it can be read."""
    kept = KEPT_LOGS / name
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.glob("*.log"):
        shutil.copy(log, kept)


@attrs.frozen
class Times:
    """When the fault began and had gone, and when service was back; seconds of the monotonic clock."""

    begin: float
    gone: float
    back: float


async def _try_out(scenario: Scenario, world: World, calm: float) -> Report:
    idle = await world.wait_until_open()
    before = await _warm_up(world, idle, calm)
    await world.let_visitors_in(scenario.traffic)
    await world.wait_until_served(since=time.monotonic())
    await trio.sleep(BEFORE)
    begin = time.monotonic()
    await scenario.harm(world)
    gone = time.monotonic()
    back = (await world.wait_until_served(since=gone, limit=WAITING_LIMIT)).ended
    await trio.sleep(calm)
    await world.send_visitors_home()
    left = time.monotonic()
    after = await world.settle(idle)
    rest = time.monotonic() - left
    broken = [
        *_failures(scenario, world.visits, Times(begin, gone, back)),
        *([] if scenario.may_damage else wrong_bytes(world)),
        *endings(world),
        *mistakes(world),
        *chatter(world),
        *left_open(idle, after),
        *await leftovers(world),
        *_growth(before, after),
    ]
    visits = world.visits.between(begin, back)
    failed = [visit for visit in visits if not visit.is_good]
    is_interrupted = bool(failed) or longest_gap(visits, begin, back) >= NOTICEABLE
    return Report(
        scenario=scenario,
        link=world.link.kind,
        saw=f"{describe(visits)} (the slowest after {max(v.ended - v.began for v in visits):.1f} s)",
        recovery=f"{back - gone:.1f} s" if is_interrupted else "served throughout",
        lost=f"{len(failed):,} of {len(visits):,}" if failed else "nothing",
        growth=", ".join(f"{name} {after[name].rss - before[name].rss:+,} KiB" for name in before)
        + f", idle after {rest:.1f} s",
        broken=broken,
        late=_lateness(scenario, gone, back),
    )


async def _warm_up(world: World, idle: Mapping[str, Descriptors], calm: float) -> dict[str, Usage]:
    """Have everything used once, and return what the programs have then."""
    await world.let_visitors_in()
    await world.wait_until_served(since=0)
    await trio.sleep(calm)
    await world.send_visitors_home()
    return await world.settle(idle)


def _lateness(scenario: Scenario, gone: float, back: float) -> str:
    if back - gone <= scenario.limit:
        return ""
    return f"service was back after {back - gone:.1f} s, which is more than {scenario.limit:g}"


def _failures(scenario: Scenario, visits: Visits, times: Times) -> Iterator[str]:
    """Without a fault, nothing fails; and where visitors are held, they need not know that service was away."""
    failed = [visit for visit in visits.all if not visit.is_good]
    suspects = {
        "before anything had happened, visitors had": [visit for visit in failed if visit.ended < times.begin],
        "after service was back, visitors had": [visit for visit in failed if visit.began > times.back + GRACE],
    }
    if scenario.is_uninterrupted:
        suspects["visitors should have noticed nothing, but had"] = [
            visit for visit in visits.between(times.begin, times.back) if not visit.is_good
        ]
    if scenario.is_held:
        suspects["probes should have waited until service was back, but had"] = [
            visit for visit in failed if visit.kind == PROBE and times.gone < visit.began <= times.back
        ]
    for complaint, those in suspects.items():
        if those:
            yield f"{complaint} {describe(those)}"


def _growth(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> Iterator[str]:
    for name, its in after.items():
        grown = its.rss - before[name].rss
        if grown > MEMORY_LIMIT:
            yield f"the {name} has grown by {grown:,} KiB"
