from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from hypothesis import example, given
from hypothesis import strategies as st

from otun.addresses import TcpAddress
from otun.errors import BadProxyHeader
from otun.proxy_protocol import MAX_V1_SIZE, MAX_V2_LENGTH, ProxyHeader, encode_v2

from .wire import SIGNATURE, V4, V6, field, read_pieces, v2


def is_mapped(address: IPv6Address) -> bool:
    return address.ipv4_mapped is not None


ports = st.integers(0, 65535)
ipv4_addresses = st.builds(TcpAddress, st.ip_addresses(v=4).map(str), ports)
ipv6_addresses = st.builds(TcpAddress, st.ip_addresses(v=6).filter(lambda a: not is_mapped(a)).map(str), ports)
addresses = ipv4_addresses | ipv6_addresses
kinds = st.integers(0, 255).filter(lambda kind: kind != 0x03)  # a checksum would have to be right
tlvs = st.lists(st.tuples(kinds, st.binary(max_size=300)), max_size=8).map(tuple)
headers = st.builds(ProxyHeader, addresses, addresses, tlvs) | st.builds(ProxyHeader, st.none(), st.none(), tlvs)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    pair = st.tuples(ipv4_addresses, ipv4_addresses) | st.tuples(ipv6_addresses, ipv6_addresses)
    source, destination = draw(pair)
    protocol = "TCP6" if ":" in source.host else "TCP4"
    return f"PROXY {protocol} {source.host} {destination.host} {source.port} {destination.port}\r\n".encode()


# Pieces that make headers which are right, nearly right, or wrong in every way.
_FRAGMENTS = [
    *(b"PROXY", b" ", b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"1.2.3.4 ", b"01.2.3.4 ", b"::1 ", b"1 "),
    *(b"65535", b"65536", b"0", b"00", b"\r\n", b"\r", b"\n", b"::ffff:1.2.3.4 ", b"f" * 91, b"1" * 94, b"%", b"\0"),
    *(SIGNATURE, SIGNATURE[:7], b"\x21", b"\x20", b"\x22", b"\x11", b"\x12", b"\x31", b"\x00\x0c", b"\x10\x01", V4, V6),
    *(v2(0x21, 0x11, V4), v2(0x21, 0x11, V4, length=19), v2(0x21, 0x21, V6, length=40), v2(0x21, 0x11, b"", length=9)),
    *(v2(0x20, 0x00, b"", length=7), v2(0x21, 0x31, bytes(216), length=220), field(4, b"1234"), field(3, bytes(4))),
    *(v2(0x21, 0x11, V4, length=4096), v2(0x21, 0x11, V4, length=4097), bytes(4084), field(2, bytes(4081))),
]
nearly_headers = st.lists(st.sampled_from(_FRAGMENTS) | st.binary(max_size=6), max_size=8).map(b"".join)
any_headers = headers.map(encode_v2) | lines() | nearly_headers


def outcome(pieces: Iterable[bytes], is_v1_allowed: bool = True) -> tuple[ProxyHeader, bytes] | str | None:
    try:
        return read_pieces(pieces, is_v1_allowed=is_v1_allowed)
    except BadProxyHeader as error:
        return str(error)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(headers, st.binary(max_size=20))
@example(ProxyHeader(TcpAddress("0.0.0.0", 0), TcpAddress("::", 0)), b"")
def test_what_is_encoded_is_read_back(header: ProxyHeader, rest: bytes) -> None:
    assert outcome([encode_v2(header) + rest]) == (header, rest)
    assert outcome([encode_v2(header) + rest], is_v1_allowed=False) == (header, rest)


@given(lines(), st.binary(max_size=20))
def test_lines_are_read_as_they_were_written(line: bytes, rest: bytes) -> None:
    found = outcome([line + rest])
    assert isinstance(found, tuple)
    header, behind = found
    assert behind == rest
    assert header.source is not None
    assert header.destination is not None
    words = [header.source.host, header.destination.host, str(header.source.port), str(header.destination.port)]
    assert line.decode().split()[2:] == words
    assert outcome([encode_v2(header)]) == (header, b"")


@given(any_headers, st.binary(max_size=20), st.lists(st.integers(0, 5000), max_size=12), st.booleans())
@example(b"PROXY TCP4 " + b"1" * 94, b"1", [105], True)
@example(b"PROXY TCP4 " + b"1" * 94, b"x", [105], True)
@example(b"PRO", b"XX", [4], True)
def test_a_header_split_anywhere_gives_the_same(head: bytes, rest: bytes, cuts: list[int], is_v1_allowed: bool) -> None:
    data = head + rest
    assert outcome(split(data, cuts), is_v1_allowed) == outcome([data], is_v1_allowed)


@given(any_headers)
def test_a_header_byte_by_byte_gives_the_same(head: bytes) -> None:
    data = head[:500]
    assert outcome(data[index : index + 1] for index in range(len(data))) == outcome([data])


@given(any_headers | st.binary(max_size=300) | st.binary(max_size=100).map(SIGNATURE.__add__), st.booleans())
def test_any_bytes_are_a_header_or_its_beginning_or_refused(data: bytes, is_v1_allowed: bool) -> None:
    match outcome([data], is_v1_allowed):
        case str(text):
            assert text
            assert text.isprintable()
        case None:  # this much is stored
            assert len(data) < 16 + MAX_V2_LENGTH
            assert len(data) < MAX_V1_SIZE or data.startswith(SIGNATURE)
        case header, rest:
            assert data.endswith(rest)
            assert (header.source is None) == (header.destination is None)
            for address in (header.source, header.destination):
                if address is not None:
                    ip = ip_address(address.host)
                    assert str(ip) == address.host
                    assert not (isinstance(ip, IPv6Address) and is_mapped(ip))
                    assert 0 <= address.port <= 65535
