"""The head of the first request on a connection: enough to find the tunnel it is for.

httptools (llhttp) judges the syntax; what it lets through although RFC 9112 does not is refused here.
"""

from typing import Final

import attrs
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpRequestParser,
)

from ..errors import BadRequest, LocalProtocolError
from .hosts import parse_authority

MAX_HEAD_SIZE: Final = 32 * 1024
"""Bytes in a head, request line and blank line included: what nginx allows at most (4 buffers of 8 KiB)."""

MAX_TARGET_SIZE: Final = 8 * 1024
"""Bytes in a request target: RFC 9112, section 3, asks for 8000 at the least."""

MAX_FIELD_COUNT: Final = 100
"""Fields in a head: browsers send about 20, and this is Apache's limit."""

_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}

# What a method may start with: a token's characters (RFC 9110, section 5.6.2).
_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

# Methods that llhttp knows for RTSP alone: with HTTP behind them, it calls the request malformed.
_RTSP_METHODS: Final = frozenset(
    b"DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)


@attrs.frozen
class RequestHead:
    """What the first request's head says.

    *target* is as it was sent (ASCII, not decoded); *host* is normalised: lower case, no port, no trailing dot, IPv6
    in brackets, and empty only for HTTP/1.0 without a Host; *version* is ``1.0`` or ``1.1``.
    """

    method: str
    target: str
    host: str
    version: str


class _HeadComplete(Exception):
    """Leaves the parser where the head ends, so that it never looks at what follows."""


@attrs.define(eq=False)
class _Findings:
    """What the parser has come across; apart from the reader, so that no reference cycle keeps both alive."""

    hosts: list[bytes] = attrs.field(factory=list)
    field_count: int = 0
    is_complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Called once a field, with whole names and values however the bytes were split.
        self.field_count += 1
        if len(name) == 4 and name.lower() == b"host":
            self.hosts.append(value)

    def on_headers_complete(self) -> None:
        self.is_complete = True
        raise _HeadComplete


class RequestHeadReader:
    """Reads the first request's head from a connection's bytes, in whatever pieces they come.

    What is judged at a certain byte is judged at that byte only, so the answer does not depend on the pieces; limits
    are therefore looked at when the head is complete or `MAX_HEAD_SIZE` is reached.  At most that much is stored.

    Whether the body's length makes sense is not examined: the bytes are relayed as they are, on a connection that
    belongs to one tunnel, and it is the local service that reads the body.
    """

    def __init__(self) -> None:
        self._received = b""
        self._is_finished = False
        self._findings = _Findings()
        self._parser = HttpRequestParser(self._findings)
        # Any `HTTP/<digit>.<digit>` is syntax; which ones are served is for `_complete_head` to say, with a 505.
        self._parser.set_dangerous_leniencies(lenient_version=True)

    def __repr__(self) -> str:
        return f"<RequestHeadReader {'finished' if self._is_finished else 'reading'}, {len(self._received)} bytes>"

    def feed(self, data: bytes) -> RequestHead | None:
        """Take the connection's next bytes; return the head once it is complete, None while it is not.

        What follows the head in *data* is not looked at.  Raises `BadRequest` when the request is refused: its
        ``status`` is 400, 405, 414, 431, 501 or 505.  A reader that has returned a head or raised is spent, and
        raises `LocalProtocolError`.
        """
        if self._is_finished:
            raise LocalProtocolError("the head has been read already")
        piece = data[: MAX_HEAD_SIZE - len(self._received)]
        # Copies nothing when the head comes in one piece, as it nearly always does.
        self._received += piece
        try:
            self._parser.feed_data(piece)
        except HttpParserError as error:
            self._is_finished = True
            if self._findings.is_complete:
                return self._complete_head()
            if isinstance(error, HttpParserCallbackError):
                raise  # not the peer's doing
            raise self._refusal(error) from error
        if len(piece) < len(data):
            self._is_finished = True
            raise self._too_large()
        return None

    def _request_line(self) -> bytes:
        # RFC 9112, section 2.2: empty lines before the request line are ignored, and CR LF may be a bare LF there.
        return self._received.lstrip(b"\r\n").partition(b"\r\n")[0]

    def _complete_head(self) -> RequestHead:
        # The parser accepts RTSP/1.0 and runs of spaces, so the line itself is read; and it takes a target that ends
        # its line, with CR LF or a bare LF, for HTTP/0.9, so what it says of the version counts as well.
        parts = self._request_line().split(b" ")
        if len(parts) > 3:
            raise BadRequest("the request line has more than three parts")
        version = _VERSIONS.get(parts[-1])
        if version is None or version != self._parser.get_http_version():
            raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
        method, target, _ = parts
        if method == b"CONNECT":
            raise BadRequest("CONNECT is for forward proxies, and this is none", status=405)
        if len(target) > MAX_TARGET_SIZE:
            raise _target_too_long()
        if self._findings.field_count > MAX_FIELD_COUNT:
            raise BadRequest(f"the request has more than {MAX_FIELD_COUNT} fields", status=431)
        host = _find_host(method, target, self._findings.hosts, is_required=version == "1.1")
        return RequestHead(method.decode("latin-1"), target.decode("latin-1"), host, version)

    def _refusal(self, error: HttpParserError) -> BadRequest:
        # The parser may have stopped at any byte of what came, so only what is certain then decides on the status:
        # the first byte and the method that it has recognised.
        if isinstance(error, HttpParserInvalidMethodError):
            if self._request_line()[0] in _TOKEN_BYTES:
                return BadRequest("the request's method is not known here", status=501)
            return BadRequest("this is not an HTTP request")
        method = self._parser.get_method()
        if method == b"PRI":
            # RFC 9113, section 3.4: the preface of a client that speaks HTTP/2 without asking first.
            return BadRequest("HTTP/2 is not spoken here", status=505)
        if method in _RTSP_METHODS:
            return BadRequest(f"{method.decode('ascii')} is not a method of HTTP", status=501)
        return BadRequest(f"the request is malformed: {error}")

    def _too_large(self) -> BadRequest:
        parts = self._request_line().split(b" ", 2)
        if len(parts) > 1 and len(parts[1]) > MAX_TARGET_SIZE:
            return _target_too_long()
        return BadRequest(f"the request's head is over {MAX_HEAD_SIZE} bytes", status=431)


def _target_too_long() -> BadRequest:
    return BadRequest(f"the request's target is over {MAX_TARGET_SIZE} bytes", status=414)


def _find_host(method: bytes, target: bytes, hosts: list[bytes], *, is_required: bool) -> str:
    """Return the host that the request is for, by the rules of RFC 9112, section 3.2 and 3.2.2."""
    if len(hosts) > 1:
        raise BadRequest("the request has more than one Host")
    if not hosts and is_required:
        raise BadRequest("the request has no Host")
    host, port = parse_authority(hosts[0].rstrip(b" \t")) if hosts else ("", None)
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return host
    scheme, has_authority, rest = target.partition(b"://")
    default_port = _DEFAULT_PORTS.get(scheme.lower())
    if not has_authority or default_port is None:
        raise BadRequest("the request's target is neither a path nor an http URL")
    for delimiter in b"/", b"?", b"#":
        rest = rest.partition(delimiter)[0]
    target_host, target_port = parse_authority(rest)
    target_place = target_host, default_port if target_port is None else target_port
    if hosts and target_place != (host, default_port if port is None else port):
        raise BadRequest("the request's target and its Host name different places")
    return target_host
