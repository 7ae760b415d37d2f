import pytest

from otun.addresses import TcpAddress
from otun.errors import BadProxyHeader
from otun.proxy_protocol import MAX_V1_SIZE, ProxyHeader, ProxyHeaderReader

from .wire import read

EXAMPLE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"
HEADER = ProxyHeader(TcpAddress("192.168.0.1", 56324), TcpAddress("192.168.0.11", 443))


def test_the_specifications_example_is_read() -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(EXAMPLE + REQUEST) == HEADER
    assert reader.rest == REQUEST


def test_every_byte_but_the_last_asks_for_more() -> None:
    reader = ProxyHeaderReader()
    for index in range(len(EXAMPLE) - 1):
        assert reader.feed(EXAMPLE[index : index + 1]) is None
        assert reader.rest == b""
    assert reader.feed(memoryview(b"\nX")) == HEADER
    assert reader.rest == b"X"


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        (b"TCP4 255.255.255.255 255.255.255.255 65535 65535", "255.255.255.255", "255.255.255.255"),
        (b"TCP4 0.0.0.0 127.0.0.1 65535 65535", "0.0.0.0", "127.0.0.1"),
        (b"TCP6 2001:DB8::1 ::1 65535 65535", "2001:db8::1", "::1"),
        (b"TCP6 2001:0db8:0:0:0:0:0:0001 :: 65535 65535", "2001:db8::1", "::"),
        (b"TCP6 %b %b 65535 65535" % ((b"ffff:" * 7 + b"ffff",) * 2), "ffff:" * 7 + "ffff", "ffff:" * 7 + "ffff"),
        (b"TCP6 ::ffff:1.2.3.4 ::FFFF:102:304 65535 65535", "1.2.3.4", "1.2.3.4"),
        (b"TCP6 ::ffff:1.2.3.4 ::1.2.3.4 65535 65535", "1.2.3.4", "::102:304"),
    ],
)
def test_addresses_are_read_and_spelt_in_one_way(line: bytes, source: str, destination: str) -> None:
    header = read(b"PROXY " + line + b"\r\n")
    assert header == ProxyHeader(TcpAddress(source, 65535), TcpAddress(destination, 65535))


@pytest.mark.parametrize(("text", "port"), [(b"0", 0), (b"1", 1), (b"10", 10), (b"65535", 65535)])
def test_ports_are_read(text: bytes, port: int) -> None:
    header = read(b"PROXY TCP4 1.2.3.4 5.6.7.8 " + text + b" 9\r\n")
    assert header is not None
    assert header.source == TcpAddress("1.2.3.4", port)


