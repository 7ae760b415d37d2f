"""What the parts of the smuggling tests tell each other: requests as somebody has read them, answers to them.

Bytes are written as text, one character a byte (Latin-1), so that they can be told in JSON and in corpus files.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

Field = tuple[str, str]

Ending = Literal["open", "end", "reset", "silence"]
"""How a visitor's connection stands after its last byte: still open, ended, reset, or open and silent for too long."""


@attrs.frozen
class Request:
    """A request as somebody has read it.  *fields* and *tunnel* are told along and do not make two requests differ."""

    method: str
    target: str
    host: str = "app.test"
    body: str = ""
    trailers: tuple[Field, ...] = ()
    fields: tuple[Field, ...] = attrs.field(default=(), eq=False, repr=False)
    tunnel: str = attrs.field(default="", eq=False)

    def to_json(self) -> bytes:
        """As the body of an origin's answer."""
        return json.dumps(attrs.asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Request":
        """Read what `to_json` wrote."""
        told = json.loads(text)
        told["trailers"] = tuple((name, value) for name, value in told["trailers"])
        told["fields"] = tuple((name, value) for name, value in told["fields"])
        return cls(**told)


def normalize_host(host: str) -> str:
    """Return *host* as it is compared: letters' case, a trailing dot and the default port mean nothing."""
    name, _, port = host.lower().partition(":")
    return name.removesuffix(".") + (f":{port}" if port not in ("", "80") else "")


def values_of(fields: Iterable[Field], name: str) -> list[str]:
    """Return the values that *fields* have for *name*, in any spelling."""
    return [value for spelling, value in fields if spelling.lower() == name.lower()]


@attrs.frozen
class Answer:
    """A final response as the visitor has read it.  *is_whole* says that it ended as it had announced."""

    status: int
    fields: tuple[Field, ...]
    body: bytes
    trailers: tuple[Field, ...] = ()
    is_whole: bool = True

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return bool(values_of(self.fields, name))


class NotHttp(Exception):
    """Bytes that no server may send, or no edge may pass on."""


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_REQUEST_LINE: Final = re.compile(rb"(%s) ([!-~]+) HTTP/1\.[01]" % TOKEN)
_FIELD: Final = re.compile(rb"(%s): ?((?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?)" % TOKEN)
_CHUNK_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")


def read_requests(data: bytes) -> tuple[list[Request], bytes]:
    """Read *data* as a most pedantic recipient would: the complete requests, and what is left of an incomplete one.

    Raises `NotHttp` for anything that is not in the one form that nobody can misread: no white space or line end but
    the usual ones, one Host, one framing, no chunk extension.
    """
    requests: list[Request] = []
    reader = _Bytes(data)
    try:
        while not reader.is_at_end:
            start = reader.position
            line = _full_match(_REQUEST_LINE, reader.line())
            fields = reader.fields()
            if len(values_of(fields, "host")) > 1:
                raise NotHttp("more than one Host")
            body, trailers = reader.body(fields, is_response=False)
            host = normalize_host(next(iter(values_of(fields, "host")), ""))
            method, target = line[1].decode("latin-1"), line[2].decode("latin-1")
            requests.append(Request(method, target, host, body.decode("latin-1"), trailers, fields))
    except _Incomplete:
        return requests, data[start:]
    return requests, b""


def read_answers(data: bytes, methods: Sequence[str], ending: Ending) -> tuple[list[Answer], list[int], bytes]:
    """Read what a visitor got as answers to requests of *methods*: final answers, interim statuses, surplus bytes.

    Raises `NotHttp` for answers that are not in the one form that nobody can misread.
    """
    answers: list[Answer] = []
    interim: list[int] = []
    reader = _Bytes(data)
    for method in methods:
        status = 100
        while status < 200 and not reader.is_at_end:
            try:
                status = int(_full_match(_STATUS_LINE, reader.line())[1])
                fields = reader.fields()
            except _Incomplete:
                raise NotHttp(f"a head that ends early: {data[reader.position :]!r}") from None
            if status < 200:
                interim.append(status)
            else:
                answers.append(_read_content(reader, method, status, fields, ending))
    return answers, interim, reader.rest()


def _read_content(reader: "_Bytes", method: str, status: int, fields: tuple[Field, ...], ending: Ending) -> Answer:
    if method == "HEAD" or status in (204, 304):
        return Answer(status, fields, b"")
    is_by_end = not values_of(fields, "content-length") and not values_of(fields, "transfer-encoding")
    if is_by_end:
        return Answer(status, fields, reader.rest(), is_whole=ending == "end")
    start = reader.position
    try:
        body, trailers = reader.body(fields, is_response=True)
    except _Incomplete:
        reader.position = start
        return Answer(status, fields, reader.rest(), is_whole=False)
    return Answer(status, fields, body, trailers)


class _Incomplete(Exception):
    pass


def _full_match(pattern: re.Pattern[bytes], line: bytes) -> re.Match[bytes]:
    match = pattern.fullmatch(line)
    if match is None:
        raise NotHttp(f"not in the plainest form: {line[:200]!r}")
    return match


@attrs.define
class _Bytes:
    """Bytes that are read from the start."""

    data: bytes
    position: int = 0

    @property
    def is_at_end(self) -> bool:
        return self.position == len(self.data)

    def rest(self) -> bytes:
        return self.exactly(len(self.data) - self.position)

    def exactly(self, size: int) -> bytes:
        taken = self.data[self.position : self.position + size]
        if len(taken) < size:
            raise _Incomplete
        self.position += size
        return taken

    def line(self) -> bytes:
        line, end, _ = self.data[self.position :].partition(b"\r\n")
        if not end:
            raise _Incomplete
        self.position += len(line) + 2
        return line

    def fields(self) -> tuple[Field, ...]:
        found: list[Field] = []
        while line := self.line():
            match = _full_match(_FIELD, line)
            found.append((match[1].decode("latin-1"), match[2].decode("latin-1")))
        return tuple(found)

    def body(self, fields: tuple[Field, ...], *, is_response: bool) -> tuple[bytes, tuple[Field, ...]]:
        lengths, codings = values_of(fields, "content-length"), values_of(fields, "transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise NotHttp(f"more than one framing: {lengths + codings}")
        if lengths:
            if not re.fullmatch("0|[1-9][0-9]{0,17}", lengths[0]):
                raise NotHttp(f"a strange Content-Length: {lengths[0]!r}")
            return self.exactly(int(lengths[0])), ()
        if not codings:
            assert not is_response
            return b"", ()
        if codings[0].lower() != "chunked":
            raise NotHttp(f"a strange Transfer-Encoding: {codings[0]!r}")
        return self._chunks()

    def _chunks(self) -> tuple[bytes, tuple[Field, ...]]:
        body = bytearray()
        while size := int(_full_match(_CHUNK_SIZE, self.line())[0], 16):
            body += self.exactly(size)
            if self.exactly(2) != b"\r\n":
                raise NotHttp("a chunk that is longer than it says")
        return bytes(body), self.fields()


def write_requests(requests: Iterable[Request]) -> bytes:
    """Write *requests* in the one form that nobody can misread, with one chunk a body that is chunked.

    Those with trailers are chunked; for the others the length is given.
    """
    written = bytearray()
    for request in requests:
        head = [f"{request.method} {request.target} HTTP/1.1", f"Host: {request.host}"]
        if request.trailers:
            head.append("Transfer-Encoding: chunked")
        elif request.body:
            head.append(f"Content-Length: {len(request.body)}")
        written += "\r\n".join([*head, "", ""]).encode("latin-1")
        if request.trailers:
            trailers = "".join(f"{name}: {value}\r\n" for name, value in request.trailers)
            chunk = f"{len(request.body):x}\r\n{request.body}\r\n" if request.body else ""
            written += f"{chunk}0\r\n{trailers}\r\n".encode("latin-1")
        else:
            written += request.body.encode("latin-1")
    return bytes(written)


def answer_with(body: bytes, *, is_last: bool, has_body: bool = True) -> bytes:
    """Write an origin's answer of 200."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *["Connection: close"] * is_last]
    return "\r\n".join([*lines, "", ""]).encode() + body * has_body
