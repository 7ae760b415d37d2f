"""Fuzzes everything for a while; fails when anything breaks, and says how to see it break again.

Run as `.venv/bin/python tests/fuzz/run.py`.  `--planted` fuzzes copies of the package instead, each with one bug, and
fails unless every bug is found: it shows that the harnesses can fail, and takes some ten seconds.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import attrs
from planting import REPOSITORY, Plant, PlantDoesNotFit, copy_package, environment_for
from plants import PLANTS

HERE: Final = Path(__file__).resolve().parent
FINDINGS: Final = REPOSITORY / "build" / "fuzz"
"""Where inputs that break something are left."""

HARNESSES: Final = "connection", "control", "http_head", "client_hello"

MEMORY_LIMIT: Final = 256
"""MiB for one process.  It begins with 47 and needs 60; more would be a leak, or something without a bound."""

MAX_INPUT: Final = 2048
"""Bytes of an input.  They stand for a lot more: see `script.py` and `pieces.py`."""

INPUT_TIMEOUT: Final = 10
"""Seconds for one input.  The slowest take a tenth of one."""

JOBS: Final = 2

PLANTED: Final = {
    "connection": (
        "the body goes on behind a reset from within",
        "receive window off by one",
        "credit granted twice",
        "window granted beyond its cap",
        "wrong stream evicted",
        "held bytes not given back by a reset",
        "a budget that never runs out",
    ),
    "control": ("a kind of value without a name", "numbers of any length"),
    "http_head": ("a request line of one word", "an error of the parser comes out"),
    "client_hello": (
        "a record's header in one piece",
        "a ClientHello larger than the limit",
        "a server name with its dot",
        "a NUL in a server name",
    ),
}
"""Of the bugs in `plants.py`, those that `--planted` lets each harness find."""


@attrs.frozen
class Outcome:
    """How one run ended: *found* is what broke, *reproduce* the command that shows it again; empty if nothing did."""

    harness: str
    summary: str
    output: str
    found: str = ""
    reproduce: str = ""

    @property
    def has_failed_an_input(self) -> bool:
        """Whether an input broke it, and not a mistake in the harness."""
        return bool(self.found and self.reproduce)


def fuzz(harness: str, seconds: int, findings: Path, plant: Plant | None = None) -> Outcome:
    """Run *harness* for so long, 0: only over the seeds.  What breaks it is left in *findings*."""
    script = HERE / f"fuzz_{harness}.py"
    seeds = HERE / "corpus" / harness
    words = seeds.with_suffix(".dict")
    with tempfile.TemporaryDirectory(prefix="otun-fuzz-") as name:
        directory = Path(name).resolve()
        copy_package(directory, plant)
        (directory / "corpus").mkdir()
        findings.mkdir(parents=True, exist_ok=True)
        (findings / f"{harness}.log").unlink(missing_ok=True)
        command = [
            *(sys.executable, script, directory / "corpus", seeds),
            f"-max_total_time={seconds}" if seconds else "-runs=0",
            *(f"-rss_limit_mb={MEMORY_LIMIT}", f"-max_len={MAX_INPUT}", f"-timeout={INPUT_TIMEOUT}"),
            *(f"-artifact_prefix={findings}/{harness}-", *([f"-dict={words}"] if words.exists() else [])),
        ]
        child = subprocess.run(
            command,
            cwd=directory,
            env=environment_for(directory),
            text=True,
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds + 120,
        )
    return _read_output(harness, script, child.stdout, child.returncode)


def _read_output(harness: str, script: Path, output: str, code: int) -> Outcome:
    done = re.findall(r"^Done (\d+) runs in (\d+) second", output, re.MULTILINE)
    state = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+).* rss: (\d+)Mb", output)
    if code == 0 and done and state:
        runs, seconds = done[-1]
        coverage, features, kept, memory = state[-1]
        summary = f"{runs} inputs in {seconds} s, {coverage} branches, {features} features, {kept} kept, {memory} MiB"
        return Outcome(harness, summary, output)
    found = re.findall(r"^(?:\w*(?:Error|Exception|Interrupt)\b|.*ERROR: libFuzzer: ).*", output, re.MULTILINE)
    artifact = re.search(r"Test unit written to (\S+)", output)
    reproduce = f"{sys.executable} {script} {artifact[1]}" if artifact else ""
    return Outcome(harness, "", output, found[0] if found else f"it ended with {code}", reproduce)


def fuzz_all(harnesses: list[str], seconds: int) -> int:
    """Fuzz the package; return how many harnesses failed."""
    with ThreadPoolExecutor(JOBS) as pool:
        outcomes = [*pool.map(lambda harness: fuzz(harness, seconds, FINDINGS), harnesses)]
    for outcome in outcomes:
        if not outcome.found:
            print(f"{outcome.harness:12} {outcome.summary}")
            continue
        log = FINDINGS / f"{outcome.harness}.log"
        log.write_text(outcome.output)
        print(f"{outcome.harness:12} FAILED: {outcome.found}\n    everything it said: {log}")
        print(f"    to see it again: {outcome.reproduce or 'run the same once more: it failed before any input did'}")
        print("    then add the input to tests/fuzz/make_corpus.py, and a test that tells what was wrong")
    return sum(bool(outcome.found) for outcome in outcomes)


def fuzz_planted(harnesses: list[str], seconds: int) -> tuple[int, int]:
    """Fuzz copies with bugs; return how many bugs there are, and how many were not found."""
    by_name = {plant.name: plant for plant in PLANTS}
    runs = [(harness, by_name[name]) for harness in harnesses for name in PLANTED[harness]]
    for _, plant in runs:
        plant.check()
    with tempfile.TemporaryDirectory(prefix="otun-fuzz-") as name, ThreadPoolExecutor(JOBS) as pool:
        futures = [pool.submit(fuzz, harness, seconds, Path(name), plant) for harness, plant in runs]
        outcomes = [future.result() for future in futures]
    for (harness, plant), outcome in zip(runs, outcomes, strict=True):
        print(f"{harness:12} {plant.name:46} {outcome.found[:120] or f'NOT FOUND: {outcome.summary}'}")
    return len(runs), sum(not outcome.has_failed_an_input for outcome in outcomes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "harnesses", nargs="*", metavar="HARNESS", help=f"one of {', '.join(HARNESSES)}; all by default"
    )
    parser.add_argument("--seconds", type=int, default=30, help="for each harness (default: 30; 0: only the seeds)")
    parser.add_argument("--planted", action="store_true", help="fuzz copies with a bug in each, which must be found")
    options = parser.parse_args()
    harnesses = options.harnesses or [*HARNESSES]
    unknown = {*harnesses} - {*HARNESSES}
    if unknown:
        parser.error(f"there is no harness {', '.join(unknown)}")
    if find_spec("atheris") is None:
        print("atheris is not installed: .venv/bin/pip install -e '.[dev]'")
        print("0 passed, 1 failed")
        return 1
    try:
        if options.planted:
            total, failures = fuzz_planted(harnesses, options.seconds)
        else:
            total, failures = len(harnesses), fuzz_all(harnesses, options.seconds)
    except PlantDoesNotFit as error:
        print(error)
        total = failures = 1
    print(f"{total - failures} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
