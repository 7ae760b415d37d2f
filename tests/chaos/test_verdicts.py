"""What the reports say of what visitors saw, and that each promise can be broken."""

from collections import Counter
from pathlib import Path

import attrs
import pytest

from .__main__ import BEGIN, END, write_readme
from .outcomes import Visit, Visits, describe, longest_gap
from .planted import MEMORY_LEAK, PLANTED, Broken
from .programs import Program, Usage
from .promises import chatter, endings, left_open, mistakes, wrong_bytes
from .scenarios import BY_NAME, Scenario
from .soak import grown
from .trial import Report, Times, _failures, _growth, _lateness

KILL, REPLACE, RST_STORM = (BY_NAME[name] for name in ("kill-client", "replace-server", "rst-storm"))


def probe(began: float, outcome: str = "right") -> Visit:
    return Visit("probe", outcome, began, began + 0.1)


def complaints(scenario: Scenario, *visits: Visit) -> list[str]:
    """Return what is told of visits when the fault lasts from 8 to 10, and service is back at 12."""
    return [*_failures(scenario, Visits([*visits]), Times(begin=8.0, gone=10.0, back=12.0))]


@attrs.define
class Seen:
    """What of a world the promises look at."""

    programs: tuple[Program, Program]
    service: Program
    visits: Visits = attrs.field(factory=Visits)

    @property
    def server(self) -> Program:
        return self.programs[0]


@pytest.fixture
def world(tmp_path: Path) -> Seen:
    server, client, service = (Program(name, [], tmp_path / f"{name}.log") for name in ("server", "client", "service"))
    for program in (server, client):
        program.log.touch()
    return Seen((server, client), service)


def usage(rss: int = 50_000, **descriptors: int) -> dict[str, Usage]:
    return {"server": Usage(Counter(descriptors), rss)}


def test_outcomes_are_counted_with_the_good_ones_first() -> None:
    visits = [probe(0, "502"), probe(1, "502"), probe(2, "502"), probe(3), probe(4), probe(5, "reset")]
    assert describe(visits) == "2 right, 3 x 502, 1 reset"


def test_the_longest_time_without_a_good_answer() -> None:
    visits = [probe(1.0), probe(2.0, "502"), probe(3.0), Visit("download", "right", 4.0, 4.1)]
    assert longest_gap(visits, 0, 7) == pytest.approx(7 - 3.1)


def test_wrong_bytes_at_either_end_are_told(world: Seen) -> None:
    assert not [*wrong_bytes(world)]
    world.visits.add(Visit("download", "wrong", 0, 1, "at 5"))
    world.service.lines.append('{"wrong": "at 6"}')
    assert len([*wrong_bytes(world)]) == 2


def test_programs_that_have_ended_are_told(world: Seen) -> None:
    assert len([*endings(world)]) == 2


def test_a_bug_in_the_log_is_told(world: Seen) -> None:
    world.server.log.write_text(
        "2026-11-24 00:00:00 ERROR otun.switchboard.board: <Visitor> failed and is closed: KeyError\n"
    )
    assert len([*mistakes(world)]) == 1


def test_more_than_one_line_a_second_about_a_shortage_is_told(world: Seen) -> None:
    line = "2026-11-24 00:00:0{} ERROR otun.switchboard.listener: cannot accept connections: Too many open files\n"
    world.server.log.write_text(line.format(1) + line.format(2))
    assert not [*chatter(world)]
    world.server.log.write_text(line.format(1) * 2)
    assert len([*chatter(world)]) == 1


@pytest.mark.parametrize("now", [2, 4])
def test_descriptors_that_were_not_there_or_have_gone_are_told(now: int) -> None:
    idle = {"server": Counter(socket=3)}
    assert not [*left_open(idle, usage(socket=3))]
    assert len([*left_open(idle, usage(socket=now))]) == 1


def test_memory_that_has_grown_by_more_than_a_window_is_told() -> None:
    assert not [*_growth(usage(50_000), usage(60_000))]
    assert len([*_growth(usage(50_000), usage(70_000))]) == 1


def test_service_that_is_back_late_is_told() -> None:
    assert Report(scenario=KILL, late=_lateness(KILL, 10.0, 12.9)).is_good
    assert not Report(scenario=KILL, late=_lateness(KILL, 10.0, 13.1)).is_good


@pytest.mark.parametrize("began", [5.0, 13.0])
def test_failures_before_the_fault_and_after_service_was_back_are_told(began: float) -> None:
    assert not complaints(RST_STORM, probe(11.0, "502"), probe(12.0))
    assert len(complaints(RST_STORM, probe(began, "502"))) == 1


def test_failures_of_those_who_should_have_waited_are_told() -> None:
    assert not complaints(KILL, probe(9.0, "502"), probe(12.0))
    assert len(complaints(KILL, probe(11.0, "502"))) == 1


def test_failures_of_those_who_should_have_noticed_nothing_are_told() -> None:
    assert not complaints(REPLACE, probe(9.0), probe(11.0))
    assert len(complaints(REPLACE, probe(9.0, "reset"))) == 1


def test_memory_beyond_five_per_cent_is_told_by_the_soak() -> None:
    assert not [*grown(usage(50_000), usage(52_400))]
    assert len([*grown(usage(50_000), usage(52_600))]) == 1


def test_the_table_replaces_the_one_that_is_there(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write_readme("| new |\n", readme)
    assert readme.read_text() == f"before\n{BEGIN}\n| new |\n\n{END}after\n"
    write_readme("| newer |\n", readme)
    assert readme.read_text() == f"before\n{BEGIN}\n| newer |\n\n{END}after\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, BEGIN + END + BEGIN, BEGIN + END + END])
def test_a_readme_without_a_place_for_the_table_stays_as_it_is(tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        write_readme("| new |\n", readme)
    assert readme.read_text() == text


@pytest.mark.parametrize("broken", PLANTED, ids=lambda broken: broken.promise)
def test_bugs_that_break_promises_still_fit_the_code(broken: Broken) -> None:
    MEMORY_LEAK.check()
    if broken.plant is not None:
        broken.plant.check()
