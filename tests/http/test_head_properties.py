import re
from collections.abc import Iterable

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from otun.errors import BadRequest
from otun.http.head import MAX_FIELD_COUNT, MAX_HEAD_SIZE, MAX_TARGET_SIZE, RequestHead, RequestHeadReader
from otun.http.hosts import parse_authority


def read(*pieces: bytes) -> RequestHead | None:
    reader = RequestHeadReader()
    for piece in pieces:
        head = reader.feed(piece)
        if head is not None:
            return head
    return None


def request(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


# Pieces that make heads which are right, nearly right, or wrong in every way above.
_FRAGMENTS = [
    *(b"GET / HTTP/1.1\r\n", b"POST http://a/ HTTP/1.1\r\n", b"OPTIONS * HTTP/1.0\r\n", b"GET / HTTP/2.0\r\n"),
    *(b"CONNECT a:1 HTTP/1.1\r\n", b"FOO / HTTP/1.1\r\n", b"SETUP / RTSP/1.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"Host: a\r\n", b"host:B.c.:80\r\n", b"Host: a b\r\n", b"Host:\r\n", b"X-A: b\r\n", b" fold\r\n", b"Empty:\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n"),
    *(b"\r\n", b"\n", b"\r", b" ", b":", b"GET", b"/", b"HTTP/1.1", b"\x00", b"\xff", b"http://", b"a"),
    *(b"/" + b"t" * MAX_TARGET_SIZE, b"F: f\r\n" * MAX_FIELD_COUNT, b"L: " + b"l" * MAX_HEAD_SIZE),
]
nearly_heads = st.lists(st.sampled_from(_FRAGMENTS) | st.binary(max_size=6), max_size=8).map(b"".join)


@st.composite
def good_heads(draw: st.DrawFn) -> bytes:
    token = st.text("abcXYZ-_0123456789", min_size=1, max_size=12).map(str.encode)
    value = st.text('abc xyz;=,"/\t', max_size=20).map(str.encode)
    target = b"/" + draw(st.text("abc/?&=%20.~", max_size=30)).encode()
    others = draw(st.lists(st.tuples(st.just(b"X-") | st.just(b"Host-"), token, value), max_size=20))
    fields = [prefix + name + b":" + text for prefix, name, text in others]
    fields.insert(draw(st.integers(0, len(fields))), b"Host: " + draw(token) + b".example:81")
    return request(draw(st.sampled_from([b"GET", b"POST", b"M-SEARCH"])) + b" " + target + b" HTTP/1.1", *fields)


def outcome(pieces: Iterable[bytes]) -> RequestHead | tuple[int, str] | None:
    try:
        return read(*pieces)
    except BadRequest as error:
        return error.status, str(error)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(good_heads() | nearly_heads, st.binary(max_size=20), st.lists(st.integers(0, 50_000), max_size=12))
@example(b"GET /" + b"x" * 9000 + b"\x01", b"", [8500])
@example(b"\r\nGE", b"\x00 / HTTP/1.1", [1, 3, 4])
def test_a_head_split_anywhere_gives_the_same_result(head: bytes, rest: bytes, cuts: list[int]) -> None:
    data = head + rest
    assert outcome(split(data, cuts)) == outcome([data])


@given(good_heads() | nearly_heads)
def test_a_head_byte_by_byte_gives_the_same_result(head: bytes) -> None:
    data = head[:2000]
    assert outcome(data[index : index + 1] for index in range(len(data))) == outcome([data])


@given(good_heads())
def test_good_heads_are_read(head: bytes) -> None:
    assert isinstance(outcome([head]), RequestHead)


@given(st.binary(max_size=200) | nearly_heads)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    match outcome([data]):
        case (status, text):
            assert status in {400, 405, 414, 431, 501, 505}
            assert "\n" not in text
        case head:
            assert head is None or isinstance(head, RequestHead)


@given(good_heads() | nearly_heads)
@example(request(b"GET / HTTP/1.1", b"Host: a", b"Transfer-Encoding: gzip"))
def test_a_second_parser_reads_the_same(data: bytes) -> None:
    head = outcome([data])
    if not isinstance(head, RequestHead) or re.search(rb"(?i)transfer-encoding", data):
        return  # how long the body is, h11 judges with the head
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX_HEAD_SIZE)
    peer.receive_data(data.lstrip(b"\r\n"))
    event = peer.next_event()
    assert isinstance(event, h11.Request)
    line = event.method.decode(), event.target.decode(), event.http_version.decode()
    assert line == (head.method, head.target, head.version)
    for name, value in event.headers:
        if name == b"host" and head.target.startswith("/"):
            assert parse_authority(value)[0] == head.host
