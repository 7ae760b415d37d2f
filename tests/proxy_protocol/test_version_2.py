import pytest

from otun.addresses import TcpAddress
from otun.errors import BadProxyHeader, LocalProtocolError
from otun.proxy_protocol import MAX_V2_LENGTH, TUNNEL_ID, ProxyHeader, ProxyHeaderReader

from .wire import SIGNATURE, V4, V6, crc32c, field, read, v2

CRC32C = 0x03


def test_tcp_over_ipv4_is_read() -> None:
    reader = ProxyHeaderReader(is_v1_allowed=False)
    assert reader.feed(v2(0x21, 0x11, V4) + b"GET /") == ProxyHeader(
        TcpAddress("192.168.0.1", 56324), TcpAddress("192.168.0.11", 443)
    )
    assert reader.rest == b"GET /"


def test_tcp_over_ipv6_is_read() -> None:
    assert read(v2(0x21, 0x21, V6)) == ProxyHeader(TcpAddress("2001:db8::1", 56324), TcpAddress("2001:db8::2", 443))


def test_a_mapped_ipv4_address_is_read_as_ipv4() -> None:
    block = bytes.fromhex("00000000000000000000FFFF01020304") + V6[16:]
    assert read(v2(0x21, 0x21, block)) == ProxyHeader(TcpAddress("1.2.3.4", 56324), TcpAddress("2001:db8::2", 443))


def test_every_byte_but_the_last_asks_for_more() -> None:
    reader = ProxyHeaderReader()
    data = v2(0x21, 0x11, V4 + field(TUNNEL_ID, b"blog"))
    for index in range(len(data) - 1):
        assert reader.feed(data[index : index + 1]) is None
        assert reader.feed(b"") is None
    header = reader.feed(memoryview(data)[-1:])
    assert header is not None
    assert header.tlv(TUNNEL_ID) == b"blog"


def test_additional_fields_come_in_their_order() -> None:
    header = read(v2(0x21, 0x11, V4 + field(2, b"a.example") + field(4, b"") + field(2, b"b") + field(0xFF, b"\0")))
    assert header is not None
    assert header.tlvs == ((2, b"a.example"), (4, b""), (2, b"b"), (0xFF, b"\0"))
    assert header.tlv(2) == b"a.example"
    assert header.tlv(4) == b""
    assert header.tlv(TUNNEL_ID) is None


@pytest.mark.parametrize("family", [0x00, 0x11, 0x12, 0x21, 0x31, 0x45, 0xFF])
@pytest.mark.parametrize("block", [b"", V4, V6, b"\xff\xff\xff", b"\x01"])
def test_local_headers_are_accepted_and_what_they_carry_is_skipped(family: int, block: bytes) -> None:
    reader = ProxyHeaderReader()
    header = reader.feed(v2(0x20, family, block) + b"rest")
    assert header is not None
    assert (header.source, header.destination) == (None, None)
    assert reader.rest == b"rest"


@pytest.mark.parametrize("block", [b"", V4, V6, b"\xff\xff\xff", b"\x01"])
def test_so_are_headers_of_an_unspecified_family(block: bytes) -> None:
    header = read(v2(0x21, 0x00, block))
    assert header is not None
    assert (header.source, header.destination) == (None, None)


@pytest.mark.parametrize("command", [0x20, 0x21])
def test_additional_fields_come_without_addresses_too(command: int) -> None:
    assert read(v2(command, 0x00, field(TUNNEL_ID, b"x"))) == ProxyHeader(None, None, ((TUNNEL_ID, b"x"),))


def test_a_local_headers_fields_follow_its_addresses() -> None:
    assert read(v2(0x20, 0x11, V4 + field(TUNNEL_ID, b"x"))) == ProxyHeader(None, None, ((TUNNEL_ID, b"x"),))


def test_unix_addresses_are_none() -> None:
    block = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
    assert read(v2(0x21, 0x31, block + field(5, b"id"))) == ProxyHeader(None, None, ((5, b"id"),))


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        *[(SIGNATURE[:index], bytes([SIGNATURE[index] ^ 0x20])) for index in range(12)],
        *[(SIGNATURE, bytes([byte])) for byte in (0x00, 0x01, 0x11, 0x31, 0xF1, 0x22, 0x2F)],
        *[(SIGNATURE + b"\x21", bytes([byte])) for byte in (0x01, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41)],
        *[(SIGNATURE + bytes([command, 0x00, 0x10]), b"\x01") for command in (0x20, 0x21)],
        (SIGNATURE + b"\x21\x11\xff", b"\xff"),
        (SIGNATURE + b"\x21\x11\x00", b"\x0b"),
        (SIGNATURE + b"\x21\x21\x00", b"\x23"),
        (SIGNATURE + b"\x21\x31\x00", b"\xd7"),
    ],
)
def test_bytes_that_no_header_has_are_refused_at_once(accepted: bytes, refused: bytes) -> None:
    reader = ProxyHeaderReader()
    assert reader.feed(accepted) is None
    with pytest.raises(BadProxyHeader):
        reader.feed(refused)


