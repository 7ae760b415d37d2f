"""Yamux frames as the tests write and read them.

Taken from hashicorp's `spec.md`, not from `otun.yamux.frames`: one mistake must not hide another.
"""

import struct
from typing import Final, NamedTuple

from otun.yamux import SessionLimits

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

KIB: Final = 1024
MIB: Final = 1024 * KIB
WINDOW: Final = 256 * KIB
"""What either side may send on a new stream."""

MAX_UINT32: Final = 2**32 - 1

_HEADER: Final = struct.Struct(">BBHII")
HEADER_SIZE: Final = 12


class Frame(NamedTuple):
    kind: int
    flags: int
    id: int
    length: int
    body: bytes = b""

    def encode(self, version: int = 0) -> bytes:
        return _HEADER.pack(version, *self[:4]) + self.body

    @property
    def is_data(self) -> bool:
        return self.kind == 0


def data(stream_id: int, body: bytes = b"", flags: int = 0) -> Frame:
    return Frame(0, flags, stream_id, len(body), body)


def data_header(stream_id: int, length: int, flags: int = 0) -> Frame:
    """Only the header of a data frame."""
    return Frame(0, flags, stream_id, length)


def update(stream_id: int, delta: int = 0, flags: int = 0) -> Frame:
    return Frame(1, flags, stream_id, delta)


def syn(stream_id: int, delta: int = 0) -> Frame:
    return update(stream_id, delta, SYN)


def ack(stream_id: int, delta: int = 0) -> Frame:
    return update(stream_id, delta, ACK)


def fin(stream_id: int) -> Frame:
    return update(stream_id, 0, FIN)


def rst(stream_id: int, code: int = 0) -> Frame:
    return update(stream_id, code, RST)


def ping(value: int) -> Frame:
    return Frame(2, SYN, 0, value)


def pong(value: int) -> Frame:
    return Frame(2, ACK, 0, value)


def go_away(code: int) -> Frame:
    return Frame(3, 0, 0, code)


def parse(wire: bytes) -> list[Frame]:
    """Cut complete frames; anything else fails the test."""
    frames = []
    position = 0
    while position < len(wire):
        version, kind, flags, stream_id, length = _HEADER.unpack_from(wire, position)
        assert version == 0
        assert kind <= 3
        position += HEADER_SIZE
        body = wire[position : position + length] if kind == 0 else b""
        assert kind or len(body) == length, "a torn data frame"
        position += len(body)
        frames.append(Frame(kind, flags, stream_id, length, body))
    return frames


def fixed_window(size: int) -> SessionLimits:
    """Return limits under which all streams have a receive window of *size* bytes for good, whatever they hold."""
    return SessionLimits(receive_window=size, max_receive_window=size, max_held=2**40)
