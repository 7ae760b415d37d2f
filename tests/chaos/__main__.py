"""Tries faults out: `python -m tests.chaos [--jobs N] [--write] [NAME …]`.

Without names, all of them.  It fails when a promise is broken; one about time must be broken twice.  If none is,
`--write` puts the table into README.md.  Where network namespaces cannot be made, the link between client and server is
a relay; each report says which it was.  With `--planted`, promises are broken on purpose, which must be told.
"""

import argparse
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
import trio

from .planted import PLANTED, Broken
from .programs import ROOT, run
from .scenarios import ALL, BY_NAME, Scenario
from .trial import Report, try_out

T = TypeVar("T")
R = TypeVar("R")

README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- faults: begin -->\n"
END: Final = "<!-- faults: end -->\n"

HEAD: Final = "| fault | what visitors saw | back after | lost |\n|---|---|---|---|\n"


async def try_all(scenarios: Sequence[Scenario], jobs: int) -> list[Report]:
    """Try them out, several at a time, and print each report as it comes; return them in their order."""
    return await _do_all(_try_twice, scenarios, jobs)


async def _try_twice(scenario: Scenario) -> Report:
    report = await try_out(scenario)
    if report.late and not report.broken:
        print(f"{report}\n  once more, as machines that have other things to do are slow", flush=True)
        report = await try_out(scenario)
    print(report, flush=True)
    return report


async def try_planted(planted: Sequence[Broken], jobs: int) -> list[bool]:
    """Break promises on purpose, several at a time; return whether each was told."""
    return await _do_all(_is_told, planted, jobs)


async def _is_told(broken: Broken) -> bool:
    report = await broken.try_out()
    found = [promise for promise in [*report.broken, report.late] if broken.told in promise]
    verdict = f"broken, and told: {found[0]}" if found else f"broken, but NOT told: {report}"
    print(f"{broken.promise}: {verdict}", flush=True)
    return bool(found)


async def _do_all(work: Callable[[T], Awaitable[R]], items: Sequence[T], jobs: int) -> list[R]:
    """Do it for all *items*, several at a time; return what comes of them in their order."""
    results: dict[int, R] = {}
    limiter = trio.CapacityLimiter(jobs)

    async def do(number: int, item: T) -> None:
        async with limiter:
            results[number] = await work(item)

    async with trio.open_nursery() as nursery:
        for number, item in enumerate(items):
            nursery.start_soon(do, number, item)
    return [results[number] for number in range(len(items))]


def table_of(reports: Sequence[Report]) -> str:
    """Return the table, and what its link was made of."""
    relayed = [report.scenario.name for report in reports if report.link.startswith("relay")]
    link = f"; by a relay: {', '.join(relayed)}" if relayed else ""
    rows = "".join(f"{report.row}\n" for report in reports)
    return f"{HEAD}{rows}\n{os.cpu_count()} cores, {platform.system()} {platform.machine()}{link}.\n"


def write_readme(table: str, readme: Path = README) -> None:
    """Put *table* between the two markers.  Raises `ValueError` unless they are there once each."""
    text = readme.read_text()
    if (text.count(BEGIN), text.count(END)) != (1, 1):
        raise ValueError(f"{readme} needs the lines {BEGIN.strip()} and {END.strip()}, once each")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="worlds at a time [default: 2]")
    parser.add_argument("--relay", action="store_true", help="make no network namespaces, as where there are none")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--planted", action="store_true", help="break promises on purpose, which must be told")
    options = parser.parse_args()
    if options.planted:
        return _count(run(try_planted, PLANTED, options.jobs))
    unknown = set(options.names) - set(BY_NAME)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not among {', '.join(BY_NAME)}")
    if options.names and options.write:
        parser.error("--write: the table is of all of them")
    chosen = [BY_NAME[name] for name in options.names] or list(ALL)
    if options.relay:
        chosen = [attrs.evolve(one, setting=attrs.evolve(one.setting, link="relay")) for one in chosen]
    reports = run(try_all, chosen, options.jobs)
    table = table_of(reports)
    print(f"\n{table}")
    verdicts = [report.is_good for report in reports]
    if options.write and all(verdicts):
        write_readme(table)
    return _count(verdicts)


def _count(verdicts: Sequence[bool]) -> int:
    """Say how many have passed, and return the exit code."""
    passed = sum(verdicts)
    print(f"{passed} passed, {len(verdicts) - passed} failed")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
