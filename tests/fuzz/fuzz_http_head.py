"""Fuzzes what reads HTTP: any bytes are a head or body, not yet one, or refused, however they are cut.

They are given to the readers of requests, of responses and of chunked bodies alike; a request that is accepted is
written anew as the edge does, and must be the same request then.

The input: the first byte is the size of the pieces, less one, of 1 to 64 bytes; then the connection's bytes, see
`pieces.expand`.
"""

import atheris

with atheris.instrument_imports(include=["otun"]):
    from otun.errors import BadBody, BadRequest, BadResponse, LocalProtocolError
    from otun.http.body import MAX_CHUNK_LINE, MAX_TRAILER_COUNT, MAX_TRAILER_SIZE, ChunkedBody
    from otun.http.forwarding import Visitor, write_request, write_response
    from otun.http.head import (
        MAX_FIELD_COUNT,
        MAX_HEAD_SIZE,
        MAX_TARGET_SIZE,
        RequestHead,
        RequestHeadReader,
        ResponseHead,
        ResponseHeadReader,
    )
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


def check_rewritten(head: RequestHead) -> None:
    """The edge's own words for *head* mean the same request."""
    written = write_request(head, Visitor("192.0.2.1"), host=head.authority or b"a")
    assert written.count(b"\r\n\r\n") == 1
    if len(head.fields) > MAX_FIELD_COUNT - 8 or len(written) > MAX_HEAD_SIZE:
        return  # Ours come on top, and the local service has its own limits.
    again = RequestHeadReader().feed(written)
    assert again is not None
    assert (again.method, again.path, again.version) == (head.method, head.path, "1.1")
    assert again.framing.content_length == head.framing.content_length
    assert again.framing.is_chunked == head.framing.is_chunked
    assert again.framing.upgrade == head.framing.upgrade


def read_response(pieces: list[bytes]) -> tuple[object, ...] | str | None:
    reader = ResponseHeadReader()
    try:
        for piece in pieces:
            head = reader.feed(piece)
            assert len(reader._received) <= MAX_HEAD_SIZE
            if head is not None:
                check_response(head)
                return head.status, head.reason, head.version, tuple(head.fields)
    except BadResponse as error:
        return str(error)
    return None


def check_response(head: ResponseHead) -> None:
    assert 100 <= head.status <= 999
    written = write_response(head, b"", base="example.org")
    assert written.count(b"\r\n\r\n") == 1
    if len(written) > MAX_HEAD_SIZE:
        return
    again = ResponseHeadReader().feed(written)
    assert again is not None
    assert (again.status, again.reason) == (head.status, head.reason)


def read_chunks(pieces: list[bytes]) -> tuple[bytes, tuple[object, ...], bool] | str:
    body, content = ChunkedBody(), b""
    try:
        for piece in pieces:
            if not body.is_complete:
                found, used = body.read(piece)
                content += b"".join(found)
                assert body.is_complete or used == len(piece)
                assert len(body._line) <= max(MAX_CHUNK_LINE, MAX_TRAILER_SIZE) + 1
                assert len(body.trailers) <= MAX_TRAILER_COUNT
    except BadBody as error:
        return str(error)
    return content, tuple(body.trailers), body.is_complete


def test_one_input(data: bytes) -> None:
    stream = expand(data[1:])
    result = read([stream])
    pieces = cut(stream, data[0] % 64 + 1) if data else []
    assert read(pieces) == result, "it depends on how the bytes are cut"
    assert read_response(pieces) == read_response([stream]), "a response depends on how the bytes are cut"
    chunks, whole = read_chunks(pieces), read_chunks([stream])
    assert chunks == whole, "a body depends on how the bytes are cut"
    match result:
        case RequestHead():
            check_head(result, stream)
            check_rewritten(result)
        case status, text:
            check_refusal(status, text)


if __name__ == "__main__":
    fuzz(test_one_input)
