"""Where one JSON object ends and the next begins, in a stream that may be cut anywhere.

Only braces, brackets and strings are looked at; whether what lies between them is JSON is for the codec to find out.
Every byte is scanned once, so a message that arrives byte by byte costs no more than linear time.
"""

import re
from typing import Final

from ..errors import BadMessage, LocalProtocolError
from .excerpt import excerpt

MAX_MESSAGE_SIZE: Final = 65_536
"""Bytes from a message's first brace to its last.  A real one has a few hundred; this bounds what a stranger who has
not registered yet can make us keep."""

MAX_DEPTH: Final = 32
"""Objects and arrays inside one another, the message itself included.  Messages are flat; this leaves room for later
fields, and keeps the JSON parser, which recurses, far away from its own limit."""

_WHITESPACE: Final = re.compile(rb"[ \t\r\n]*+")
_OUTSIDE_STRING: Final = re.compile(rb'["{}\[\]]')
_INSIDE_STRING: Final = re.compile(rb'["\\]')

_QUOTE, _BACKSLASH, _OPENING_BRACE, _OPENING_BRACKET = b'"\\{['


class ObjectSplitter:
    """Cuts a byte stream into JSON objects, which may have whitespace between them and need none.

    Between two calls of `feed` it keeps less than `MAX_MESSAGE_SIZE` bytes: those of one unfinished object.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0  # of the present object, while there is one
        self._position = 0  # of the first byte not scanned; one too far when an escaped character is still to come
        self._depth = 0  # 0 between objects
        self._is_in_string = False

    def __repr__(self) -> str:
        return f"<ObjectSplitter with {len(self._buffer) - self._start} bytes, at depth {self._depth}>"

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream.

        Raises `LocalProtocolError` unless `next_object` has returned None since the last call (or there was none).
        """
        self._require_all_scanned("feed")
        self._buffer += data

    def next_object(self) -> bytes | None:
        """Return the bytes of the next whole object, or None when it has not arrived yet.

        Raises `BadMessage` for an object that is too long or too deep, and for anything else than an object; the
        splitter must not be used after that.
        """
        end = self._find_end() if self._find_start() else None
        if end is not None:
            found = bytes(self._buffer[self._start : end])
            self._start = end
            return found
        del self._buffer[: self._start]
        self._position -= self._start
        self._start = 0
        return None

    def receive_eof(self) -> None:
        """Take note that the stream has ended.  Raises `BadMessage` when that cuts an object."""
        self._require_all_scanned("receive_eof")
        if self._depth:
            raise BadMessage(f"the stream ended inside a control message, after {len(self._buffer)} bytes of it")

    def _require_all_scanned(self, verb: str) -> None:
        if self._position < len(self._buffer):
            unread = len(self._buffer) - self._position
            raise LocalProtocolError(f"{verb}() with {unread} bytes unread: read until there is no more message first")

    def _find_start(self) -> bool:
        """Go to the present object's first byte, over whitespace.  Return whether it is there."""
        if self._depth:
            return True
        whitespace = _WHITESPACE.match(self._buffer, self._position)
        assert whitespace is not None
        self._start = self._position = whitespace.end()
        if self._start == len(self._buffer):
            return False
        first = self._buffer[self._start]
        if first != _OPENING_BRACE:
            raise BadMessage(f"a control message must be a JSON object, but it starts with {excerpt(chr(first))}")
        return True

    def _find_end(self) -> int | None:
        """Scan on in the present object.  Return where it ends, or None when its end is not there yet."""
        buffer = self._buffer
        limit = min(len(buffer), self._start + MAX_MESSAGE_SIZE)
        while self._position < limit:
            pattern = _INSIDE_STRING if self._is_in_string else _OUTSIDE_STRING
            found = pattern.search(buffer, self._position, limit)
            if found is None:
                self._position = limit
                break
            self._position = found.end()
            character = buffer[found.start()]
            if character == _QUOTE:
                self._is_in_string = not self._is_in_string
            elif character == _BACKSLASH:
                self._position += 1
            elif character in (_OPENING_BRACE, _OPENING_BRACKET):
                self._depth += 1
                if self._depth > MAX_DEPTH:
                    raise BadMessage(f"a control message is nested more than {MAX_DEPTH} deep")
            else:
                self._depth -= 1
                if not self._depth:
                    return self._position
        if limit == self._start + MAX_MESSAGE_SIZE:
            raise BadMessage(f"a control message is longer than {MAX_MESSAGE_SIZE} bytes")
        return None
