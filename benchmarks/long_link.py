"""Measure one stream over a long link: bare TCP, otun's session, and hashicorp/yamux with its 256 KiB window.

A relay with a delay line (relay.c) stands between the two processes, once for each rate of the link.  TCP itself ends
at the relay and never waits for a window; a multiplexer's window is opened by the other end, a round trip away.
"""

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
from harness import HERE, BenchmarkError, Missing, free_port, names_from, running, set_up, table, wait_until_ready
from link import Link, relay_program
from peers import find_gopeer

# What otun promises where the link, and not the processor, is the limit: so much of bare TCP's throughput.
WANTED: Final = 0.8

_LIMIT: Final = 60.0
_GO_WINDOW: Final = 256 * 1024
_PATTERN: Final = re.compile(r"received (\d+) bytes, ([\d.]+) MB/s")


@attrs.frozen
class Figure:
    """MB/s at the receiver: from its first byte to its last, and in the second half of that time."""

    whole: float
    later: float | None


def between_our_ends(kind: str) -> Callable[[Link, float, Path], Figure]:
    def measure(link: Link, seconds: float, folder: Path) -> Figure:
        ends: list[str | Path] = [sys.executable, HERE / "link_ends.py"]
        with running("sink", [*ends, "sink", kind], folder) as sink, link.to(int(sink.read_line()), folder) as port:
            with running("source", [*ends, "source", kind, str(port), str(seconds)], folder) as source:
                sent = source.read_line(seconds + _LIMIT)
            received, whole, later = sink.read_line(_LIMIT).split()
        if sent != received:
            raise BenchmarkError(f"{sent} bytes were sent, {received} arrived")
        return Figure(float(whole), float(later))

    return measure


def between_go_ends(link: Link, seconds: float, folder: Path) -> Figure:
    """It sends a number of bytes, not for a time: so many as its window lets it send in that time."""
    port, size = free_port(), round(seconds * _GO_WINDOW / (2 * link.delay))
    with running("sink", [*find_gopeer(), "sink", "-listen", f"127.0.0.1:{port}"], folder) as sink:
        wait_until_ready(port, [sink], is_http=False)
        with link.to(port, folder) as entry:
            words = ["source", "-connect", f"127.0.0.1:{entry}", "-bytes", str(size)]
            with running("source", [*find_gopeer(), *words], folder):
                said = _PATTERN.match(sink.read_line(seconds + _LIMIT))
    if said is None or int(said[1]) < size:
        raise BenchmarkError("not all bytes arrived")
    return Figure(float(said[2]), None)


KINDS: Final = {
    "tcp": ("bare TCP", between_our_ends("tcp")),
    "otun": ("otun", between_our_ends("task")),
    "board": ("otun on its switchboard", between_our_ends("board")),
    "gopeer": ("gopeer", between_go_ends),
}

Figures = dict[tuple[float, str], list[Figure]]  # rate of the link and kind -> a figure for each round that went well


def run(rates: Sequence[float], kinds: Sequence[str], rounds: int, delay: float, seconds: float) -> Figures:
    """All rounds: each rate, each kind, alternately."""
    figures: Figures = {(rate, kind): [] for rate in rates for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="otun-benchmark-") as folder:
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            for rate, kind in figures:
                title, measure = KINDS[kind]
                try:
                    figure = measure(Link.with_usual_queue(delay, rate), seconds, Path(folder))
                except BenchmarkError as error:
                    print(f"  {name_of(rate)}, {title}: failed: {error}", flush=True)
                else:
                    print(f"  {name_of(rate)}, {title}: {figure.whole:.1f} MB/s", flush=True)
                    figures[rate, kind].append(figure)
    return figures


def name_of(rate: float) -> str:
    if not rate:
        return "no limit"
    bits = rate * 8
    return f"{bits / 1e9:g} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:g} Mbit/s"


def row(rate: float, kind: str, figures: list[Figure], bare: list[Figure]) -> list[str]:
    """The medians; the ratios are of the medians."""
    title, _ = KINDS[kind]
    if not figures:
        return [name_of(rate), title, "failed"]
    wholes = [figure.whole for figure in figures]
    whole = statistics.median(wholes)
    cells = [name_of(rate), title, f"{whole:.1f} ({min(wholes):.1f}–{max(wholes):.1f})"]  # noqa: RUF001
    laters = [figure.later for figure in figures if figure.later is not None]
    cells.append(f"{statistics.median(laters):.1f}" if laters else "-")
    if not bare or kind == "tcp":
        return cells
    ratio = whole / statistics.median([figure.whole for figure in bare])
    bare_laters = [figure.later for figure in bare if figure.later is not None]
    cells.append(f"{ratio:.2f}")
    cells.append(f"{statistics.median(laters) / statistics.median(bare_laters):.2f}" if laters else "-")
    if rate and kind in ("otun", "board"):
        cells.append(f"{WANTED:.2f}")
        cells.append("BELOW what is wanted" if ratio < WANTED else "")
    return cells


def report(figures: Figures) -> str:
    head = ["link", "", "MB/s", "second half", "of bare TCP", "second half", "wanted", ""]
    rows = [row(rate, kind, values, figures.get((rate, "tcp"), [])) for (rate, kind), values in figures.items()]
    return table(head, [[*cells, *[""] * (len(head) - len(cells))] for cells in rows])


def bit_rates(text: str) -> list[float]:
    """An argparse type: rates such as "100M,1G,0" in bit/s, as bytes/s."""
    rates: list[float] = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", word)
        if match is None:
            raise argparse.ArgumentTypeError(f"{word!r} is no rate; write 100M, 1G or 0 for no limit")
        rates.append(float(match[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match[2]] / 8)
    return rates


def available_kinds(names: Sequence[str]) -> list[str]:
    if "gopeer" in names:
        try:
            find_gopeer()
        except Missing as reason:
            print(f"left out: gopeer: {reason}")
            return [name for name in names if name != "gopeer"]
    return list(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each transfer (default: 4)")
    parser.add_argument("--round-trip", type=float, default=60.0, metavar="MS", help="of the link (default: 60 ms)")
    parser.add_argument(
        "--rates", type=bit_rates, default="100M,1G,0", help="in bit/s, 0: no limit (default: 100M,1G,0)"
    )
    parser.add_argument("--kinds", type=names_from(KINDS), default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    options = parser.parse_args()
    set_up()
    try:
        relay_program()
        kinds = available_kinds(options.kinds)
        figures = run(options.rates, kinds, options.rounds, options.round_trip / 2000, options.seconds)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n" + report(figures))
    return 0 if all(len(values) == options.rounds for values in figures.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
