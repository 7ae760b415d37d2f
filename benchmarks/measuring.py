"""What several benchmarks measure: requests a second, by wrk, and the memory of programs."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs
from harness import BenchmarkError, Missing, Program, call


def request_rate(url: str, connections: int, seconds: float, fields: Sequence[str] = ()) -> float:
    """Requests a second for *url* over so many connections at once, each with *fields*."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise Missing("wrk is not installed")
    length = max(1, round(seconds))
    headers = [word for field in fields for word in ("-H", field)]
    report = call([wrk, "-t1", f"-c{connections}", f"-d{length}s", *headers, url], length + 30)
    for trouble in ("Socket errors:", "Non-2xx"):
        if trouble in report:
            raise BenchmarkError(next(line for line in report.splitlines() if trouble in line).strip())
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    if rate is None or float(rate[1]) == 0:
        raise BenchmarkError("wrk had no answer")
    return float(rate[1])


@attrs.frozen
class Memory:
    """Kibibytes of one process or of several together."""

    rss: int
    pss: int

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.rss + other.rss, self.pss + other.pss)

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(self.rss - other.rss, self.pss - other.pss)


def memory_of(program: Program) -> Memory:
    program.check_running()
    text = Path(f"/proc/{program.pid}/smaps_rollup").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(Rss|Pss):\s+(\d+) kB", text, re.M)}
    return Memory(kib["Rss"], kib["Pss"])
