"""Measure how long 64 bytes take while eight streams fill a narrow link.

Twice on the library (a session of `otun.open_session`, and one on the switchboard, whose pings are timed as well), and
through whole tunnels, where a visitor exchanges 64 bytes with the origin while eight others download.
"""

import argparse
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
from harness import HERE, BenchmarkError, Missing, load_program, names_from, origin, running, set_up, table
from link import Link, relay_program
from peers import PEERS, Peer, tunnel

# What otun promises: 64 bytes there and back, 19 times in 20.
WANTED: Final = 0.150

RATE: Final = 8 * 1024 * 1024
STREAMS: Final = 8

# In front of the link: as little as a stream of full segments needs, so that what is seen is otun's queue.
LINK: Final = Link(0.0, RATE, 64 * 1024)

_LIMIT: Final = 60.0
_WARM_UP: Final = 2.0
_MESSAGE: Final = bytes(64)
_UPGRADE: Final = b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


@attrs.frozen
class Times:
    """How long the small things took, in seconds, and how many MiB/s of bulk passed meanwhile."""

    exchanges: Sequence[float]
    pings: Sequence[float]
    rate: float


def of_session(kind: str, seconds: float, folder: Path) -> Times:
    ends: list[str | Path] = [sys.executable, HERE / "link_ends.py"]
    with running("echo", [*ends, "echo", kind], folder) as echo, LINK.to(int(echo.read_line()), folder) as port:
        words = ["mixed", kind, str(port), str(seconds), str(STREAMS)]
        with running("mixed", [*ends, *words], folder) as mixed:
            told = json.loads(mixed.read_line(seconds + _LIMIT))
    return Times(told["exchanges"], told["pings"], told["rate"] / 2**20)


def of_tunnel(peer: Peer, seconds: float, folder: Path) -> Times:
    size = round((seconds + _WARM_UP + 1) * RATE / STREAMS)
    with origin(folder) as local, tunnel(peer, local, folder, LINK) as started:
        words = ["down", str(started.public), str(round(seconds + _LIMIT)), str(STREAMS), str(size)]
        with running("load", [load_program(), *words], folder) as load:
            time.sleep(_WARM_UP)
            exchanges = list(exchange_with_origin(started.public, seconds))
            rate = float(load.read_line(_LIMIT)) * 1e6 / 2**20
        started.check_running()
    return Times(exchanges, [], rate)


def exchange_with_origin(port: int, seconds: float) -> Iterator[float]:
    """Be a visitor who sends 64 bytes and waits for their echo, again and again."""
    with socket.create_connection(("127.0.0.1", port), timeout=_LIMIT) as visitor:
        visitor.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        visitor.sendall(_UPGRADE)
        with visitor.makefile("rb") as answers:
            if b" 101 " not in answers.readline():
                raise BenchmarkError("the origin did not answer the upgrade")
            while answers.readline().strip():
                pass
            until = time.perf_counter() + seconds
            while (start := time.perf_counter()) < until:
                visitor.sendall(_MESSAGE)
                if answers.read(len(_MESSAGE)) != _MESSAGE:
                    raise BenchmarkError("the origin's echo was cut short")
                yield time.perf_counter() - start


Measure = Callable[[float, Path], Times]

KINDS: Final[dict[str, tuple[str, Measure]]] = {
    "otun": ("otun, a session", partial(of_session, "task")),
    "board": ("otun, a session on its switchboard", partial(of_session, "board")),
    "tunnel": ("otun, a tunnel", partial(of_tunnel, PEERS["otun"])),
    "gopeer": ("gopeer, a tunnel", partial(of_tunnel, PEERS["gopeer"])),
}


def row(what: str, times: Sequence[float], rate: float, wanted: float | None) -> list[str]:
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1] if len(times) > 1 else max(times)
    figures = [statistics.median(times), p95, max(times)]
    verdict = "ABOVE what is wanted" if wanted is not None and p95 > wanted else ""
    bound = "-" if wanted is None else f"{wanted * 1000:.0f}"
    return [what, *(f"{figure * 1000:.1f}" for figure in figures), str(len(times)), f"{rate:.2f}", bound, verdict]


def rows_of(kind: str, times: Times) -> list[list[str]]:
    title, _ = KINDS[kind]
    rows = [row(f"{title}: 64 bytes", times.exchanges, times.rate, None if kind == "gopeer" else WANTED)]
    if times.pings:
        rows.append(row(f"{title}: ping", times.pings, times.rate, None))
    return rows


def run(kinds: Sequence[str], seconds: float) -> bool:
    """Measure each kind and print the table; whether all of it could be measured."""
    rows: list[list[str]] = []
    is_complete = True
    with tempfile.TemporaryDirectory(prefix="otun-benchmark-") as name:
        for kind in kinds:
            title, measure = KINDS[kind]
            print(f"  {title} ...", flush=True)
            try:
                rows += rows_of(kind, measure(seconds, Path(name)))
            except Missing as reason:
                print(f"left out: {title}: {reason}", flush=True)
            except BenchmarkError as error:
                print(f"  {title}: failed: {error}", flush=True)
                is_complete = False
    head = [f"{STREAMS} streams at {RATE / 2**20:g} MiB/s", "p50, ms", "p95", "max", "times", "MiB/s", "wanted p95", ""]
    print("\n" + table(head, rows))
    return is_complete and bool(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: 10)")
    parser.add_argument("--kinds", type=names_from(KINDS), default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    options = parser.parse_args()
    set_up()
    try:
        relay_program()
        load_program()
        return 0 if run(options.kinds, options.seconds) else 1
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
