"""The wire format: a header of 12 bytes, and behind the header of a data frame its body.

Header, big endian: version (8 bits, 0), type (8), flags (16), stream id (32), length (32).  *Length* is the body's size
in a data frame, a credit in a window update, an opaque value in a ping and an error code in a GoAway.

Types and flags are plain integers here, and a frame is never made into an object: that would cost more than all
the rest of reading it (0.64 µs against 0.4).
"""

from enum import IntEnum
from struct import Struct
from typing import Final, Protocol

from ..errors import RemoteProtocolError

VERSION: Final = 0

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

HEADER: Final = Struct(">BBHII")
HEADER_SIZE: Final = 12
MAX_UINT32: Final = 2**32 - 1


class GoAwayCode(IntEnum):
    """Why a session ends (yamux spec, "Go Away")."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def encode_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """Return the 12 bytes of a header; version 0 is understood."""
    return HEADER.pack(VERSION, kind, flags, stream_id, length)


class FrameReceiver(Protocol):
    """Whoever wants to know what a `FrameDecoder` reads."""

    def header_received(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """A header has arrived.  When *kind* is `DATA`, *length* bytes of body follow."""

    def body_received(self, data: memoryview, missing: int) -> None:
        """A non-empty piece of the last header's body has arrived; *missing* bytes of it are still to come.

        *data* is valid during the call only: whoever keeps it must copy it.
        """


class FrameDecoder:
    """Cuts a byte stream into headers and pieces of bodies.  Keeps at most 11 bytes of its own."""

    def __init__(self, receiver: FrameReceiver) -> None:
        self._receiver = receiver
        self._partial_header = b""
        self._body_missing = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without cutting a frame."""
        return not self._partial_header and not self._body_missing

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Hand the next bytes of the stream to the receiver, in as many calls as it takes.

        Raises `RemoteProtocolError` at a header of an unknown version or type; nothing may be fed after that.
        """
        if self._partial_header:
            data = self._partial_header + bytes(data)
            self._partial_header = b""
        header_received = self._receiver.header_received
        unpack_header = HEADER.unpack_from
        position, end = 0, len(data)
        with memoryview(data) as view:
            while True:
                if self._body_missing and position < end:
                    start = position
                    position = min(start + self._body_missing, end)
                    self._body_missing -= position - start
                    self._receiver.body_received(view[start:position], self._body_missing)
                if end - position < HEADER_SIZE:
                    break
                version, kind, flags, stream_id, length = unpack_header(view, position)
                if version != VERSION:
                    raise RemoteProtocolError(f"frame of unknown yamux version {version}; is the peer speaking yamux?")
                if kind > GO_AWAY:
                    raise RemoteProtocolError(f"frame of unknown type {kind} on stream {stream_id}")
                position += HEADER_SIZE
                if kind == DATA:
                    self._body_missing = length
                header_received(kind, flags, stream_id, length)
            if position < end:
                self._partial_header = bytes(view[position:])
