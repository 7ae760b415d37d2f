"""Measure the yamux core alone: frames and bytes per second of one Python thread, before any socket is touched.

The floor, measured in the same run, is the least that a reader or writer of frames does in Python: one struct and one
slice for each, no rules.  The last column says how much of that speed is left with all the rules applied.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from struct import Struct
from typing import Final

from harness import ROOT, table

sys.path.insert(0, str(ROOT))
from otun.yamux import Role, SessionLimits, YamuxConnection, YamuxStream

SIZES: Final = (0, 64, 1024, 16 * 1024, 64 * 1024)

_HEADER: Final = Struct(">BBHII")
_DATA, _WINDOW_UPDATE, _SYN = 0, 1, 1
_READ: Final = 256 * 1024  # what a transport hands over at once
_BATCH: Final = 64  # frames that leave together
_ALL_CREDIT: Final = 2**32 - 1 - 256 * 1024

Work = Callable[[], int]  # does some frames, and says how many


class Sink:
    """Both kinds of handler: takes everything, uses it up at once."""

    stream: YamuxStream | None = None

    def stream_opened(self, stream: YamuxStream) -> None:
        self.stream = stream
        stream.handler = self
        stream.acknowledge()

    def data_received(self, data: memoryview) -> None:
        assert self.stream is not None
        self.stream.consume(len(data))

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def evicted(self) -> None: ...

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...

    def slot_freed(self) -> None: ...

    def deadline_set(self) -> None: ...

    def current_time(self) -> float:
        return 0.0

    def round_trip_wanted(self) -> None: ...

    def pong_received(self, value: int) -> None: ...

    def went_away(self, code: int) -> None: ...

    def output_ready(self) -> None: ...


def frames_of(size: int) -> tuple[bytes, int]:
    """One read's worth of frames on stream 1, and how many: data, or window updates where *size* is 0."""
    count = max(1, _READ // (_HEADER.size + size))
    header = _HEADER.pack(0, _DATA, 0, 1, size) if size else _HEADER.pack(0, _WINDOW_UPDATE, 0, 1, 1)
    return (header + bytes(size)) * count, count


def reading(size: int) -> Work:
    """Our connection reads frames on one stream."""
    connection = YamuxConnection(Role.SERVER, Sink(), limits=SessionLimits(receive_window=_READ * 2))
    connection.receive_data(_HEADER.pack(0, _WINDOW_UPDATE, _SYN, 1, 0), 0.0)
    wire, count = frames_of(size)

    def work() -> int:
        connection.receive_data(wire, 0.0)
        connection.data_to_send()
        return count

    return work


def reading_floor(size: int) -> Work:
    wire, count = frames_of(size)

    def work() -> int:
        seen, position, end = 0, 0, len(wire)
        view = memoryview(wire)
        while position < end:
            _, kind, _, _, length = _HEADER.unpack_from(view, position)
            position += _HEADER.size
            if kind == _DATA:
                seen += len(view[position : position + length])
                position += length
        assert seen == size * count
        return count

    return work


def writing(size: int) -> Work:
    """Our connection writes frames on one stream: data, or pings where *size* is 0."""
    handler = Sink()
    connection = YamuxConnection(Role.CLIENT, handler)
    stream = connection.open_stream(handler)
    payload = bytes(size)

    def work() -> int:
        if not size:
            for _ in range(_BATCH):
                connection.ping()
        else:
            stream.send_credit = _ALL_CREDIT
            for _ in range(_BATCH):
                if not stream.send_allowance():
                    drain()
                stream.send_data(payload)
        drain()
        return _BATCH

    def drain() -> None:
        connection.data_to_send()
        connection.refill()

    return work


def writing_floor(size: int) -> Work:
    payload = bytes(size)

    def work() -> int:
        output: list[bytes] = []
        for _ in range(_BATCH):
            output.append(_HEADER.pack(0, _DATA, 0, 1, size))
            if size:
                output.append(payload)
        return _BATCH

    return work


def frames_per_second(works: list[Work], seconds: float) -> list[float]:
    """The median rate of each of *works*, measured in turns, so that a busy machine slows them alike."""
    rates: list[list[float]] = [[] for _ in works]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for work, seen in zip(works, rates, strict=True):
            start, frames = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - start) < 0.02:
                frames += work()
            seen.append(frames / elapsed)
    return [statistics.median(seen) for seen in rates]


def row(title: str, size: int, rates: list[float]) -> list[str]:
    rate, floor = rates
    bulk = f"{rate * size / 1e6:,.0f}" if size else "-"
    return [title, f"{rate:,.0f}", f"{1e6 / rate:.2f}", bulk, f"{floor:,.0f}", f"{rate / floor:.2f}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each line (default: 0.5)")
    seconds: float = parser.parse_args().seconds
    rows: list[list[str]] = []
    for size in SIZES:
        title = f"read data, {size:,} B" if size else "read window updates"
        rows.append(row(title, size, frames_per_second([reading(size), reading_floor(size)], seconds)))
    for size in SIZES:
        title = f"write data, {size:,} B" if size else "write pings"
        rows.append(row(title, size, frames_per_second([writing(size), writing_floor(size)], seconds)))
    print(table(["", "frames/s", "µs/frame", "MB/s", "floor, frames/s", "of the floor"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
