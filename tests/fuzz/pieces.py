"""How the inputs of all harnesses but `fuzz_connection.py` become a stream of bytes."""

from itertools import pairwise


def cut(data: bytes, size: int) -> list[bytes]:
    """Cut *data* into pieces of *size* bytes, the first 500 of them at least; what is left comes by 64 KiB.

    Small pieces of long data take long, and are nothing new after the first ones.
    """
    small = min(len(data), -(-500 // size) * size)
    places = [*range(0, small, size), *range(small, len(data), 65_536), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


REPEAT = 0xFE
"""Stands for no text in UTF-8.  The byte behind it says how many bytes before it to repeat, the next two how often."""

MAX_EXPANDED_SIZE = 72 * 1024
"""Bytes: more than any message, head or ClientHello may have."""


def expand(data: bytes) -> bytes:
    """Do the repetitions in *data*: so a short input can be a long message."""
    head, *parts = data.split(bytes([REPEAT]))
    expanded = bytearray(head)
    for part in parts:
        if len(part) < 3:
            expanded += bytes([REPEAT]) + part
            continue
        unit = bytes(expanded[-part[0] :]) if part[0] else bytes([REPEAT])
        count = int.from_bytes(part[1:3])
        expanded += unit * min(count, MAX_EXPANDED_SIZE // max(len(unit), 1))
        expanded += part[3:]
        del expanded[MAX_EXPANDED_SIZE:]
    return bytes(expanded)


def repeat(unit: bytes, count: int) -> bytes:
    """Return what `expand` makes into *count* times *unit*, at most 65,536."""
    assert 0 < len(unit) < 256
    return unit + bytes([REPEAT, len(unit)]) + (count - 1).to_bytes(2)
