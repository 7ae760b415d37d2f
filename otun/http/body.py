"""Where a message's body ends, and how it is written for the next hop.

A relay has two halves: a *reader* takes the content out of the bytes that arrive and knows where it ends; a *writer*
frames it anew.  Content is never kept: what goes in comes out of the same call.
"""

import re
from typing import Final, Protocol, TypeAlias

from ..errors import BadBody
from .fields import Field

Data: TypeAlias = bytes | memoryview

MAX_CHUNK_LINE: Final = 256
"""Bytes in the line before a chunk, its extension included: nobody uses those, and they are dropped."""

MAX_TRAILER_SIZE: Final = 8 * 1024
"""Bytes in a trailer section: a few checksums and signatures."""

MAX_TRAILER_COUNT: Final = 32
"""Fields in a trailer section."""

# RFC 9112, sections 7.1 and 7.1.1.  Fifteen digits are enough for any size that a 64-bit integer holds.
_CHUNK_LINE: Final = re.compile(
    rb"""([0-9A-Fa-f]{1,15})
         (?: [ \t]*+ ; [ \t]*+ [!#$%&'*+.^_`|~0-9A-Za-z-]++
             (?: [ \t]*+ = [ \t]*+
                 (?: [!#$%&'*+.^_`|~0-9A-Za-z-]++
                   | "(?: [\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff] | \\[\t\x20-\x7e\x80-\xff] )*+" )
             )?+
         )*+
         \r\n""",
    re.VERBOSE,
)
_TRAILER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")

_NOT_IN_TRAILERS: Final = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type cookie "
    b"expect forwarded host keep-alive max-forwards pragma proxy-authenticate proxy-authorization proxy-connection "
    b"range set-cookie te trailer transfer-encoding upgrade vary www-authenticate x-real-ip".split()
)
"""Fields that say how to read, route or answer a message: too late in a trailer (RFC 9110, section 6.5.1)."""


class BodyReader(Protocol):
    """Takes the content out of a connection's bytes."""

    @property
    def is_complete(self) -> bool:
        """Whether its end has been read."""

    def read(self, data: Data) -> tuple[list[Data], int]:
        """Return the content in *data*, and how many bytes of *data* belong to the body.  Raises `BadBody`."""

    def end(self) -> None:
        """The connection has ended.  Raises `BadBody` unless that is a proper end of the body."""


class EmptyBody:
    """No body at all."""

    __slots__ = ()

    is_complete: Final = True

    def read(self, data: Data) -> tuple[list[Data], int]:
        """Nothing belongs to it."""
        return [], 0

    def end(self) -> None:
        """It was complete."""


class LengthBody:
    """As many bytes as Content-Length says; *left* are still to come."""

    __slots__ = ("is_complete", "left")

    def __init__(self, size: int) -> None:
        self.left: int = size
        self.is_complete = size == 0

    def read(self, data: Data) -> tuple[list[Data], int]:
        """Take at most what is left."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return [data], size
        used, self.left = self.left, 0
        self.is_complete = True
        return ([data] if used == size else [data[:used]]), used

    def end(self) -> None:
        """It is cut short, or was complete."""
        if not self.is_complete:
            raise BadBody(f"the body ended {self.left} bytes early")


class UntilClose:
    """Everything, until the connection ends (RFC 9112, section 6.3, item 8)."""

    __slots__ = ("is_complete",)

    def __init__(self) -> None:
        self.is_complete = False

    def read(self, data: Data) -> tuple[list[Data], int]:
        """Take it all."""
        return [data], len(data)

    def end(self) -> None:
        """This is its end."""
        self.is_complete = True


class ChunkedBody:
    """Chunks, and the trailer fields behind them, which are in `trailers` when it is complete.

    Stricter than RFC 9112, section 7.1, where parties have been found to differ: lines end with CR LF, sizes have at
    most 15 digits, and the line before a chunk has at most `MAX_CHUNK_LINE` bytes.  Extensions are dropped.
    """

    __slots__ = ("_left", "_line", "_trailer_size", "is_complete", "trailers")

    def __init__(self) -> None:
        self._left: int | None = None  # Of this chunk, with the CR LF behind it; None before its line is complete.
        self._line = b""  # The part of a line that has come.
        self._trailer_size = -1  # -1 until the last chunk has come.
        self.is_complete = False
        self.trailers: list[Field] = []

    def read(self, data: Data) -> tuple[list[Data], int]:
        """Take chunks until the trailer section ends."""
        content: list[Data] = []
        position, size = 0, len(data)
        while position < size and not self.is_complete:
            if self._left is None:
                position = self._read_line(data, position)
            elif self._left > 2:
                taken = min(self._left - 2, size - position)
                content.append(data[position : position + taken])
                self._left -= taken
                position += taken
            else:
                position = self._read_chunk_end(data, position, self._left)
        return content, position

    def _read_chunk_end(self, data: Data, position: int, left: int) -> int:
        if data[position] != (0x0D if left == 2 else 0x0A):
            raise BadBody("a chunk is longer than its size says")
        self._left = 1 if left == 2 else None
        return position + 1

    def _read_line(self, data: Data, position: int) -> int:
        is_trailer = self._trailer_size >= 0
        limit = MAX_TRAILER_SIZE if is_trailer else MAX_CHUNK_LINE
        before = len(self._line)
        line = self._line + bytes(data[position : position + limit + 1 - before])
        end = line.find(b"\n") + 1
        if not end:
            if len(line) > limit:
                raise BadBody("a trailer field is too long" if is_trailer else "the line before a chunk is too long")
            self._line = line
            return position + len(line) - before
        self._line = b""
        if is_trailer:
            self._end_trailer(line[:end])
        else:
            self._begin_chunk(line[:end])
        return position + end - before

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadBody("the line before a chunk is malformed")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailer_size = 0

    def _end_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.is_complete = True
            return
        self._trailer_size += len(line)
        match = _TRAILER.fullmatch(line[:-2]) if line.endswith(b"\r\n") else None
        if match is None:
            raise BadBody("a trailer field is malformed")
        if self._trailer_size > MAX_TRAILER_SIZE or len(self.trailers) >= MAX_TRAILER_COUNT:
            raise BadBody("the trailer section is too long")
        name = match[1].lower()
        # Like the fields of a head, under the names that a gateway (CGI, WSGI) would take for one another.
        hyphened = name.replace(b"_", b"-")
        if hyphened not in _NOT_IN_TRAILERS and not hyphened.startswith(b"x-forwarded-"):
            self.trailers.append(Field.of(match[1], match[2].rstrip(b" \t")))

    def end(self) -> None:
        """It is cut short, or was complete."""
        if not self.is_complete:
            raise BadBody("the body ended before its last chunk")


def as_chunks(content: list[Data]) -> list[Data]:
    """Write content as chunks, one for each piece."""
    chunks: list[Data] = []
    for piece in content:
        if len(piece):
            chunks += (b"%x\r\n" % len(piece), piece, b"\r\n")
    return chunks


def last_chunk(trailers: list[Field]) -> bytes:
    """Return what ends a chunked body."""
    return b"0\r\n%s\r\n" % b"".join(field.line for field in trailers)
