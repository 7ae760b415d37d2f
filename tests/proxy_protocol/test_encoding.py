import pytest

from otun.addresses import TcpAddress
from otun.errors import LocalProtocolError
from otun.proxy_protocol import TUNNEL_ID, ProxyHeader, encode_v2

from .wire import V4, V6, field, read, v2

SOURCE, DESTINATION = TcpAddress("192.168.0.1", 56324), TcpAddress("192.168.0.11", 443)
SOURCE_6, DESTINATION_6 = TcpAddress("2001:db8::1", 56324), TcpAddress("2001:db8::2", 443)


def mapped(address: str) -> str:
    return "00000000000000000000ffff" + address


def test_ipv4_addresses_make_a_tcp4_header() -> None:
    assert encode_v2(ProxyHeader(SOURCE, DESTINATION)) == v2(0x21, 0x11, V4)


def test_ipv6_addresses_make_a_tcp6_header() -> None:
    assert encode_v2(ProxyHeader(SOURCE_6, DESTINATION_6)) == v2(0x21, 0x21, V6)


def test_when_one_address_is_ipv6_the_other_becomes_so() -> None:
    block = bytes.fromhex(mapped("c0a80001") + "20010db8000000000000000000000002 dc04 01bb")
    assert encode_v2(ProxyHeader(SOURCE, DESTINATION_6)) == v2(0x21, 0x21, block)
    block = bytes.fromhex("20010db8000000000000000000000001" + mapped("c0a8000b") + "dc04 01bb")
    assert encode_v2(ProxyHeader(SOURCE_6, DESTINATION)) == v2(0x21, 0x21, block)


def test_mapped_addresses_of_a_dual_stack_socket_are_ipv4() -> None:
    source, destination = TcpAddress("::ffff:192.168.0.1", 56324), TcpAddress("::ffff:192.168.0.11", 443)
    assert encode_v2(ProxyHeader(source, destination)) == v2(0x21, 0x11, V4)


def test_a_zone_is_left_out() -> None:
    source = TcpAddress("2001:db8::1%eth0", 56324)
    assert encode_v2(ProxyHeader(source, DESTINATION_6)) == v2(0x21, 0x21, V6)


@pytest.mark.parametrize("destination", [None, DESTINATION])
def test_without_a_source_it_is_a_local_header(destination: TcpAddress | None) -> None:
    assert encode_v2(ProxyHeader(None, destination)) == v2(0x20, 0x00, b"")
    header = ProxyHeader(None, destination, ((TUNNEL_ID, b"blog"),))
    assert encode_v2(header) == v2(0x20, 0x00, field(TUNNEL_ID, b"blog"))


def test_additional_fields_follow_the_addresses_in_their_order() -> None:
    header = ProxyHeader(SOURCE, DESTINATION, ((TUNNEL_ID, b"blog"), (0x04, b""), (0xFF, b"\0" * 300)))
    assert encode_v2(header) == v2(0x21, 0x11, V4 + b"\xe0\0\x04blog" + b"\x04\0\0" + b"\xff\x01\x2c" + bytes(300))


def test_a_checksum_is_left_out_as_it_is_of_another_header() -> None:
    header = ProxyHeader(SOURCE, DESTINATION, ((0x03, b"1234"), (TUNNEL_ID, b"x")))
    assert encode_v2(header) == v2(0x21, 0x11, V4 + field(TUNNEL_ID, b"x"))


@pytest.mark.parametrize(
    "host", ["", "localhost", "1.2.3", "1.2.3.04", "1.2.3.4:80", "[::1]", "1::2::3", "\u0661.1.1.1"]
)
def test_a_host_that_is_no_address_cannot_be_written(host: str) -> None:
    with pytest.raises(LocalProtocolError, match="IP addresses only"):
        encode_v2(ProxyHeader(TcpAddress(host, 1), DESTINATION))
    with pytest.raises(LocalProtocolError, match="IP addresses only"):
        encode_v2(ProxyHeader(SOURCE, TcpAddress(host, 1)))


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_0_to_65535(port: int) -> None:
    with pytest.raises(LocalProtocolError, match="must be 0 to 65535"):
        encode_v2(ProxyHeader(TcpAddress("::1", port), DESTINATION))
    with pytest.raises(LocalProtocolError, match="must be 0 to 65535"):
        encode_v2(ProxyHeader(SOURCE, TcpAddress("1.2.3.4", port)))


def test_a_source_needs_a_destination() -> None:
    with pytest.raises(LocalProtocolError, match=r"from 192\.168\.0\.1:56324 needs a destination"):
        encode_v2(ProxyHeader(SOURCE, None))


@pytest.mark.parametrize("tlv", [(256, b""), (-1, b""), (1, bytes(65536))])
def test_a_field_that_has_no_room_in_its_form_is_refused(tlv: tuple[int, bytes]) -> None:
    with pytest.raises(LocalProtocolError, match="a kind over 255 or a value over 65535 bytes"):
        encode_v2(ProxyHeader(None, None, (tlv,)))


@pytest.mark.parametrize(
    ("header", "room"),
    [
        (ProxyHeader(None, None), 4096),
        (ProxyHeader(SOURCE, DESTINATION), 4084),
        (ProxyHeader(SOURCE, SOURCE_6), 4060),
    ],
)
def test_what_the_reader_would_refuse_for_its_length_is_not_written(header: ProxyHeader, room: int) -> None:
    largest = ProxyHeader(header.source, header.destination, ((1, bytes(room - 3)),))
    assert read(encode_v2(largest)) == largest
    with pytest.raises(LocalProtocolError, match=r"16 \+ 4097 bytes is over the limit"):
        encode_v2(ProxyHeader(header.source, header.destination, ((1, bytes(room - 2)),)))
