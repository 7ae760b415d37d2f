"""Fuzzes the `RequestHeadReader`: any bytes are a head, not yet a head, or a `BadRequest`, however they are cut.

The input: the first byte is the size of the pieces, less one, of 1 to 64 bytes; then the connection's bytes, see
`pieces.expand`.
"""

import atheris

with atheris.instrument_imports(include=["otun"]):
    from otun.errors import BadRequest, LocalProtocolError
    from otun.http.head import MAX_FIELD_COUNT, MAX_HEAD_SIZE, MAX_TARGET_SIZE, RequestHead, RequestHeadReader
    from otun.http.hosts import parse_authority

from harness import fuzz
from pieces import cut, expand

STATUSES = {400, 405, 414, 431, 501, 505}


def read(pieces: list[bytes]) -> RequestHead | tuple[int, str] | None:
    reader = RequestHeadReader()
    try:
        for piece in pieces:
            head = reader.feed(piece)
            assert len(reader._received) <= MAX_HEAD_SIZE
            if head is not None:
                check_spent(reader)
                return head
    except BadRequest as error:
        check_spent(reader)
        return error.status, str(error)
    return None


def check_spent(reader: RequestHeadReader) -> None:
    try:
        reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    except LocalProtocolError:
        return
    raise AssertionError("a spent reader goes on")


def check_refusal(status: int, text: str) -> None:
    assert status in STATUSES
    assert text.isprintable()


def check_head(head: RequestHead, data: bytes) -> None:
    """Everything in *head* stands in *data*, and is fit to be compared, logged and forwarded."""
    line, end, rest = data.lstrip(b"\r\n").partition(b"\r\n")
    assert line == f"{head.method} {head.target} HTTP/{head.version}".encode("latin-1")
    assert end
    assert head.version in ("1.0", "1.1")
    assert head.method.isascii()
    assert head.method != "CONNECT"
    assert 0 < len(head.target) <= MAX_TARGET_SIZE
    assert not set(head.target) & {*map(chr, range(33)), "\x7f"}
    fields = rest.partition(b"\r\n\r\n")[0] if not rest.startswith(b"\r\n") else b""
    assert fields.count(b"\r\n") < MAX_FIELD_COUNT
    if head.host:
        assert parse_authority(head.host.encode()) == (head.host, None)
    else:
        assert head.version == "1.0"


def test_one_input(data: bytes) -> None:
    stream = expand(data[1:])
    result = read([stream])
    pieces = cut(stream, data[0] % 64 + 1) if data else []
    assert read(pieces) == result, "it depends on how the bytes are cut"
    match result:
        case RequestHead():
            check_head(result, stream)
        case status, text:
            check_refusal(status, text)


if __name__ == "__main__":
    fuzz(test_one_input)
