"""Bytes that both ends know beforehand, so that each one that arrives can be checked."""

from collections.abc import Iterator

from ..interop.support import blocks

MESSAGE_SIZE = 64


class WrongBytes(Exception):
    """What has arrived is not what was sent: the one thing that no fault may bring about."""


class Expected:
    """The body of *size* bytes that belongs to *seed*, as it arrives."""

    def __init__(self, size: int, seed: int) -> None:
        self._what = f"body {size}/{seed}"
        self._body = b"".join(blocks(size, seed))
        self._position = 0

    def take(self, piece: bytes | bytearray) -> None:
        """Check a piece of it.  Raises `WrongBytes`."""
        end = self._position + len(piece)
        if piece != self._body[self._position : end]:
            raise WrongBytes(f"{self._what}: wrong between the bytes {self._position} and {end}")
        self._position = end

    @property
    def missing(self) -> int:
        """The bytes that have not come yet."""
        return len(self._body) - self._position


def messages(seed: int) -> Iterator[bytes]:
    """Short messages without end, no two of them equal."""
    number = 0
    while True:
        yield b"%08d" % number + next(blocks(MESSAGE_SIZE - 8, seed + number))
        number += 1
