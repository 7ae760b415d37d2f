"""Header fields, and what they say about the message: where its body ends, and what is for the next hop only."""

from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length: more would not fit in the 64-bit integers that others count with."""

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)
"""Fields that are meant for the next hop and removed here (RFC 9110, section 7.6.1)."""

IDENTITY: Final = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"))
"""Fields that tell who the visitor is: only whom we trust may say that."""

_SPECIAL: Final = (
    HOP_BY_HOP | IDENTITY | {b"host", b"content-length", b"proxy-authorization", b"expect", b"trailer", b"set-cookie"}
)


class Field(NamedTuple):
    """A field: its *name* in lower case, its *value* without the spaces around it, and the *line* that is passed on.

    A field that *is_plain* is of no concern to a relay.
    """

    name: bytes
    value: bytes
    line: bytes
    is_plain: bool

    @classmethod
    def of(cls, spelt: bytes, value: bytes) -> "Field":
        """Return the field with the name as it was *spelt*."""
        name = spelt.lower()
        # A gateway that turns names into variables (CGI, WSGI) takes an underscore for a hyphen.
        is_plain = name not in _SPECIAL and (b"_" not in name or name.replace(b"_", b"-") not in _SPECIAL)
        return cls(name, value, b"%s: %s\r\n" % (spelt, value), is_plain)


_NEVER_NOMINATED: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"trailer"))

_USUAL_CONNECTIONS: Final[dict[bytes, frozenset[bytes]]] = {
    value: frozenset([value.lower()]) for value in (b"keep-alive", b"Keep-Alive", b"close", b"Close")
}


class MalformedFields(Exception):
    """The fields contradict each other or what RFC 9112 allows; the text says how.  Each reader has its own error."""


class Framing(NamedTuple):
    """What a message's fields say about its body and its connection.

    *options* are the Connection field's, in lower case; *upgrade* is the protocol asked for or switched to, which
    counts only when Connection names it.
    """

    content_length: int | None = None
    is_chunked: bool = False
    options: frozenset[bytes] = frozenset()
    upgrade: bytes | None = None

    def is_persistent(self, version: str) -> bool:
        """Whether another message may follow on the connection (RFC 9112, section 9.3)."""
        return b"close" not in self.options and (version == "1.1" or b"keep-alive" in self.options)


def read_framing(fields: Iterable[Field], *, version: str) -> Framing:
    """Return what *fields* say; plain ones may be left out.

    Raises `MalformedFields` for whatever two parties could read differently.
    """
    length: bytes | None = None
    coding: bytes | None = None
    options: frozenset[bytes] = frozenset()
    upgrade: bytes | None = None
    for name, value, _, _ in fields:
        if name == b"connection":
            usual = _USUAL_CONNECTIONS.get(value)
            options |= _options(value) if usual is None else usual
        elif name == b"content-length":
            if length is not None:
                raise MalformedFields("there is more than one Content-Length")
            length = value
        elif name == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked":
                raise MalformedFields("the only transfer coding that is passed on is chunked")
            coding = value
        elif name == b"upgrade":
            upgrade = value if upgrade is None else upgrade + b", " + value
    if coding is not None and version == "1.0":
        raise MalformedFields("HTTP/1.0 has no Transfer-Encoding")
    if coding is not None and length is not None:
        raise MalformedFields("Content-Length and Transfer-Encoding come together")
    if upgrade is not None and (b"upgrade" not in options or version == "1.0" or b"h2c" in upgrade.lower()):
        # RFC 9110, section 7.8.  HTTP/2 without TLS (which RFC 9113 has given up) would carry requests past us.
        upgrade = None
    return Framing(None if length is None else _read_length(length), coding is not None, options, upgrade)


def _options(value: bytes) -> frozenset[bytes]:
    options = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
    damaged = options & _NEVER_NOMINATED
    if damaged:
        raise MalformedFields(f"Connection names {min(damaged).decode()}, which is not for one hop only")
    return options


def _read_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
        raise MalformedFields("Content-Length is not a number of bytes")
    return int(value)
