import contextlib
import gc
import weakref

import pytest

from otun.errors import BadRequest, LocalProtocolError
from otun.http.head import MAX_FIELD_COUNT, MAX_HEAD_SIZE, MAX_TARGET_SIZE, RequestHead, RequestHeadReader

PLAIN = b"GET /a?b=c HTTP/1.1\r\nHost: Blog.Example.com:8080\r\nAccept: */*\r\n\r\n"


def read(*pieces: bytes) -> RequestHead | None:
    reader = RequestHeadReader()
    for piece in pieces:
        head = reader.feed(piece)
        if head is not None:
            return head
    return None


def refusal(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        read(data)
    return raised.value


def request(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


def head_of_size(size: int) -> bytes:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_in_one_piece_is_read() -> None:
    assert read(PLAIN) == RequestHead("GET", "/a?b=c", "blog.example.com", "1.1")


def test_more_is_asked_for_until_the_blank_line() -> None:
    reader = RequestHeadReader()
    for index in range(len(PLAIN) - 1):
        assert reader.feed(PLAIN[index : index + 1]) is None
    assert reader.feed(PLAIN[-1:]) == read(PLAIN)


@pytest.mark.parametrize(
    "rest",
    [
        b"\x00\xff garbage",
        b"zz\r\nthis is no chunk",
        PLAIN,
        b"FOO / HTTP/9.9\r\n\r\n",
        b"x" * (2 * MAX_HEAD_SIZE),
    ],
)
@pytest.mark.parametrize(
    "field",
    [b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Connection: close", b"Upgrade: x\r\nConnection: upgrade"],
)
def test_what_follows_the_head_is_not_looked_at(field: bytes, rest: bytes) -> None:
    head = request(b"POST /up HTTP/1.1", b"Host: a", field)
    assert read(head + rest) == RequestHead("POST", "/up", "a", "1.1")


def test_http_1_0_needs_no_host() -> None:
    assert read(request(b"GET / HTTP/1.0")) == RequestHead("GET", "/", "", "1.0")
    assert read(request(b"GET / HTTP/1.0", b"Host: A")) == RequestHead("GET", "/", "a", "1.0")


def test_empty_lines_before_the_request_line_are_ignored() -> None:
    assert read(b"\r\n\r\n\n" + PLAIN) == read(PLAIN)
    assert read(b"\r", b"\n\r\n", PLAIN) == read(PLAIN)


@pytest.mark.parametrize("host", [b"Host:a", b"host: a", b"HOST: \t a \t ", b"hOsT:a:80", b"Host: a."])
def test_host_is_found_however_it_is_spelt(host: bytes) -> None:
    head = read(request(b"GET / HTTP/1.1", b"X-Host: no", b"Empty:", host, b"Hosts: no"))
    assert head is not None
    assert head.host == "a"


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"]
)
def test_methods_of_http_are_read(method: str) -> None:
    head = read(request(method.encode() + b" / HTTP/1.1", b"Host: a"))
    assert head is not None
    assert head.method == method


@pytest.mark.parametrize(
    ("line", "host", "found"),
    [
        (b"GET http://a/x HTTP/1.1", b"Host: a", "a"),
        (b"GET http://A.:80?x HTTP/1.1", b"Host: a", "a"),
        (b"GET HTTP://a HTTP/1.1", b"Host: a:80", "a"),
        (b"GET https://a:443/ HTTP/1.1", b"Host: a", "a"),
        (b"GET http://[::1]:8080/ HTTP/1.1", b"Host: [::1]:8080", "[::1]"),
        (b"GET http://a/?u=http://b/ HTTP/1.0", b"X: y", "a"),
        (b"GET //b/x HTTP/1.1", b"Host: a", "a"),
        (b"GET /http://b/ HTTP/1.1", b"Host: a", "a"),
        (b"OPTIONS * HTTP/1.1", b"Host: a", "a"),
    ],
)
def test_forms_of_the_target_that_agree_with_host_are_read(line: bytes, host: bytes, found: str) -> None:
    head = read(request(line, host))
    assert head is not None
    assert head.host == found
    assert head.target.encode() == line.split()[1]


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (b"GET http://b/x HTTP/1.1", b"Host: a"),
        (b"GET http://a:8080/ HTTP/1.1", b"Host: a"),
        (b"GET http://a:0/ HTTP/1.1", b"Host: a"),
        (b"GET http://a/ HTTP/1.1", b"Host: a:8080"),
        (b"GET https://a/ HTTP/1.1", b"Host: a:80"),
        (b"GET http://user@a/ HTTP/1.1", b"Host: a"),
        (b"GET http:///x HTTP/1.1", b"Host: a"),
        (b"GET http://b/ HTTP/1.0", b"Host: a"),
        (b"GET ftp://a/ HTTP/1.1", b"Host: a"),
        (b"GET * HTTP/1.1", b"Host: a"),
        (b"OPTIONS *a HTTP/1.1", b"Host: a"),
        (b"GET a HTTP/1.1", b"Host: a"),
    ],
)
def test_targets_that_disagree_with_host_or_have_no_known_form_get_400(line: bytes, host: bytes) -> None:
    assert refusal(request(line, host)).status == 400


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"Host: a", b"Host: b"],
        [b"Host: a", b"HOST: a"],
        [b"Host:"],
        [b"Host: a b"],
        [b"Host: a, b"],
        [b"Host: user@a"],
        [b"Host: a/b"],
        [b"Host: \xc3\xa9"],
        [b"Host : a"],
        [b" Host: a"],
        [b"Host: a", b" folded"],
        [b"Host: a\nX: b"],
        [b"Host: a\x00"],
        [b"Host: a", b"no colon"],
        [b"Host: a", b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Host: a", b"Content-Length: 1", b"Content-Length: 1"],
    ],
)
def test_malformed_fields_and_hosts_get_400(fields: list[bytes]) -> None:
    assert refusal(request(b"GET / HTTP/1.1", *fields)).status == 400


