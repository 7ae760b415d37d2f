import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import BadRequest
from otun.http.hosts import parse_authority


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (b"example.com", "example.com", None),
        (b"Blog.EXAMPLE.com:8080", "blog.example.com", 8080),
        (b"example.com.", "example.com", None),
        (b"example.com.:443", "example.com", 443),
        (b"example.com:", "example.com", None),
        (b"127.0.0.1:65535", "127.0.0.1", 65535),
        (b"[::1]", "[::1]", None),
        (b"[2001:DB8::a.b]:80".replace(b"a.b", b"1.2.3.4"), "[2001:db8::1.2.3.4]", 80),
        (b"under_score-1.example", "under_score-1.example", None),
        (b"caf%C3%A9.example", "caf%c3%a9.example", None),
    ],
)
def test_hosts_are_normalised(value: bytes, host: str, port: int | None) -> None:
    assert parse_authority(value) == (host, port)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":80",
        b".",
        b"a..",
        b"a b",
        b" a",
        b"a,b c",
        b"a/b",
        b"a?b",
        b"a#b",
        b"user@a",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"a:65536",
        b"a:000080",
        b"a:\xb2",
        b"%zz",
        b"%4",
        b"caf\xc3\xa9",
        b"a\x00",
        b"a\n",
        b"a\r\nX: y",
        b"<a>",
        b"::1",
        b"[::1",
        b"[]",
        b"[::1]a",
        b"[1.2.3.4]",
        b"[:::]",
        b"[fe80::1%25eth0]",
        b"[v1.a]",
    ],
)
def test_invalid_hosts_are_refused_with_400(value: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_authority(value)
    assert refusal.value.status == 400


def test_a_long_invalid_host_is_refused_in_linear_time() -> None:
    # Would take until the end of time with a pattern that has more than one reading.
    with pytest.raises(BadRequest):
        parse_authority(b"a" * 30_000 + b"%")
    with pytest.raises(BadRequest):
        parse_authority(b"%41a" * 8_000 + b"@")


@given(st.binary(max_size=40) | st.text("aA.-_~%:[]0123456789abcdef@/ ", max_size=40).map(str.encode))
def test_any_bytes_are_a_host_or_a_bad_request(value: bytes) -> None:
    try:
        host, port = parse_authority(value)
    except BadRequest:
        return
    assert host
    assert host == host.lower()
    assert host.isascii()
    assert host.isprintable()
    assert not host.endswith(".")
    assert port is None or 0 <= port <= 65535
    assert parse_authority(host.encode()) == (host, None)