@pytest.mark.parametrize(("family", "block"), [(0x11, V4), (0x21, V6), (0x31, bytes(216))])
@pytest.mark.parametrize("fields", [b"\0", b"\x02\0", b"\x02\0\x01", b"\x02\xff\xff1", field(2, b"1234") + b"5"])
def test_fields_that_do_not_end_with_the_header_are_refused(family: int, block: bytes, fields: bytes) -> None:
    data = v2(0x21, family, block + fields)
    reader = ProxyHeaderReader()
    assert reader.feed(data[:-1]) is None
    with pytest.raises(BadProxyHeader, match="inside one of its additional fields"):
        reader.feed(data[-1:])


def test_a_header_may_have_16_and_4096_bytes() -> None:
    largest = v2(0x21, 0x11, V4 + field(2, bytes(4096 - 12 - 3)))
    assert len(largest) == 16 + MAX_V2_LENGTH == 4112
    header = read(largest)
    assert header is not None
    assert len(header.tlvs[0][1]) == 4081


def with_checksum(data: bytes, *, change: int = 0) -> bytes:
    """*data* with the right checksum, changed by *change*, in the place of CRC!."""
    checksum = crc32c(data.replace(b"CRC!", bytes(4))) ^ change
    return data.replace(b"CRC!", checksum.to_bytes(4))


def test_the_tests_own_checksum_is_crc32c() -> None:
    # The check value of CRC-32C in every catalogue, and an example of RFC 3720, section B.4.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == int.from_bytes(bytes.fromhex("aa36918a"), "little")


@pytest.mark.parametrize(("command", "family", "block"), [(0x21, 0x11, V4), (0x21, 0x21, V6), (0x20, 0x00, b"")])
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (field(4, bytes(5)), field(2, b"a.example"))])
def test_a_checksum_is_verified(command: int, family: int, block: bytes, before: bytes, after: bytes) -> None:
    data = v2(command, family, block + before + field(CRC32C, b"CRC!") + after)
    header = read(with_checksum(data))
    assert header is not None
    assert header.tlv(CRC32C) == with_checksum(data)[len(data) - len(after) - 4 : len(data) - len(after)]
    for bit in (1, 1 << 31):
        with pytest.raises(BadProxyHeader, match="checksum is wrong"):
            read(with_checksum(data, change=bit))


@pytest.mark.parametrize("value", [b"", b"\0\0\0", b"\0\0\0\0\0"])
def test_a_checksum_has_4_bytes(value: bytes) -> None:
    with pytest.raises(BadProxyHeader, match="checksum is wrong"):
        read(v2(0x21, 0x11, V4 + field(CRC32C, value)))


def test_a_longer_checksum_is_refused_although_its_number_is_right() -> None:
    with pytest.raises(BadProxyHeader, match="checksum is wrong"):
        read(with_checksum(v2(0x21, 0x11, V4 + field(CRC32C, b"\0CRC!"))))


def test_only_the_first_checksum_is_computed_so_that_a_header_full_of_them_costs_no_more() -> None:
    others = field(CRC32C, b"1234") * 500
    header = read(with_checksum(v2(0x21, 0x11, V4 + field(CRC32C, b"CRC!") + others)))
    assert header is not None
    assert len(header.tlvs) == 501


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (SIGNATURE + b"\x11", "the PROXY header's version is 1, not 2"),
        (SIGNATURE + b"\x22", "the PROXY header's command 2 is neither LOCAL nor PROXY"),
        (SIGNATURE + b"\x21\x12", "the PROXY header is for 0x12, which is no family of streams"),
        (SIGNATURE + b"\x21\x11\xff\xff", "the PROXY header announces 65535 bytes; the limit is 4096"),
        (SIGNATURE + b"\x21\x11\x00\x0b", "the PROXY header's 11 bytes are too few for family and transport 0x11"),
    ],
)
def test_the_error_says_what_is_wrong(data: bytes, text: str) -> None:
    with pytest.raises(BadProxyHeader) as caught:
        read(data)
    assert str(caught.value) == text


def test_a_reader_that_has_returned_is_spent() -> None:
    reader = ProxyHeaderReader()
    assert repr(reader) == "<ProxyHeaderReader reading, 0 bytes>"
    assert reader.feed(b"PROXY UNKNOWN\r\nrest") is not None
    assert repr(reader) == "<ProxyHeaderReader finished, 0 bytes>"
    with pytest.raises(LocalProtocolError):
        reader.feed(b"")
    assert reader.rest == b"rest"


def test_a_reader_that_has_raised_is_spent() -> None:
    reader = ProxyHeaderReader()
    with pytest.raises(BadProxyHeader):
        reader.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(LocalProtocolError):
        reader.feed(b"PROXY UNKNOWN\r\n")
    assert reader.rest == b""
