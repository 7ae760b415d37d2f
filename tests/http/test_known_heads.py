"""Heads, or their fields, that were seen before need no parser: they must be judged like new ones."""

from itertools import product

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import BadRequest, BadResponse
from otun.http.fields import Field
from otun.http.head import MAX_TARGET_SIZE, RequestHead, RequestHeadReader, ResponseHead, ResponseHeadReader
from otun.http.head_reader import MAX_KNOWN, MAX_KNOWN_SIZE, KnownHeads

LINES = [
    *(b"Host: a", b"host:b:80", b"Content-Length: 5", b"Content-Length: 6", b"Transfer-Encoding: chunked"),
    *(b"Connection: close", b"Connection: Upgrade", b"Connection: X-A", b"Upgrade: websocket", b"Upgrade: h2c"),
    *(b"X-A: b", b"Empty:", b"X_Forwarded_For: c", b"Expect: 100-continue", b"X : y", b" fold"),
]
FIRST_LINES = [
    *(b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"POST /a?b HTTP/1.1", b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    *(b"GET /#f HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET / HTTP/2.0", b"GET / RTSP/1.0", b"GET  / HTTP/1.1", b"GET /"),
    *(b"FOO / HTTP/1.1", b"GET /" + b"t" * MAX_TARGET_SIZE + b" HTTP/1.1", b"HEAD /" + b"t" * 8000 + b" HTTP/1.1"),
]
STATUS_LINES = [b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 200"]


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (RequestHeadReader, ResponseHeadReader):
        monkeypatch.setattr(reader, "known", KnownHeads())


def head(first: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([first, *lines, b"", b""])


def outcome(data: bytes) -> tuple[object, ...] | tuple[int, str] | None:
    """Everything that a request's head says, or its refusal."""
    try:
        found = RequestHeadReader().feed(data)
    except BadRequest as error:
        return error.status, str(error)
    return None if found is None else said(found)


def response_outcome(data: bytes) -> tuple[object, ...] | str | None:
    try:
        found = ResponseHeadReader().feed(data)
    except BadResponse as error:
        return str(error)
    return None if found is None else said(found)


def said(found: RequestHead | ResponseHead) -> tuple[object, ...]:
    return attrs.astuple(found, recurse=False)


@pytest.mark.parametrize(("first", "second"), list(product(FIRST_LINES, FIRST_LINES)))
def test_fields_that_are_known_are_judged_like_new_ones(
    monkeypatch: pytest.MonkeyPatch, first: bytes, second: bytes
) -> None:
    for lines in ([b"Host: a"], [b"Host: a", b"Transfer-Encoding: chunked"], [b"X-A: b"], []):
        forget(monkeypatch)
        fresh = outcome(head(second, *lines))
        for _ in range(2):
            outcome(head(first, *lines))
        assert outcome(head(second, *lines)) == fresh, lines


@given(st.lists(st.sampled_from(LINES), max_size=6), st.sampled_from(FIRST_LINES), st.sampled_from(FIRST_LINES))
def test_any_fields_that_are_known_are_judged_like_new_ones(lines: list[bytes], first: bytes, second: bytes) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget(monkeypatch)
        fresh = outcome(head(second, b"Host: a", *lines))
        for _ in range(3):
            outcome(head(first, b"Host: a", *lines))
        assert outcome(head(second, b"Host: a", *lines)) == fresh


@given(st.lists(st.sampled_from(LINES), max_size=6), st.sampled_from(STATUS_LINES))
def test_a_response_that_comes_again_is_judged_alike(lines: list[bytes], first: bytes) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget(monkeypatch)
        data = head(first, *lines)
        fresh = response_outcome(data)
        for _ in range(3):
            assert response_outcome(data) == fresh


def test_known_heads_need_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    request, response = head(b"GET /first HTTP/1.1", b"Host: a", b"X-A: b"), head(b"HTTP/1.1 200 OK", b"X-A: b")
    for _ in range(2):
        outcome(request)
        response_outcome(response)
    for reader in (RequestHeadReader, ResponseHeadReader):
        monkeypatch.setattr(reader, "_parse", None)  # Whoever calls it fails.
    again = RequestHeadReader().feed(request.replace(b"GET /first", b"POST /second"))
    assert again is not None
    assert (again.method, again.target, again.path, again.host) == ("POST", "/second", b"/second", "a")
    assert again.fields == [Field.of(b"Host", b"a"), Field.of(b"X-A", b"b")]
    assert ResponseHeadReader().feed(response) is not None


def test_what_follows_a_known_head_is_kept_apart() -> None:
    data = head(b"GET / HTTP/1.1", b"Host: a")
    for _ in range(3):
        reader = RequestHeadReader()
        assert reader.feed(data + b"rest") is not None
        assert reader.rest == b"rest"


def test_refused_heads_are_not_learnt() -> None:
    for lines in ([b"Host: a", b"Content-Length: x"], [b"Host: a", b"Host: b"], [b"Host: a", b"Connection: host"]):
        for _ in range(3):
            assert outcome(head(b"GET / HTTP/1.1", *lines))[0] == 400  # type: ignore[index]  # a refusal
    assert not RequestHeadReader.known._heads


def test_what_is_known_is_bounded() -> None:
    known: KnownHeads[int] = KnownHeads()
    for number in range(3 * MAX_KNOWN):
        for _ in range(2):
            known.learn(b"%d" % number, number)
        assert len(known._heads) <= MAX_KNOWN
        assert len(known._candidates) <= MAX_KNOWN
    long = b"x" * (MAX_KNOWN_SIZE + 1)
    for _ in range(3):
        known.learn(long, 0)
    assert known.find(long) is None
