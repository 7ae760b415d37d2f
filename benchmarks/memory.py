"""Measure what waiting costs: idle visitors, idle streams, and a visitor that stops reading a large download.

RSS and PSS are the differences in /proc/PID/smaps_rollup between before and after, so the interpreter itself and
the memory of the kernel's socket buffers are not in them.  Before means: after the one request that showed the tunnel
to work.  A longer warm-up would flatter the figures, because what it frees is used again: it hid a quarter of them.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import attrs
from harness import (
    HERE,
    BenchmarkError,
    Program,
    load_program,
    names_from,
    origin,
    running,
    set_up,
    table,
)
from measuring import Memory, memory_of
from peers import PEERS, Peer, Tunnel, available_peers, tunnel

# What otun promises; a figure above it is marked.
VISITOR_BOUND_KIB: Final = 8.0
STREAM_BOUND_BYTES: Final = 2048.0
# One stream's window, as far as it may have grown, and what one read from a socket may hold beside it.
STALL_BOUND_KIB: Final = 16 * 1024.0 + 512.0

TESTS: Final = ("visitors", "stall", "streams")

_LIMIT: Final = 120
_STALLED_BYTES: Final = 256_000_000  # far more than the windows and kernel buffers on the way hold together
_STALL_SECONDS: Final = 3
_SETTLE_SECONDS: Final = 1.0


Work: TypeAlias = Callable[[], "list[Row]"]


@attrs.frozen
class Row:
    """One line of the table.  *bound* is None for a peer that has promised nothing."""

    what: str
    rss: float
    pss: float | None
    unit: str
    bound: float | None
    note: str = ""

    def cells(self) -> list[str]:
        bound = "-" if self.bound is None else f"{self.bound:,.0f}"
        verdict = "" if self.bound is None or self.rss <= self.bound else "ABOVE what is wanted"
        pss = "-" if self.pss is None else f"{self.pss:,.1f}"
        return [self.what, f"{self.rss:,.1f}", pss, self.unit, bound, "; ".join(filter(None, [verdict, self.note]))]


def both(started: Tunnel) -> Memory:
    return memory_of(started.server) + memory_of(started.client)


@contextlib.contextmanager
def load(folder: Path, *words: object) -> Iterator[Program]:
    """The load program, running while the block lasts."""
    command: list[str | Path] = [load_program(), *map(str, words)]
    with running("load", command, folder) as program:
        yield program


def idle_visitors(peer: Peer, count: int, kind: str, folder: Path) -> list[Row]:
    """KiB for each of *count* visitors who made one request (or had a byte echoed) and stay."""
    with origin(folder) as local, tunnel(peer, local, folder) as started:
        time.sleep(_SETTLE_SECONDS)
        before = both(started)
        with load(folder, "hold", started.public, _LIMIT, count, kind) as held:
            expect(held, f"open {count}")
            time.sleep(_SETTLE_SECONDS)
            grown = both(started) - before
            held.let_go_on()
            expect(held, f"alive {count}")
        started.check_running()
    after = {"request": "a keep-alive request", "echo": "an upgrade and an echo"}[kind]
    what = f"{peer.name}: {count:,} idle visitors after {after}"
    bound = VISITOR_BOUND_KIB if peer.name == "otun" else None
    return [Row(what, grown.rss / count, grown.pss / count, "KiB/visitor", bound)]


def stalled_visitor(peer: Peer, folder: Path) -> list[Row]:
    """How far server and client grow while one visitor does not read, and others are served."""
    with origin(folder) as local, tunnel(peer, local, folder) as started:
        parts = {"server": started.server, "client": started.client}
        before = {name: memory_of(program).rss for name, program in parts.items()}
        largest = dict(before)
        with load(folder, "stall", started.public, _LIMIT, _STALLED_BYTES) as stalled:
            expect(stalled, "stalled")
            with load(folder, "connect", started.public, _LIMIT, 1, _STALL_SECONDS) as others:
                while others.process.poll() is None:
                    time.sleep(0.05)
                    for name, program in parts.items():
                        largest[name] = max(largest[name], memory_of(program).rss)
                rate = float(others.read_line())
            stalled.let_go_on()
            expect(stalled, "complete")
        started.check_running()
    bound = STALL_BOUND_KIB if peer.name == "otun" else None
    note = f"others meanwhile: {rate:,.0f} connections/s"
    return [
        Row(f"{peer.name}: {name}, one visitor does not read", largest[name] - before[name], None, "KiB", bound, note)
        for name in parts
    ]


def idle_streams(count: int, folder: Path) -> list[Row]:
    """Bytes for each of *count* idle streams of one session, in the process of either end."""
    command: list[str | Path] = [sys.executable, HERE / "idle_streams.py"]
    with (
        running("streams-server", [*command, "server"], folder) as server,
        running("streams-client", [*command, "client", server.read_line(), str(count)], folder) as client,
    ):
        expect(client, "ready")
        before = {"server": memory_of(server), "client": memory_of(client)}
        client.let_go_on()
        expect(client, f"open {count}")
        server.let_go_on()
        expect(server, f"holds {count + 1}")
        time.sleep(_SETTLE_SECONDS)
        grown = {"server": memory_of(server) - before["server"], "client": memory_of(client) - before["client"]}
    return [
        Row(
            f"otun: {count:,} idle streams, {name}",
            memory.rss * 1024 / count,
            memory.pss * 1024 / count,
            "bytes/stream",
            STREAM_BOUND_BYTES,
        )
        for name, memory in grown.items()
    ]


def expect(program: Program, line: str) -> None:
    said = program.read_line(_LIMIT)
    if said != line:
        raise BenchmarkError(f"{program.name} said {said!r}, not {line!r}")


def works(
    peers: Sequence[Peer], tests: Sequence[str], visitor_count: int, stream_count: int, folder: Path
) -> Iterator[tuple[str, Work]]:
    """What is to be measured, each with its title."""
    for peer in peers:
        if "visitors" in tests:
            for kind in ("request", "echo"):
                yield f"{peer.name}: idle visitors, {kind}", partial(idle_visitors, peer, visitor_count, kind, folder)
        if "stall" in tests:
            yield f"{peer.name}: stalled visitor", partial(stalled_visitor, peer, folder)
    if "streams" in tests and any(peer.name == "otun" for peer in peers):
        yield "otun: idle streams", partial(idle_streams, stream_count, folder)


def run(names: Sequence[str], tests: Sequence[str], visitor_count: int, stream_count: int) -> bool:
    """Measure what is wanted and print the table; whether all of it could be measured."""
    peers = available_peers(names)
    rows: list[Row] = []
    is_complete = True
    with tempfile.TemporaryDirectory(prefix="otun-benchmark-") as name:
        for title, work in works(peers, tests, visitor_count, stream_count, Path(name)):
            print(f"  {title} ...", flush=True)
            try:
                rows += work()
            except BenchmarkError as error:
                print(f"  {title}: failed: {error}", flush=True)
                is_complete = False
    print("\n" + table(["", "RSS", "PSS", "", "wanted", ""], [row.cells() for row in rows]))
    return is_complete


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=1000, metavar="N")
    parser.add_argument("--streams", type=int, default=10_000, metavar="N")
    parser.add_argument("--peers", type=names_from(PEERS), default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--tests", type=names_from(TESTS), default=",".join(TESTS), help=f"of {', '.join(TESTS)}")
    options = parser.parse_args()
    set_up()
    try:
        load_program()
        return 0 if run(options.peers, options.tests, options.visitors, options.streams) else 1
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
