"""How lax origins read requests: each tolerates what some server has tolerated, and none ever refuses anything.

They differ in whom they believe.  Edge and origin must see the same requests whichever of them stands behind the
tunnel.
"""

import re
from typing import Final, Literal

import attrs

from .messages import Field, Request, normalize_host, values_of


@attrs.frozen
class Laxness:
    """Whom an origin believes where a request says two things, and what it takes for a line's end."""

    name: str
    framing: Literal["te", "cl", "no te", "exact te"] = "te"
    """Which of Transfer-Encoding and Content-Length wins; or that the former is unknown here, or known only as
    precisely ``chunked``, spelt so and in a field of its own."""
    which: Literal["first", "last"] = "first"
    """Which of several lengths and Hosts counts."""
    is_bare_cr_a_line_end: bool = False
    are_underscores_hyphens: bool = False
    """In field names, as in CGI's and WSGI's variables."""
    does_target_name_host: bool = False
    are_octal_lengths_read: bool = False


LAX_READINGS: Final = (
    Laxness("te-wins", "te", are_underscores_hyphens=True),
    Laxness("cl-wins", "cl", are_octal_lengths_read=True),
    Laxness("last-cl-wins", "cl", "last", does_target_name_host=True),
    Laxness("exact-te", "exact te", is_bare_cr_a_line_end=True),
    Laxness("ignore-te", "no te", "last", are_underscores_hyphens=True),
)

_BLANK: Final = b"\x00\t\x0b\x0c\r "


@attrs.frozen
class Read:
    """A request that was read from the start of some bytes: how many there were of it, and whether it is the last."""

    request: Request
    size: int
    is_last: bool


def read_request(data: bytes, laxness: Laxness) -> Read | None:
    """Read the first request in *data*; None while it is incomplete."""
    lines = _Lines(data, laxness.is_bare_cr_a_line_end)
    line = lines.next()
    while line is not None and not line.strip(_BLANK):
        line = lines.next()
    fields = None if line is None else _read_fields(lines, laxness)
    if line is None or fields is None:
        return None
    method, target, version = ([part.decode("latin-1") for part in line.split()] + [""] * 3)[:3]
    content = _read_content(lines, fields, laxness)
    if content is None:
        return None
    body, trailers = content
    request = Request(method, target, _find_host(target, fields, laxness), body.decode("latin-1"), trailers, fields)
    connection = ",".join(values_of(fields, "connection")).lower()
    is_last = "close" in connection or (version != "HTTP/1.1" and "keep-alive" not in connection)
    return Read(request, lines.position, is_last)


def _find_host(target: str, fields: tuple[Field, ...], laxness: Laxness) -> str:
    _, is_absolute, rest = target.partition("://")
    if laxness.does_target_name_host and is_absolute and not target.startswith("/"):
        return normalize_host(re.split("[/?#]", rest)[0].rpartition("@")[2])
    hosts = values_of(fields, "host")
    return normalize_host(_choose(hosts, laxness)) if hosts else ""


def _choose(values: list[str], laxness: Laxness) -> str:
    return values[0 if laxness.which == "first" else -1]


@attrs.define
class _Lines:
    data: bytes
    is_bare_cr_a_line_end: bool
    position: int = 0

    def next(self) -> bytes | None:
        """The next line, without its end; None when the end is not there."""
        pattern = rb"\r\n|\n|\r" if self.is_bare_cr_a_line_end else rb"\r*\n"
        end = re.compile(pattern).search(self.data, self.position)
        if end is None or (end[0] == b"\r" and end.end() == len(self.data)):
            return None
        line = self.data[self.position : end.start()]
        self.position = end.end()
        return line

    def exactly(self, size: int) -> bytes | None:
        if self.position + size > len(self.data):
            return None
        self.position += size
        return self.data[self.position - size : self.position]


def _read_fields(lines: _Lines, laxness: Laxness) -> tuple[Field, ...] | None:
    """Folded lines are unfolded, and lines without a colon are left out."""
    fields: list[Field] = []
    while line := lines.next():
        text = line.decode("latin-1")
        if text[0] in " \t" and fields:
            fields[-1] = fields[-1][0], f"{fields[-1][1]} {text.strip()}"
            continue
        name, colon, value = text.partition(":")
        if laxness.are_underscores_hyphens:
            name = name.replace("_", "-")
        if colon:
            blank = _BLANK.decode()
            fields.append((name.strip(blank), value.strip(blank)))
    return None if line is None else tuple(fields)


def _read_content(lines: _Lines, fields: tuple[Field, ...], laxness: Laxness) -> tuple[bytes, tuple[Field, ...]] | None:
    codings = values_of(fields, "transfer-encoding")
    lengths = [length for value in values_of(fields, "content-length") for length in value.split(",")]
    is_chunked = any("chunked" in coding.lower() for coding in codings)
    if laxness.framing == "exact te":
        is_chunked = "chunked" in codings
    is_chunked = is_chunked and laxness.framing != "no te" and not (lengths and laxness.framing == "cl")
    if is_chunked:
        return _read_chunks(lines, laxness)
    size = _read_number(_choose(lengths, laxness), 0 if laxness.are_octal_lengths_read else 10) if lengths else 0
    body = lines.exactly(size)
    return None if body is None else (body, ())


def _read_chunks(lines: _Lines, laxness: Laxness) -> tuple[bytes, tuple[Field, ...]] | None:
    body = bytearray()
    while True:
        line = lines.next()
        if line is None:
            return None
        size = _read_number(line.decode("latin-1"), 16)
        if not size:
            break
        chunk = lines.exactly(size)
        if chunk is None:
            return None
        body += chunk
        if lines.data[lines.position :] in (b"", b"\r"):
            return None
        end = re.compile(rb"\r?\n?").match(lines.data, lines.position)
        assert end is not None
        lines.position = end.end()
    trailers = _read_fields(lines, laxness)
    return None if trailers is None else (bytes(body), trailers)


def _read_number(text: str, base: int) -> int:
    """Read as C's strtoul does: blanks, a sign, ``0x``, then digits until something else comes; 64 bits of it."""
    match = re.match(r"\s*([+-]?)(0[xX])?([0-9a-fA-F]*)", text.replace("_", ""))
    assert match is not None
    if match[2] and base in (0, 16):
        base = 16
    elif base == 0:
        base = 8 if match[3].startswith("0") else 10
    digits = "0123456789abcdef"[:base]
    number = re.match(f"[{digits}]*", match[3].lower())
    assert number is not None
    value = int(number[0] or "0", base) % 2**64
    return 0 if match[1] == "-" else value
