"""Random faults and random traffic for some minutes: `python -m tests.chaos.soak --minutes N [--seed S]`.

It goes by rounds: visitors come, a fault or two happen, service must return, the visitors go home.  Then nothing of
them may be left, and the memory of server and client is read.  The warm-up is the rounds in which each fault has
happened once, at its worst and with all kinds of visitors: it does not depend on what memory does.  At the end, the
memory of each must be within 5 % of what it was after the warm-up.  Every byte is checked.

`--planted` runs a copy of the package that keeps something of each visitor, and fails unless that is found.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from ..fuzz.planting import copy_package
from .faults import forget_connection, lose_packets, reload_settings, stop, take_link_down
from .outcomes import describe
from .planted import MEMORY_LEAK
from .programs import ROOT, Descriptors, ProgramFailed, Usage, first_of, run
from .promises import chatter, endings, left_open, leftovers, mistakes, wrong_bytes
from .starting import open_world
from .trial import keep_logs
from .world import Setting, World

MEMORY_LIMIT: Final = 1.05
"""How much more memory a program may have at the end than after the warm-up."""

TRAFFIC: Final[Mapping[str, int]] = {
    "probe": 20,
    "chain": 2,
    "download": 2,
    "upload": 2,
    "websocket": 2,
    "echo": 2,
    "slow": 2,
    "abort": 2,
}
"""The most there is of each kind: probes a second, and visitors at a time."""

CALM: Final = 2.0
"""Seconds of visits before and after a fault."""

RETURN_LIMIT: Final = 40.0
"""Seconds in which service must return.  How soon it does is what the scenarios are for."""

LONGEST: Final = 4.0
"""Seconds that a fault lasts, at its worst."""


class Fault(Protocol):
    """Does harm for so many seconds, and ends it."""

    async def __call__(self, world: World, *, seconds: float) -> None: ...


async def reset(world: World, *, seconds: float) -> None:
    """Once, however long it might last."""
    await world.link.reset()


async def half_open(world: World, *, seconds: float) -> None:
    """For as long as nobody notices."""
    await forget_connection(world)


async def reload(world: World, *, seconds: float) -> None:
    """Once with good settings, and once with bad ones."""
    await reload_settings(world, times=1)


FAULTS: Final[Mapping[str, Fault]] = {
    "link down": take_link_down,
    "loss": partial(lose_packets, percent=10),
    "reset": reset,
    "half-open connection": half_open,
    "client stopped": partial(stop, which="client"),
    "server stopped": partial(stop, which="server"),
    "reload": reload,
}


@attrs.define(eq=False)
class Soak:
    """A world and what it has been through."""

    world: World
    chance: random.Random
    idle: Mapping[str, Descriptors]
    began: float = attrs.field(factory=time.monotonic)

    async def run(self, seconds: float) -> list[str]:
        """Go on for so long; return the promises that were not kept."""
        for name in FAULTS:
            warm = await self._round({name: LONGEST}, TRAFFIC)
        while True:
            latest = await self._round(self._some_faults(), self._some_traffic())
            if time.monotonic() - self.began > seconds:
                return [*grown(warm, latest), *self._broken(latest), *await leftovers(self.world)]

    def _some_faults(self) -> dict[str, float]:
        names = self.chance.sample(sorted(FAULTS), self.chance.randint(1, 2))
        return {name: self.chance.uniform(0.1, LONGEST) for name in names}

    def _some_traffic(self) -> dict[str, int]:
        return {kind: self.chance.randint(1, most) for kind, most in TRAFFIC.items()}

    async def _round(self, faults: Mapping[str, float], traffic: Mapping[str, int]) -> Mapping[str, Usage]:
        """Let visitors in, do harm one after the other, send them home, and return what is used then."""
        first = len(self.world.visits.all)
        await self.world.let_visitors_in(traffic)
        await self.world.wait_until_served(since=time.monotonic())
        for name, seconds in faults.items():
            await trio.sleep(CALM)
            await FAULTS[name](self.world, seconds=seconds)
            await self.world.wait_until_served(since=time.monotonic(), limit=RETURN_LIMIT)
        await self.world.link.heal()
        await trio.sleep(CALM)
        await self.world.send_visitors_home()
        usages = await self.world.settle(self.idle)
        memory = ", ".join(f"{name} {its.rss:,} KiB" for name, its in usages.items())
        saw = describe(self.world.visits.all[first:])
        print(f"{time.monotonic() - self.began:5.0f} s: {' and '.join(faults)}: {saw}; {memory}", flush=True)
        return usages

    def _broken(self, latest: Mapping[str, Usage]) -> list[str]:
        world = self.world
        return [*wrong_bytes(world), *endings(world), *mistakes(world), *chatter(world), *left_open(self.idle, latest)]


def grown(warm: Mapping[str, Usage], latest: Mapping[str, Usage]) -> Iterator[str]:
    """Say how much memory each program has, and tell of those that have too much."""
    for name, its in latest.items():
        ratio = its.rss / warm[name].rss
        print(f"{name}: {warm[name].rss:,} KiB after the warm-up, {its.rss:,} KiB at the end: {ratio:.3f}", flush=True)
        if ratio > MEMORY_LIMIT:
            yield f"the {name} has {(ratio - 1) * 100:.1f} % more memory than after the warm-up"


async def soak(setting: Setting, seconds: float) -> list[str]:
    """Soak a world of its own; return the promises that were not kept."""
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="otun-soak-") as name:
        try:
            async with open_world(Path(name), setting) as world:
                print(f"seed {setting.seed}, {world.link.kind}", flush=True)
                broken = await Soak(world, random.Random(setting.seed), await world.wait_until_open()).run(seconds)
        except* ProgramFailed as group:
            broken = [str(first_of(group))]
        if broken:
            keep_logs(Path(name), "soak")
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2, metavar="N", help="how long, warm-up included [default: 2]")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="of the faults and the traffic [any]")
    parser.add_argument("--relay", action="store_true", help="make no network namespaces, as where there are none")
    parser.add_argument("--planted", action="store_true", help="with a leak, which must be found")
    options = parser.parse_args()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="otun-planted-") as name:
        package = ROOT
        if options.planted:
            package = Path(name)
            copy_package(package, MEMORY_LEAK)
        setting = Setting(link="relay" if options.relay else "machines", seed=seed, package=package)
        broken = run(soak, setting, options.minutes * 60)
    for promise in broken:
        print(f"BROKEN: {promise}")
    if options.planted:
        has_found = any("more memory" in promise for promise in broken)
        print("the leak was found" if has_found else "the leak was NOT found")
        return 0 if has_found else 1
    print(f"{int(not broken)} passed, {int(bool(broken))} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