@pytest.mark.parametrize("more", [b"", b" ", b" ffff::1 ffff::2 65535 65535", b" \x00\xff  anything", b" " + b"x" * 91])
def test_whatever_follows_unknown_is_ignored(more: bytes) -> None:
    assert read(b"PROXY UNKNOWN" + more + b"\r\n") == ProxyHeader(None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"TCP4 1.2.3.4 5.6.7.8 1 65536",
        b"TCP4 1.2.3.4 5.6.7.8 99999 1",
        b"TCP4 1.2.3.4 5.6.7.8 100000 1",
        b"TCP4 1.2.3.4 5.6.7.8 01 1",
        b"TCP4 1.2.3.4 5.6.7.8 00 1",
        b"TCP4 1.2.3.4 5.6.7.8 1.0 1",
        b"TCP4 1.2.3.4 5.6.7.8 1",
        b"TCP4 1.2.3.4 5.6.7.8 1 ",
        b"TCP4 1.2.3.4 5.6.7.8 1 1 ",
        b"TCP4 1.2.3.4 5.6.7.8 1 1 1",
        b"TCP4  1.2.3.4 5.6.7.8 1 1",
        b"TCP4 1.2.3.4  5.6.7.8 1",
        b"TCP4 1.2.3.4 5.6.7.8  1",
        b"TCP4 1.2.3 5.6.7.8 1 1",
        b"TCP4 1.2.3.4.5 5.6.7.8 1 1",
        b"TCP4 1.2.3.256 5.6.7.8 1 1",
        b"TCP4 1.2.3.04 5.6.7.8 1 1",
        b"TCP4 1.2.3.4 5.6.7. 1 1",
        b"TCP4 ",
        b"TCP6 1.2.3.4 5.6.7.8 1 1",
        b"TCP6 ::1 1.2.3.4 1 1",
        b"TCP6 ::1 ::1 1 f",
        b"TCP6 ::1 ::1 1 :1",
        b"TCP6 ::1 1::2::3 1 1",
        b"TCP6 ::1 1:2:3:4:5:6:7 1 1",
        b"TCP6 ::1 1:2:3:4:5:6:7:8:9 1 1",
        b"TCP6 ::1 00001:: 1 1",
        b"TCP6 ::1 ::ffff:1.2.3.04 1 1",
    ],
)
def test_a_wrong_line_is_refused_at_its_end(line: bytes) -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(b"PROXY " + line + b"\r") is None
    with pytest.raises(BadProxyHeader):
        reader.feed(b"\n")


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        (b"", b"G"),
        (b"", b"p"),
        (b"P", b"O"),
        (b"PROXY", b"\t"),
        (b"PROXY ", b" "),
        (b"PROXY ", b"t"),
        (b"PROXY TCP", b"5"),
        (b"PROXY TCP4", b"\t"),
        (b"PROXY TCP4", b"\r"),
        (b"PROXY U", b"D"),
        (b"PROXY UNKNOWN", b"S"),
        (b"PROXY UNKNOWN", b"\n"),
        (b"PROXY UNKNOWN\r", b"\r"),
        (b"PROXY UNKNOWN  ", b"\n"),
        (b"PROXY UNKNOWN x\r", b" "),
        (b"PROXY TCP4 ", b"a"),
        (b"PROXY TCP4 1", b":"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"+"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 ", b"-"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", b"\n"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", b"\r"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 ", "\N{ARABIC-INDIC DIGIT TWO}".encode()[:1]),
        (b"PROXY TCP6 fe80::1", b"%"),
        (b"PROXY TCP6 fe80::", b"g"),
        (b"PROXY TCP6 ", b"["),
    ],
)
def test_bytes_that_no_header_has_are_refused_at_once(accepted: bytes, refused: bytes) -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(accepted) is None
    with pytest.raises(BadProxyHeader):
        reader.feed(refused)


def test_a_line_may_have_107_bytes() -> None:
    line = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"
    assert len(line) == MAX_V1_SIZE == 107
    assert read(line) == ProxyHeader(None, None)


@pytest.mark.parametrize("start", [b"PROXY UNKNOWN ", b"PROXY TCP4 ", b"PROXY TCP6 "])
def test_a_longer_line_is_refused_when_its_cr_does_not_come(start: bytes) -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(start.ljust(105, b"1")) is None
    with pytest.raises(BadProxyHeader, match="over 107 bytes"):
        reader.feed(b"1")
    for size in (106, 107, 108, 5000):
        with pytest.raises(BadProxyHeader, match="over 107 bytes"):
            read(start.ljust(size, b"1") + b"\r\n")


def test_a_reader_may_want_version_2_only() -> None:
    with pytest.raises(BadProxyHeader, match="does not start with a PROXY header"):
        ProxyHeaderReader(is_v1_allowed=False).feed(b"P")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "the connection does not start with a PROXY header"),
        (b"PROXY UDP4 ", "the PROXY line's protocol is none of TCP4, TCP6 and UNKNOWN"),
        (b"PROXY TCP4 1.2.3.4 ::", "the PROXY line has, after 19 bytes, neither what belongs there nor its CR LF"),
        (b"PROXY TCP4 1.2.3.4 5 1 1\r\n", "the PROXY line's '5' is not an IPv4 address"),
        (b"PROXY TCP6 1.2.3.4 5 1 1\r\n", "the PROXY line's '1.2.3.4' is not an IPv6 address"),
        (b"PROXY TCP6 :: :: 1 00\r\n", "the PROXY line's '00' is not a port: 0 to 65535, with no zeros in front"),
    ],
)
def test_the_error_says_what_is_wrong(data: bytes, text: str) -> None:
    with pytest.raises(BadProxyHeader) as caught:
        read(data)
    assert str(caught.value) == text
