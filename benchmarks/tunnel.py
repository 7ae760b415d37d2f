"""Compare otun's tunnels, over HTTP and raw TCP, with a Go tunnel on hashicorp/yamux: bulk, requests, connections.

Everything runs on 127.0.0.1 of one machine; in each round each peer is started anew, one after the other.  Neither
the sender nor the receiver of the bulk is Python, and both compare the bytes.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
from harness import BenchmarkError, Missing, call, load_program, names_from, nginx, origin, set_up, table
from measuring import request_rate
from peers import PEERS, Peer, Tunnel, available_peers, tunnel


@attrs.frozen
class Options:
    """What the command line asked for; *size* is in bytes, *seconds* is the length of a test that has no size."""

    rounds: int
    size: int
    seconds: float
    peers: Sequence[str]
    tests: Sequence[str]
    save: Path | None


@attrs.frozen
class Test:
    """One row of the table.  *measure* takes the public port; *service* is what stands behind the tunnel."""

    title: str
    unit: str
    service: str
    measure: Callable[[int, Options], float]


Measured = dict[str, dict[str, list[float]]]  # peer -> test -> a figure for each round that went well


def bulk(direction: str, connections: int) -> Callable[[int, Options], float]:
    def measure(port: int, options: Options) -> float:
        limit = 30 + options.size // 10_000_000  # 10 MB/s is a failure, not a figure
        words = [direction, str(port), str(limit), str(connections), str(options.size // connections)]
        return float(call([load_program(), *words], limit + 5))

    return measure


def new_connections(port: int, options: Options) -> float:
    limit = round(options.seconds) + 20
    words = ["connect", str(port), str(limit), "32", str(options.seconds)]
    return float(call([load_program(), *words], limit + 5))


BROWSER_FIELDS: Final = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Connection: keep-alive",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-User: ?1",
    "Priority: u=1",
    "Cache-Control: max-age=0",
    "DNT: 1",
    "Referer: http://127.0.0.1/",
)
"""With Host, the 16 fields of a browser's request."""


def requests(connections: int, fields: Sequence[str] = ()) -> Callable[[int, Options], float]:
    def measure(port: int, options: Options) -> float:
        return request_rate(f"http://127.0.0.1:{port}/", connections, options.seconds, fields)

    return measure


TESTS: Final = {
    "down1": Test("download, 1 connection", "MB/s", "origin", bulk("down", 1)),
    "up1": Test("upload, 1 connection", "MB/s", "origin", bulk("up", 1)),
    "down8": Test("download, 8 connections", "MB/s", "origin", bulk("down", 8)),
    "up8": Test("upload, 8 connections", "MB/s", "origin", bulk("up", 8)),
    "requests32": Test("keep-alive requests, 32 at once", "/s", "nginx", requests(32)),
    "browser32": Test("the same with a browser's 16 fields", "/s", "nginx", requests(32, BROWSER_FIELDS)),
    "requests1000": Test("keep-alive requests, 1,000 at once", "/s", "nginx", requests(1000)),
    "requests1": Test("keep-alive requests, 1 at once", "/s", "nginx", requests(1)),
    "connections": Test("new connections, 32 at once", "/s", "nginx", new_connections),
}


@contextlib.contextmanager
def services(tests: Sequence[str], folder: Path) -> Iterator[dict[str, int]]:
    """Run what must stand behind the tunnel for *tests*: name -> port.  What is missing here is left out."""
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for name, start in {"origin": origin, "nginx": nginx}.items():
            rows = [test for test in tests if TESTS[test].service == name]
            if rows:
                try:
                    ports[name] = stack.enter_context(start(folder))
                except Missing as reason:
                    print(f"left out: {', '.join(rows)}: {reason}")
        yield ports


def available_tests(tests: Sequence[str]) -> list[str]:
    if shutil.which("wrk"):
        return list(tests)
    left_out = [test for test in tests if test.startswith("requests")]
    if left_out:
        print(f"left out: {', '.join(left_out)}: wrk is not installed")
    return [test for test in tests if test not in left_out]