def test_http_1_0_with_an_invalid_host_or_two_gets_400() -> None:
    assert refusal(request(b"GET / HTTP/1.0", b"Host: a b")).status == 400
    assert refusal(request(b"GET / HTTP/1.0", b"Host: a", b"Host: a")).status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET / HTTP/11", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET /\x01 HTTP/1.1", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b" GET / HTTP/1.1", 400),
        (b"CONNECT a:443 HTTP/1.1", 405),
        (b"FOO / HTTP/1.1", 501),
        (b"GETS / HTTP/1.1", 501),
        (b"get / HTTP/1.1", 501),
        (b"SSH-2.0-OpenSSH", 501),
        (b"PLAY / HTTP/1.1", 501),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET /", 505),
        (b"GET /\nX: HTTP/1.1", 505),
        (b"GET / RTSP/1.0", 505),
        (b"SETUP / RTSP/1.0", 505),
        (b"PRI * HTTP/2.0", 505),
    ],
)
def test_request_lines_that_are_not_served_get_the_status_that_says_why(line: bytes, status: int) -> None:
    assert refusal(request(line, b"Host: a")).status == status


def test_bytes_that_cannot_begin_a_request_are_refused_at_once() -> None:
    assert refusal(b"\x16").status == 400
    assert refusal(b"X").status == 501


def test_a_head_of_32_kib_is_read_and_one_byte_more_gets_431() -> None:
    assert read(head_of_size(MAX_HEAD_SIZE) + b"body") is not None
    assert refusal(head_of_size(MAX_HEAD_SIZE + 1)).status == 431


def test_a_head_that_never_ends_is_refused_when_the_limit_is_passed() -> None:
    reader = RequestHeadReader()
    assert reader.feed(head_of_size(MAX_HEAD_SIZE + 100)[:MAX_HEAD_SIZE]) is None
    with pytest.raises(BadRequest) as raised:
        reader.feed(b"x")
    assert raised.value.status == 431
    assert refusal(b"\r\n" * MAX_HEAD_SIZE).status == 431


def test_a_target_of_8_kib_is_read_and_a_longer_one_gets_414() -> None:
    def line(size: int) -> bytes:
        return b"GET /" + b"x" * (size - 1) + b" HTTP/1.1"

    assert read(request(line(MAX_TARGET_SIZE), b"Host: a")) is not None
    assert refusal(request(line(MAX_TARGET_SIZE + 1), b"Host: a")).status == 414
    assert refusal(line(MAX_HEAD_SIZE + 1)).status == 414


def test_100_fields_are_read_and_one_more_gets_431() -> None:
    fields = [b"X: %d" % number for number in range(MAX_FIELD_COUNT - 1)]
    assert read(request(b"GET / HTTP/1.1", b"Host: a", *fields)) is not None
    assert refusal(request(b"GET / HTTP/1.1", b"Host: a", *fields, b"X: y")).status == 431


@pytest.mark.parametrize("data", [PLAIN, b"FOO / HTTP/1.1\r\n\r\n", request(b"GET / HTTP/1.1"), b"x" * 40_000])
def test_a_spent_reader_says_so(data: bytes) -> None:
    reader = RequestHeadReader()
    with contextlib.suppress(BadRequest):
        assert reader.feed(data) is not None
    with pytest.raises(LocalProtocolError):
        reader.feed(PLAIN)


@pytest.mark.parametrize("data", [PLAIN, PLAIN[:20], b"FOO / HTTP/1.1\r\n\r\n"])
def test_a_reader_needs_no_garbage_collector_to_be_freed(data: bytes) -> None:
    gc.disable()
    try:
        reader = RequestHeadReader()
        with contextlib.suppress(BadRequest):
            reader.feed(data)
        watched = weakref.ref(reader)
        del reader
        assert watched() is None
    finally:
        gc.enable()
