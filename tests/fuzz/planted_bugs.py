"""Do the tests notice when the protocols go wrong?  One bug at a time is planted into a copy, and they must.

Run as `.venv/bin/python tests/fuzz/planted_bugs.py [WORD …]`; with words, only the bugs with them in their names.  It
takes about a minute.  Fails when a bug survives the tests that are named beside it in `plants.py`, when they do not
all pass against a copy without any bug, and when a bug no longer fits the code.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs
from planting import REPOSITORY, Plant, PlantDoesNotFit, copy_package, environment_for
from plants import PLANTS

TIME_LIMIT: Final = 60.0
"""Seconds for one run: a bug may make a test run forever.  Most take 1."""

TIME_LIMIT_WITHOUT_BUG: Final = 300.0
"""Seconds for all these tests to pass.  They take about 40."""

JOBS: Final = 2


@attrs.frozen
class Result:
    """What became of the tests against one copy: *caught_by* failed, or *problem* says why it proves nothing."""

    caught_by: str
    passed: int
    seconds: float
    output: str
    problem: str = ""


def run_tests(plant: Plant | None) -> Result:
    """Run the plant's tests against a copy with the bug, or all of them without any, in a process of their own."""
    files = dict.fromkeys(file for one in (PLANTS if plant is None else [plant]) for file in one.tests)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="otun-planted-") as name:
        directory = Path(name).resolve()
        copy_package(directory, plant)
        output, code = _run_pytest(
            directory,
            [REPOSITORY / "tests" / file for file in files],
            TIME_LIMIT_WITHOUT_BUG if plant is None else TIME_LIMIT,
        )
        results = directory / "results"
        words = results.read_text() if results.exists() else ""
    lines = [line.partition(" ") for line in words.splitlines()]
    failed = [name for word, _, name in lines if word == "failed"]
    passed = sum(word == "passed" for word, _, _ in lines)
    problem = ""
    if code is None and lines and not failed:
        failed.append(f"{lines[-1][2]} (never ends)")
    elif code not in (0, 1) or bool(failed) is not bool(code) or not lines:
        # No test's verdict: the copy cannot be imported, or there was nothing to run.
        problem = f"pytest ended with {code}"
    return Result(failed[0] if failed else "", passed, time.monotonic() - started, output, problem)


def _run_pytest(directory: Path, paths: list[Path], time_limit: float) -> tuple[str, int | None]:
    """Return what pytest said until the first failure and its exit code, None when it did not end in time."""
    command = [
        *(sys.executable, "-m", "pytest", "-c", REPOSITORY / "pyproject.toml", "--rootdir", REPOSITORY),
        *("-p", "copy_plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "-x", "-q", "--tb=short", *paths),
    ]
    environment = environment_for(directory)
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    # In a group of its own, so that a test which hangs is ended with whatever it has started.
    child = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return child.communicate()[0], None
    return output, child.returncode


def print_row(plant: Plant | None, result: Result) -> bool:
    """Print one row of the table, and return whether it is as it must be."""
    is_good = not result.problem and bool(result.caught_by) is (plant is not None)
    name = "(none)" if plant is None else plant.name
    verdict = result.caught_by.removeprefix("tests/") or f"all {result.passed} tests pass"
    width = max(len(plant.name) for plant in PLANTS)
    print(f"{name:{width}}  {result.seconds:3.0f} s  {verdict}", flush=True)
    if not is_good:
        complaint = "THE TESTS FAIL WITHOUT ANY BUG" if plant is None else "SURVIVES"
        print(f"{complaint}: {name}: {result.problem}\n{result.output}")
    return is_good


def main(words: list[str]) -> int:
    plants = [plant for plant in PLANTS if all(word in plant.name for word in words)]
    try:
        for plant in plants:
            plant.check()
    except PlantDoesNotFit as error:
        print(error, file=sys.stderr)
        print("0 passed, 1 failed")
        return 1
    runs: list[Plant | None] = [None, *plants]
    with ThreadPoolExecutor(JOBS) as pool:
        verdicts = [*map(print_row, runs, pool.map(run_tests, runs))]
    failures = verdicts.count(False)
    print(f"{len(verdicts) - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