def measure_service(peer: Peer, tests: Sequence[str], local: int, options: Options, folder: Path) -> dict[str, float]:
    """Start *peer* before one service and run *tests* through it; a test that fails is told and has no figure."""
    figures: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        try:
            started: Tunnel = stack.enter_context(tunnel(peer, local, folder))
        except BenchmarkError as error:
            print(f"  {peer.name}: {error}", flush=True)
            return figures
        for name in tests:
            test = TESTS[name]
            try:
                value = test.measure(started.public, options)
                started.check_running()
            except BenchmarkError as error:
                print(f"  {peer.name} {name}: failed: {error}", flush=True)
            else:
                print(f"  {peer.name} {name}: {figure(value)} {test.unit}", flush=True)
                figures[name] = value
    return figures


def run(peers: Sequence[Peer], options: Options) -> Measured:
    """All rounds: each test, each peer, alternately."""
    measured: Measured = {peer.name: {} for peer in peers}
    wanted = available_tests(options.tests)
    with tempfile.TemporaryDirectory(prefix="otun-benchmark-") as name, services(wanted, Path(name)) as ports:
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", flush=True)
            for service, local in ports.items():
                tests = [test for test in wanted if TESTS[test].service == service]
                for peer in peers:
                    figures = measure_service(peer, tests, local, options, Path(name))
                    for test, value in figures.items():
                        measured[peer.name].setdefault(test, []).append(value)
    return measured


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def cell(values: Sequence[float], rounds: int) -> str:
    if not values:
        return "failed"
    text = f"{figure(statistics.median(values))} ({figure(min(values))}–{figure(max(values))})"  # noqa: RUF001
    return text if len(values) == rounds else f"{text}, {len(values)} of {rounds} rounds"


def report(measured: Measured, rounds: int) -> str:
    """The table: medians, the range, and how many times faster the first peer is than each of the others."""
    first, *others = measured
    rows: list[list[str]] = []
    for name, test in TESTS.items():
        if not any(name in figures for figures in measured.values()):
            continue
        values = {peer: figures.get(name, []) for peer, figures in measured.items()}
        row = [f"{test.title}, {test.unit}", *(cell(values[peer], rounds) for peer in measured)]
        for other in others:
            both = values[first] and values[other]
            ratio = statistics.median(values[first]) / statistics.median(values[other]) if both else 0.0
            row.append(f"{ratio:.2f}" if both else "-")
        rows.append(row)
    return table(["", *measured, *(f"{first}/{other}" for other in others)], rows)


def is_complete(measured: Measured, rounds: int) -> bool:
    """Whether every peer has a figure for every round of every test that was run."""
    tests = {test for figures in measured.values() for test in figures}
    return bool(tests) and all(len(figures.get(test, [])) == rounds for figures in measured.values() for test in tests)


def save(path: Path, measured: Measured, options: Options) -> None:
    data = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}",
        "python": platform.python_version(),
        "rounds": options.rounds,
        "size": options.size,
        "seconds": options.seconds,
        "figures": measured,
    }
    path.write_text(json.dumps(data, indent=2) + "\n")


def byte_count(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 1G, 250M or a number of bytes")
    return int(float(match[1]) * {"": 1, "k": 1000, "M": 1000_000, "G": 1000_000_000}[match[2]])


def options_from(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--size", type=byte_count, default="1G", help="bytes of each bulk test (default: 1G)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the other tests (default: 3)")
    parser.add_argument("--peers", type=names_from(PEERS), default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--tests", type=names_from(TESTS), default=",".join(TESTS), help=f"of {', '.join(TESTS)}")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="write every round's figures there")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    options = options_from(sys.argv[1:])
    set_up()
    try:
        load_program()
        measured = run(available_peers(options.peers), options)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n" + report(measured, options.rounds))
    if options.save:
        save(options.save, measured, options)
    return 0 if is_complete(measured, options.rounds) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
