"""The heads of requests and responses.

httptools (llhttp, strict) judges the syntax; what it lets through although RFC 9112 does not is refused here.  Heads
are taken apart completely, because none is ever passed on as it came.
"""

import re
from typing import Final

import attrs
from httptools import HttpParserError, HttpParserInvalidMethodError, HttpRequestParser, HttpResponseParser

from ..errors import BadRequest, BadResponse
from .fields import Field, Framing, MalformedFields, read_framing
from .head_reader import MAX_HEAD_SIZE, Findings, HeadReader, KnownHeads
from .hosts import parse_authority

MAX_TARGET_SIZE: Final = 8 * 1024
"""Bytes in a request target: RFC 9112, section 3, asks for 8000 at the least."""

MAX_FIELD_COUNT: Final = 100
"""Fields in a head: browsers send about 20, and this is Apache's limit."""

# The usual first line, whose target has no part in what the fields mean.
_PLAIN_REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[\x21\x22\x24-\x7e]{0,8191}) HTTP/1\.[01](?=\r\n)"
)

_VERSIONS: Final = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}
_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}

# What a method may start with: a token's characters (RFC 9110, section 5.6.2).
_TOKEN_BYTES: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")

# Methods that llhttp knows for RTSP alone: with HTTP behind them, it calls the request malformed.
_RTSP_METHODS: Final = frozenset(
    b"DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)

_PROXY_LINE: Final = b"PROX"
"""As much of a PROXY header, version 1, as the parser reads before it knows that this is no method."""

_UNFIT_FOR_A_REASON: Final = bytes({*range(0x20), 0x7F} - {0x09})  # RFC 9112, section 4


@attrs.define
class RequestHead:
    """What a request's head says.

    *target* is as it was sent (ASCII, not decoded); *host* is normalised: lower case, no port, no trailing dot, IPv6
    in brackets, and empty only for HTTP/1.0 without a Host; *version* is ``1.0`` or ``1.1``.  *path* is the target in
    origin form (RFC 9112, section 3.2.1), or ``*``; *authority* is the host as the visitor spelt it, with its port.
    *special* are those of *fields* that are not plain; *kept* is `otun.http.forwarding`'s own note of the lines that
    are passed on.
    """

    method: str
    target: str
    host: str
    version: str
    path: bytes = attrs.field(default=b"", eq=False)
    authority: bytes = attrs.field(default=b"", eq=False)
    fields: list[Field] = attrs.field(factory=list, eq=False)
    special: list[Field] = attrs.field(factory=list, eq=False)
    framing: Framing = attrs.field(default=Framing(), eq=False)
    kept: bytes | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def has_body(self) -> bool:
        """Whether content follows; a Content-Length of 0 announces none."""
        return self.framing.is_chunked or bool(self.framing.content_length)

    @property
    def is_persistent(self) -> bool:
        """Whether the visitor may send another request behind this one."""
        return self.framing.is_persistent(self.version)


@attrs.define
class ResponseHead:
    """What a response's head says.

    *kept* is `otun.http.forwarding`'s own note of the lines that are passed on, and *usual* the server's, of the whole
    head as it is written to visitors whose connection goes on.
    """

    status: int
    reason: bytes
    version: str
    fields: list[Field] = attrs.field(factory=list, eq=False)
    special: list[Field] = attrs.field(factory=list, eq=False)
    framing: Framing = attrs.field(default=Framing(), eq=False)
    kept: bytes | None = attrs.field(default=None, eq=False, repr=False)
    usual: bytes | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def is_interim(self) -> bool:
        """Whether the final response is still to come (RFC 9110, section 15.2)."""
        return self.status < 200 and self.status != 101

    @property
    def is_persistent(self) -> bool:
        """Whether the origin takes another request on this connection."""
        return self.framing.is_persistent(self.version)


class RequestHeadReader(HeadReader[RequestHead, HttpRequestParser]):
    """Reads a request's head.

    `feed` raises `BadRequest` when the request is refused: its ``status`` is 400, 405, 414, 431, 501 or 505.
    """

    known: KnownHeads[RequestHead] = KnownHeads()  # The class has one.

    __slots__ = ()

    def _make_parser(self, findings: Findings) -> HttpRequestParser:
        return HttpRequestParser(findings)

    def refused_head(self) -> RequestHead | None:
        """Return what is known of a request that was refused, for the answer's sake; None if its head was cut short."""
        if self._parser is None or not self._findings.is_complete:
            return None
        return RequestHead(self._parser.get_method().decode(), "", "", "1.1", fields=self._findings.fields)

    def _find_known(self, received: bytes) -> RequestHead | None:
        line = _PLAIN_REQUEST_LINE.match(received)
        if line is None:
            return None
        known = self.known.find(_fields_behind(line))
        if known is None:
            return None
        target = line[2]
        return RequestHead(
            line[1].decode(),
            target.decode(),
            known.host,
            known.version,
            target,
            known.authority,
            known.fields,
            known.special,
            known.framing,
            known.kept,
        )

    def _learn(self, received: bytes, head: RequestHead) -> None:
        line = _PLAIN_REQUEST_LINE.match(received)
        if line is not None:
            self.known.learn(_fields_behind(line), head)

    def _complete_head(self) -> RequestHead:
        # The parser accepts RTSP/1.0 and runs of spaces, so the line itself is read; and it takes a target that ends
        # its line, with CR LF or a bare LF, for HTTP/0.9, so what it says of the version counts as well.
        assert self._parser is not None
        parts = self._line().split(b" ")
        if len(parts) > 3:
            raise BadRequest("the request line has more than three parts")
        version = _VERSIONS.get(parts[-1])
        if version is None or version != self._parser.get_http_version():
            raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
        method, target, _ = parts
        if method == b"CONNECT":
            raise BadRequest("CONNECT is for forward proxies, and this is none", status=405)
        return _request_head(method, target, version, self._findings.fields)

    def _refusal(self, error: HttpParserError) -> BadRequest:
        # The parser may have stopped at any byte of what came, so only what is certain then decides on the status:
        # the first byte and the method that it has recognised.
        if isinstance(error, HttpParserInvalidMethodError):
            if self._line().startswith(_PROXY_LINE):
                return BadRequest("a PROXY header is taken from trusted proxies only, and once")
            if self._line()[0] in _TOKEN_BYTES:
                return BadRequest("the request's method is not known here", status=501)
            return BadRequest("this is not an HTTP request")
        assert self._parser is not None
        method = self._parser.get_method()
        if method == b"PRI":
            # RFC 9113, section 3.4: the preface of a client that speaks HTTP/2 without asking first.
            return BadRequest("HTTP/2 is not spoken here", status=505)
        if method in _RTSP_METHODS:
            return BadRequest(f"{method.decode('ascii')} is not a method of HTTP", status=501)
        return BadRequest(f"the request is malformed: {error}")

    def _too_large(self) -> BadRequest:
        parts = self._line().split(b" ", 2)
        if len(parts) > 1 and len(parts[1]) > MAX_TARGET_SIZE:
            return _target_too_long()
        return BadRequest(f"the request's head is over {MAX_HEAD_SIZE} bytes", status=431)


class ResponseHeadReader(HeadReader[ResponseHead, HttpResponseParser]):
    """Reads a response's head.  `feed` raises `BadResponse` when no visitor may see it."""

    known: KnownHeads[ResponseHead] = KnownHeads()  # The class has one.

    __slots__ = ()

    def _make_parser(self, findings: Findings) -> HttpResponseParser:
        return HttpResponseParser(findings)

    def _find_known(self, received: bytes) -> ResponseHead | None:
        return self.known.find(received)

    def _learn(self, received: bytes, head: ResponseHead) -> None:
        self.known.learn(received, head)

    def _complete_head(self) -> ResponseHead:
        assert self._parser is not None
        version = _VERSIONS.get(self._line()[:8])
        if version is None:
            raise BadResponse("it speaks neither HTTP/1.1 nor HTTP/1.0")
        findings = self._findings
        status = self._parser.get_status_code()
        if status < 100:  # Any three digits are syntax; who sees these could take them for anything.
            raise BadResponse(f"its status {status:03d} is under 100")
        if len(findings.reason.translate(None, _UNFIT_FOR_A_REASON)) < len(findings.reason):
            raise BadResponse("its reason phrase has control characters")
        return _response_head(status, findings.reason, version, findings.fields)

    def _refusal(self, error: HttpParserError) -> BadResponse:
        return BadResponse(f"it is malformed: {error}")

    def _too_large(self) -> BadResponse:
        return BadResponse(f"its head is over {MAX_HEAD_SIZE} bytes")


def _fields_behind(line: re.Match[bytes]) -> bytes:
    """Return all fields, and the version's last digit: whether they are sound depends on nothing else before them."""
    return line.string[line.end() - 1 :]


def _request_head(method: bytes, target: bytes, version: str, fields: list[Field]) -> RequestHead:
    """Judge what the syntax leaves open.  Raises `BadRequest`."""
    if len(target) > MAX_TARGET_SIZE:
        raise _target_too_long()
    if b"#" in target:
        raise BadRequest("the request's target has a fragment, which is the visitor's own business")
    if len(fields) > MAX_FIELD_COUNT:
        raise BadRequest(f"the request has more than {MAX_FIELD_COUNT} fields", status=431)
    special = [field for field in fields if not field.is_plain]
    hosts = [field.value for field in special if field.name == b"host"]
    path, host, authority = _find_host(method, target, hosts, is_required=version == "1.1")
    try:
        framing = read_framing(special, version=version)
    except MalformedFields as error:
        raise BadRequest(str(error)) from error
    head = RequestHead(method.decode(), target.decode(), host, version, path, authority, fields, special, framing)
    if framing.upgrade is not None and head.has_body:
        raise BadRequest("a request to upgrade has no body here")
    return head


def _response_head(status: int, reason: bytes, version: str, fields: list[Field]) -> ResponseHead:
    """Judge what the syntax leaves open.  Raises `BadResponse`."""
    if len(fields) > MAX_FIELD_COUNT:
        raise BadResponse(f"it has more than {MAX_FIELD_COUNT} fields")
    special = [field for field in fields if not field.is_plain]
    try:
        framing = read_framing(special, version=version)
    except MalformedFields as error:
        raise BadResponse(str(error)) from error
    return ResponseHead(status, reason, version, fields, special, framing)


def _target_too_long() -> BadRequest:
    return BadRequest(f"the request's target is over {MAX_TARGET_SIZE} bytes", status=414)


def _find_host(method: bytes, target: bytes, hosts: list[bytes], *, is_required: bool) -> tuple[bytes, str, bytes]:
    """Return the target in origin form, and the host that it is for by the rules of RFC 9112, section 3.2 and 3.2.2."""
    if len(hosts) > 1:
        raise BadRequest("the request has more than one Host")
    if not hosts and is_required:
        raise BadRequest("the request has no Host")
    authority = hosts[0] if hosts else b""
    host, port = parse_authority(authority) if hosts else ("", None)
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, host, authority
    scheme, has_authority, rest = target.partition(b"://")
    default_port = _DEFAULT_PORTS.get(scheme.lower())
    if not has_authority or default_port is None:
        raise BadRequest("the request's target is neither a path nor an http URL")
    end = min((position for mark in b"/?" if (position := rest.find(mark)) >= 0), default=len(rest))
    named, path = rest[:end], rest[end:]
    target_host, target_port = parse_authority(named)
    target_place = target_host, default_port if target_port is None else target_port
    if hosts and target_place != (host, default_port if port is None else port):
        raise BadRequest("the request's target and its Host name different places")
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"  # RFC 9112, section 3.2.4
    return path if path[:1] != b"?" else b"/" + path, target_host, authority or named
