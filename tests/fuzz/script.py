"""What `fuzz_connection.py` does with its input: the bytes are a script for a peer and for the streams' owner.

Mutating the wire itself would mostly break headers.  So an input is a list of steps, of a few bytes each, and bytes as
they are on the wire are one step among others (`Step.RAW`).  Every input is a valid script, and ends in zeros.

    1 byte   role (bit 0), cut in two ways (1), output taken at once (2), pieces of `PIECES[bits 3 to 5]` bytes (`cut`)
    1 byte   the limits: a number of one of `LIMITS`
    5 bytes  what the handlers do: one half-byte for each of `CALLS`, the number of an action
    then     steps: a byte with the step (lower half) and its argument (upper half), and what is said at each one
"""

from enum import IntEnum
from typing import Final

CALLS: Final = (
    *("opened", "data", "ended", "reset", "slot_freed", "pong", "window_opened", "went_away"),
    *("evicted", "round_trip_wanted"),
)

LIMITS: Final = "default", "large", "growing", "tight", "crowded", "strict", "strict and tight"
"""What they are is said in `profiles.py`."""

ACTIONS: Final = (
    *("nothing", "acknowledge", "consume", "consume_half", "consume_1", "send_eof", "reset", "close"),
    *("answer", "fill", "decline", "open", "ping", "go_away", "take", "finish"),
)

WHOLE: Final = 1_000_000
PIECES: Final = WHOLE, 1, 11, 12, 13, 25, 1000, 65_536

SIZES: Final = (
    *(0, 1, 2, 11, 12, 100, 1000, 65_536, 131_071, 131_072, 131_073, 200_000, 262_143, 262_144, 262_145, 300_000),
    *(364_544, 364_545, 2**31, 2**32 - 262_144, 2**32 - 262_145, 2**32 - 1),
)
"""Lengths at which something happens, by their numbers; the byte 255 stands before any other length."""

ROUND_TRIPS: Final = 0.0, 0.001, 0.1, 30.0
"""Seconds, by their numbers."""

DELAYS: Final = 0.0, 0.1, 29.9, 30.0, 31.0, 300.0, 301.0, 1e6

LONG: Final = 255
"""Before a length or an id that is not one byte."""


class Step(IntEnum):
    """What happens next, and what follows the step's byte."""

    RAW = 0
    """A count, and as many bytes from the peer."""

    FRAME = 1
    """Argument: the type.  Flags (the upper half: unknown ones), id, length.  A body comes with it, if not too long."""

    FLOOD = 2
    """The same, and how often (see `Script.count`); argument bit 2: with the next id each time."""

    SPEAK = 3
    """What must leave, leaves."""

    ACT = 4
    """Argument: the action; the number of a stream."""

    PASS_TIME = 5
    """Argument: the delay's number."""

    END = 6
    """The peer's bytes end; argument 1: the connection breaks."""

    ROUND_TRIP = 7
    """If a round trip is wanted, it has ended.  Argument: its number."""


class Script:
    """Reads an input from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_done(self) -> bool:
        return self._position >= len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._position : self._position + size]
        self._position += size
        return found

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size).ljust(size, b"\0"))

    def step(self) -> tuple[Step, int]:
        byte = self.number()
        return Step((byte & 15) % len(Step)), byte >> 4

    def stream_id(self) -> int:
        value = self.number()
        return self.number(4) if value == LONG else value

    def length(self) -> int:
        value = self.number()
        return self.number(4) if value == LONG else SIZES[value % len(SIZES)]

    def count(self) -> int:
        """Read how often: up to 127 each number, then every twelfth up to 1536."""
        value = self.number()
        return value if value < 128 else (value - 127) * 12


# The other way round, for the corpus.


def begin(
    *,
    role: int,
    limits: str = "default",
    is_cut_twice: bool = False,
    is_eager: bool = False,
    piece: int = WHOLE,
    **actions: str,
) -> bytes:
    """Write the beginning.  *actions* has the handlers' action by the name of the call."""
    assert {*actions} <= {*CALLS}
    halves = [ACTIONS.index(actions.get(call, "nothing")) for call in CALLS]
    choices = role | is_cut_twice << 1 | is_eager << 2 | PIECES.index(piece) << 3
    pairs = zip(halves[::2], halves[1::2], strict=True)
    return bytes([choices, LIMITS.index(limits), *(high << 4 | low for high, low in pairs)])


def raw(data: bytes) -> bytes:
    return bytes([Step.RAW, len(data)]) + data


def frame(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    return bytes([Step.FRAME | kind << 4]) + _fields(flags, stream_id, length)


def flood(kind: int, flags: int, stream_id: int, length: int, count: int, *, is_counting: bool = False) -> bytes:
    return (
        bytes([Step.FLOOD | (kind | is_counting << 2) << 4])
        + _fields(flags, stream_id, length)
        + bytes([count if count < 128 else 127 + count // 12])
    )


def _fields(flags: int, stream_id: int, length: int) -> bytes:
    number = bytes([stream_id]) if stream_id < LONG else bytes([LONG]) + stream_id.to_bytes(4)
    size = bytes([SIZES.index(length)]) if length in SIZES else bytes([LONG]) + length.to_bytes(4)
    return bytes([flags]) + number + size


def speak() -> bytes:
    return bytes([Step.SPEAK])


def act(action: str, pick: int = 0) -> bytes:
    return bytes([Step.ACT | ACTIONS.index(action) << 4, pick])


def pass_time(delay: float) -> bytes:
    return bytes([Step.PASS_TIME | DELAYS.index(delay) << 4])


def end(*, is_broken: bool = False) -> bytes:
    return bytes([Step.END | is_broken << 4])


def round_trip(seconds: float) -> bytes:
    return bytes([Step.ROUND_TRIP | ROUND_TRIPS.index(seconds) << 4])
