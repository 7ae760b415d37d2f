"""Chunked bodies against two other readers: where they differ, ours refuses."""

import h11
import httptools
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import BadBody
from otun.http.body import ChunkedBody, as_chunks, last_chunk
from otun.http.fields import Field

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

_FRAGMENTS = [
    *(b"0\r\n", b"0\r\n\r\n", b"1\r\na\r\n", b"5\r\nhello\r\n", b"A\r\n0123456789\r\n", b"0005\r\nhello\r\n"),
    *(b"5;a=b\r\nhello\r\n", b'5 ; a = "\\""\r\nhello\r\n', b"5;a;b\r\nhello\r\n", b'5;a="x\r\nhello\r\n'),
    *(
        b"5 \r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello0\r\n",
    ),
    *(
        b"A: b\r\n",
        b"A:\r\n",
        b"Content-Length: 3\r\n",
        b" fold\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff",
        b";",
        b"5",
    ),
]
bodies = st.lists(st.sampled_from(_FRAGMENTS) | st.binary(max_size=4), max_size=8).map(b"".join)


def read(data: bytes, cuts: list[int]) -> tuple[bytes, list[Field], bool] | str:
    """Content, trailers and whether it is complete; or "bad"."""
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    body, content = ChunkedBody(), b""
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        piece, position = data[start:end], 0
        if body.is_complete:
            break
        try:
            found, position = body.read(piece)
        except BadBody:
            return "bad"
        content += b"".join(found)
        assert body.is_complete or position == len(piece)
    return content, body.trailers, body.is_complete


@given(bodies, st.lists(st.integers(0, 10_000), max_size=10))
def test_a_body_split_anywhere_gives_the_same_result(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts) == read(data, [])


@given(bodies)
def test_what_is_accepted_is_read_alike_by_h11_and_httptools(data: bytes) -> None:
    found = read(data, [])
    if found == "bad" or not found[2]:
        return
    content, _, _ = found
    assert read_by_h11(data) == content
    assert read_by_httptools(data) == content


def read_by_h11(data: bytes) -> bytes:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(HEAD + data)
    content = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA
        if isinstance(event, h11.Data):
            content += event.data
    return content


class Collector:
    def __init__(self) -> None:
        self.content = b""
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.content += b"" if self.is_complete else data

    def on_message_complete(self) -> None:
        self.is_complete = True


def read_by_httptools(data: bytes) -> bytes:
    collector = Collector()
    try:
        httptools.HttpRequestParser(collector).feed_data(HEAD + data)
    except httptools.HttpParserError:
        assert collector.is_complete, "llhttp refuses what was accepted"
    assert collector.is_complete
    return collector.content


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_what_is_written_is_read_again(pieces: list[bytes]) -> None:
    written = b"".join([*as_chunks(list(pieces)), last_chunk([])])
    assert read(written, []) == (b"".join(pieces), [], True)
