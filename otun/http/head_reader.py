"""How a head is read, a request's or a response's: from pieces, by a parser, or by bytes that are known."""

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from ..errors import BadRequest, BadResponse, LocalProtocolError
from .fields import Field

MAX_HEAD_SIZE: Final = 32 * 1024
"""Bytes in a head, first line and blank line included: what nginx allows at most (4 buffers of 8 KiB)."""

MAX_KNOWN: Final = 1024
"""Heads that are remembered, of requests and of responses: with `MAX_KNOWN_SIZE`, 1 MiB each at most."""

MAX_KNOWN_SIZE: Final = 1024
"""Bytes in such a head."""

_LINE_ENDS: Final = (b"\r", b"\n")

HeadT = TypeVar("HeadT")
ParserT = TypeVar("ParserT", HttpRequestParser, HttpResponseParser)


class Findings:
    """What the parser has come across; apart from the reader, so that no reference cycle keeps both alive."""

    __slots__ = ("fields", "is_complete", "reason")

    def __init__(self) -> None:
        self.fields: list[Field] = []
        self.reason = b""
        self.is_complete = False

    def on_status(self, reason: bytes) -> None:
        """Keep a piece of the reason phrase."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field.  Called once for each, with whole names and values however the bytes were split."""
        self.fields.append(Field.of(name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """The blank line has come."""
        self.is_complete = True


class KnownHeads(Generic[HeadT]):
    """Bytes of heads that were found to be sound, and what they mean: most are sent again and again.

    A head, or the part of it that matters, is remembered when it comes for the second time.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, HeadT] = {}
        self._candidates: set[int] = set()  # The hashes of those that were seen once.
        self.find = self._heads.get

    def learn(self, received: bytes, head: HeadT) -> None:
        """Take note of a sound head.  It may be shared from now on, and must not be changed."""
        if len(received) > MAX_KNOWN_SIZE:
            return
        candidate = hash(received)
        if candidate not in self._candidates:
            if len(self._candidates) >= MAX_KNOWN:
                self._candidates.clear()
            self._candidates.add(candidate)
            return
        if len(self._heads) >= MAX_KNOWN:
            self._heads.clear()
        self._heads[received] = head


class HeadReader(ABC, Generic[HeadT, ParserT]):
    """Reads a head from a connection's bytes, in whatever pieces they come.

    What is judged at a certain byte is judged at that byte only, so the answer does not depend on the pieces; limits
    are therefore looked at when the head is complete or `MAX_HEAD_SIZE` is reached.  At most that much is stored.
    """

    __slots__ = ("__weakref__", "_findings", "_is_finished", "_parser", "_received", "rest")

    def __init__(self) -> None:
        self._received = b""
        self._is_finished = False
        self._findings: Findings
        self._parser: ParserT | None = None  # Until it is needed.
        self.rest: bytes = b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'finished' if self._is_finished else 'reading'}, {len(self._received)} bytes>"

    @property
    def is_untouched(self) -> bool:
        """Whether nothing but line ends has come yet."""
        return not self._received.strip(b"\r\n")

    def feed(self, data: bytes) -> HeadT | None:
        """Take the connection's next bytes; return the head once it is complete, None while it is not.

        What follows the head in *data* is not looked at, and is in `rest` then.  A reader that has returned a head or
        raised is spent, and raises `LocalProtocolError`.
        """
        if self._is_finished:
            raise LocalProtocolError("the head has been read already")
        before = len(self._received)
        received = self._received + data if before else data
        # A strict parser takes CR LF alone for a line's end, so this is where it sees the head end, too.
        start = self._first_line(received, before) if before or received[:1] in _LINE_ENDS else 0
        end = received.find(b"\r\n\r\n", start)
        if end >= 0:
            end += 4
            self.rest = received[end:]
            received = received[:end]  # Copies nothing when it is all, as it nearly always is.
            if not before and (known := self._find_known(received)) is not None:
                self._is_finished = True
                return known
        is_too_large = len(received) > MAX_HEAD_SIZE
        if is_too_large:
            received = received[:MAX_HEAD_SIZE]
        self._received = received
        self._parse(received[before:])
        if self._is_finished:
            head = self._complete_head()
            self._learn(self._received, head)
            return head
        if is_too_large:
            self._is_finished = True
            raise self._too_large()
        if end >= 0:  # It waits for more: the preface of HTTP/2 does not end with its blank line.
            self._is_finished = True
            raise self._refusal(HttpParserError("the head does not end with its blank line"))
        return None

    def _first_line(self, received: bytes, before: int) -> int:
        """Return from where on a blank line ends the head: empty lines may stand before it."""
        start = before - 3 if before > 3 else 0
        if received[start : start + 1] in _LINE_ENDS and not received[:start].strip(b"\r\n"):
            start = len(received) - len(received.lstrip(b"\r\n"))
        return start

    def _parse(self, piece: bytes) -> None:
        if self._parser is None:
            self._findings = Findings()
            self._parser = self._make_parser(self._findings)
            # Any `HTTP/<digit>.<digit>` is syntax; which ones are served is for `_complete_head` to say.
            self._parser.set_dangerous_leniencies(lenient_version=True)
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass
        except HttpParserCallbackError:
            raise  # not the peer's doing
        except HttpParserError as error:
            if not self._findings.is_complete:
                self._is_finished = True
                raise self._refusal(error) from error
        self._is_finished = self._findings.is_complete

    def _line(self) -> bytes:
        # RFC 9112, section 2.2: empty lines before the request line are ignored, and CR LF may be a bare LF there.
        received = self._received
        return (received.lstrip(b"\r\n") if received[:1] in b"\r\n" else received).partition(b"\r\n")[0]

    @abstractmethod
    def _make_parser(self, findings: Findings) -> ParserT:
        """Return a new parser that tells *findings*."""

    @abstractmethod
    def _find_known(self, received: bytes) -> HeadT | None:
        """Return the head if the same bytes, or those that matter, were found to be sound before."""

    @abstractmethod
    def _learn(self, received: bytes, head: HeadT) -> None:
        """Take note of a sound head."""

    @abstractmethod
    def _complete_head(self) -> HeadT:
        """Return the head that the parser has read.  Raises what `_refusal` returns."""

    @abstractmethod
    def _refusal(self, error: HttpParserError) -> BadRequest | BadResponse:
        """Return the error for bytes that the parser refuses."""

    @abstractmethod
    def _too_large(self) -> BadRequest | BadResponse:
        """Return the error for a head that is larger than `MAX_HEAD_SIZE`."""
