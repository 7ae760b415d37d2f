"""Where bodies end, as dialogues: bytes in, content and the number of bytes used out."""

from collections.abc import Iterable

import pytest

from otun.errors import BadBody
from otun.http.body import (
    MAX_CHUNK_LINE,
    MAX_TRAILER_COUNT,
    MAX_TRAILER_SIZE,
    BodyReader,
    ChunkedBody,
    EmptyBody,
    LengthBody,
    UntilClose,
    as_chunks,
    last_chunk,
)
from otun.http.fields import Field

CHUNKED = b'5\r\nhello\r\n6;ext="a;b"\r\n world\r\n0\r\nX-Sum: 1 \r\n\r\n'


def read(body: BodyReader, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The content in *pieces*, and what does not belong to the body."""
    content, rest = b"", b""
    for piece in pieces:
        if body.is_complete:
            rest += piece
            continue
        found, used = body.read(piece)
        content += b"".join(found)
        rest += piece[used:]
        assert body.is_complete or used == len(piece)
    return content, rest


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def test_an_empty_body_takes_nothing() -> None:
    body = EmptyBody()
    assert body.is_complete
    assert body.read(b"next") == ([], 0)
    body.end()


@pytest.mark.parametrize("size", [1, 2, 5, 11])
@pytest.mark.parametrize("is_split", [True, False])
def test_a_length_is_counted_to_the_byte(size: int, is_split: bool) -> None:
    data = b"hello world and more"
    body = LengthBody(size)
    assert read(body, bytewise(data) if is_split else [data]) == (data[:size], data[size:])
    assert body.is_complete
    body.end()


def test_a_length_of_0_is_complete_at_once() -> None:
    assert LengthBody(0).is_complete


def test_a_length_that_is_not_reached_says_how_much_is_missing() -> None:
    body = LengthBody(10)
    body.read(b"1234")
    with pytest.raises(BadBody, match="6 bytes early"):
        body.end()


def test_a_body_until_close_takes_everything() -> None:
    body = UntilClose()
    assert read(body, [b"a", b"b"]) == (b"ab", b"")
    assert not body.is_complete
    body.end()
    assert body.is_complete


@pytest.mark.parametrize("is_split", [True, False])
def test_chunks_are_taken_apart(is_split: bool) -> None:
    body = ChunkedBody()
    data = CHUNKED + b"GET /next"
    assert read(body, bytewise(data) if is_split else [data]) == (b"hello world", b"GET /next")
    assert body.trailers == [Field.of(b"X-Sum", b"1")]
    body.end()


@pytest.mark.parametrize("end", range(len(CHUNKED)))
def test_chunks_that_end_early_are_cut_short_wherever_it_is(end: int) -> None:
    body = ChunkedBody()
    read(body, [CHUNKED[:end]])
    assert not body.is_complete
    with pytest.raises(BadBody):
        body.end()


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1_0\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n",
        b"1\r\na\rb",
        b"1,1\r\na\r\n",
        b"1;\r\na\r\n",
        b"1;a=\r\n",
        b'1;a="x\r\n',
        b"1;a\nb\r\n",
        b"1;a\x00\r\n",
        b"1111111111111111\r\n",
        b"1;" + b"e" * MAX_CHUNK_LINE + b"\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n: no name\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n fold\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\rc\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n",
        b"0\r\n\n",
        b"0\r\nA: " + b"b" * MAX_TRAILER_SIZE + b"\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * (MAX_TRAILER_COUNT + 1) + b"\r\n",
        b"0\r\n" + b"A: %s\r\n" % (b"b" * 1000) * 9 + b"\r\n",
    ],
)
@pytest.mark.parametrize("is_split", [True, False])
def test_malformed_chunks_are_refused(data: bytes, is_split: bool) -> None:
    with pytest.raises(BadBody):
        read(ChunkedBody(), bytewise(data) if is_split else [data])


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"HOST", b"Set-Cookie", b"X_Forwarded_For"])
def test_trailers_that_come_too_late_are_dropped(name: bytes) -> None:
    body = ChunkedBody()
    body.read(b"0\r\n%s: 1\r\nKept: 2\r\n\r\n" % name)
    assert body.is_complete
    assert body.trailers == [Field.of(b"Kept", b"2")]


def test_what_is_kept_of_an_unfinished_line_is_bounded() -> None:
    body = ChunkedBody()
    read(body, [b"5\r\nhello\r\n" + b"1" * 10])
    with pytest.raises(BadBody):
        read(body, [b";a=b"] * MAX_CHUNK_LINE)
    assert len(body._line) <= MAX_CHUNK_LINE + 4


def test_chunks_are_written_as_they_are_read() -> None:
    written = b"".join([*as_chunks([b"hello", b"", memoryview(b" world")]), last_chunk([Field.of(b"A", b"b")])])
    assert written == b"5\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n"
    assert read(ChunkedBody(), [written]) == (b"hello world", b"")
