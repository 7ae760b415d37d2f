"""The PROXY protocol, versions 1 and 2: how a proxy says, before the first byte, on whose behalf it connects.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt is the specification; the sections are named where a rule
comes from one.
"""

import functools
import re
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

from .addresses import TcpAddress
from .errors import BadProxyHeader, LocalProtocolError

MAX_V1_SIZE: Final = 107
"""Bytes in a line of version 1, CR LF included: the longest one there is (section 2.1)."""

MAX_V2_LENGTH: Final = 4096
"""Bytes that may follow the first 16 of a header of version 2.  Addresses take 216 at the most and headers are meant
to fit into a TCP segment (section 2.2); the rest is room for a client certificate's name and the like."""

TUNNEL_ID: Final = 0xE0
"""The kind of the field that names a tunnel: PP2_TYPE_MIN_CUSTOM, the first of those left to applications (section
2.2.8).  Other applications have it too (Google's Private Service Connect numbers its connections with it)."""

_CRC32C_FIELD: Final = 0x03
_CRC32C_POLYNOMIAL: Final = 0x82F63B78  # of RFC 4960, appendix B, with its bits reversed
_MAX_PORT: Final = 65535

_ADDRESS_CACHE_SIZE: Final = 1024
"""Addresses that `encode_v2` remembers in their binary form.  Our own is in every header, and a visitor's comes back
with each of his connections: remembered, it takes 0.05 us instead of 1.6 us (IPv4) or 2.3 us (IPv6)."""

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL_START: Final = _SIGNATURE + b"\x20\x00"
_TCP4_START: Final = _SIGNATURE + b"\x21\x11"
_TCP6_START: Final = _SIGNATURE + b"\x21\x21"
_LOCAL: Final = struct.Struct("!14sH")
_TCP4: Final = struct.Struct("!14sH4s4sHH")
_TCP6: Final = struct.Struct("!14sH16s16sHH")
_FIELD: Final = struct.Struct("!BH")
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"  # RFC 4291, section 2.5.5.2: what makes an IPv4 address an IPv6 one

_UNSPECIFIED, _TCP_OVER_IPV4, _TCP_OVER_IPV6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESSES_SIZES: Final = {_UNSPECIFIED: 0, _TCP_OVER_IPV4: 12, _TCP_OVER_IPV6: 36, _UNIX_STREAM: 216}

# How lines of version 1 begin, and what they may consist of up to their CR LF.  IPv6 addresses may end like IPv4 ones.
_LINES: Final = {
    b"PROXY TCP4 ": re.compile(rb"[0-9. ]*+"),
    b"PROXY TCP6 ": re.compile(rb"[0-9A-Fa-f:. ]*+"),
    b"PROXY UNKNOWN": re.compile(rb"(?: [^\r\n]*+)?+"),
}
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")


@attrs.frozen
class ProxyHeader:
    """Who connected, and where to.

    Both addresses are None where the header gives none that is TCP's: for connections of the proxy's own, such as
    health checks, and when it does not know.  Hosts are IP addresses; an IPv4 address never comes as IPv6.  *tlvs* are
    version 2's additional fields in the order of the header, each a kind and a value.
    """

    source: TcpAddress | None
    destination: TcpAddress | None
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def tlv(self, kind: int) -> bytes | None:
        """Return the value of the first additional field of *kind*, None when there is none."""
        return next((value for present, value in self.tlvs if present == kind), None)


def encode_v2(header: ProxyHeader) -> bytes:
    """Return *header* as bytes of version 2.

    Without a source it is a LOCAL header, which has no addresses.  If one address is IPv6, both are written so.  An
    IPv6 zone (``%eth0``) is left out, and so is a checksum (PP2_TYPE_CRC32C), which is of the header it came in.

    Raises `LocalProtocolError` when there is a source but no destination, when a host is no IP address, and for what
    no header has room for.
    """
    fields = _encode_fields(header.tlvs) if header.tlvs else b""
    source, destination = header.source, header.destination
    if source is None:
        return _LOCAL.pack(_LOCAL_START, _checked_length(len(fields))) + fields
    if destination is None:
        raise LocalProtocolError(f"a PROXY header from {source} needs a destination")
    source_ip, destination_ip = _pack_ip(source.host), _pack_ip(destination.host)
    layout, start = _TCP4, _TCP4_START
    if len(source_ip) != 4 or len(destination_ip) != 4:
        layout, start = _TCP6, _TCP6_START
        source_ip, destination_ip = _as_ipv6(source_ip), _as_ipv6(destination_ip)
    length = _checked_length(layout.size - _LOCAL.size + len(fields))
    try:
        return layout.pack(start, length, source_ip, destination_ip, source.port, destination.port) + fields
    except struct.error:
        raise LocalProtocolError(f"the ports of {source} and {destination} must be 0 to {_MAX_PORT}") from None


class ProxyHeaderReader:
    """Reads a PROXY header from a connection's bytes, in whatever pieces they come.

    What is judged at a certain byte is judged at that byte only, so the answer does not depend on the pieces.  Section
    2 wants addresses to be read when all of them are there, and the same goes for additional fields; anything else is
    refused at the first byte that no header could have.  Less than a header's greatest size is stored.

    A checksum (PP2_TYPE_CRC32C) is verified.  LOCAL headers are accepted whatever their family, as section 2.2 says.
    In these, and in those whose family is UNSPEC, nobody knows what is an address, so that bytes which make no
    additional fields are ignored; elsewhere they are refused.

    *rest* is what followed the header, once that has been returned.
    """

    def __init__(self, *, is_v1_allowed: bool = True) -> None:
        self.rest: bytes = b""
        self._received = b""
        self._is_finished = False
        self._is_v1_allowed = is_v1_allowed

    def __repr__(self) -> str:
        return f"<ProxyHeaderReader {'finished' if self._is_finished else 'reading'}, {len(self._received)} bytes>"

    def feed(self, data: bytes | bytearray | memoryview) -> ProxyHeader | None:
        """Take the connection's next bytes; return the header once it is complete, None while it is not.

        What follows the header in *data* is not looked at.  Raises `BadProxyHeader` when the bytes are no header that
        is accepted here.  A reader that has returned a header or raised is spent, and raises `LocalProtocolError`.
        """
        if self._is_finished:
            raise LocalProtocolError("the PROXY header has been read already")
        # Copies nothing when the header comes in one piece, as it nearly always does.
        received = self._received + data
        self._received = b""
        self._is_finished = True
        decoded = _decode(received, self._is_v1_allowed)
        if decoded is None:
            self._received = received
            self._is_finished = False
            return None
        header, end = decoded
        self.rest = received[end:]
        return header


def _encode_fields(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    try:
        return b"".join([_FIELD.pack(kind, len(value)) + value for kind, value in tlvs if kind != _CRC32C_FIELD])
    except struct.error:
        raise LocalProtocolError("a PROXY header's field has a kind over 255 or a value over 65535 bytes") from None


def _checked_length(length: int) -> int:
    if length > MAX_V2_LENGTH:
        raise LocalProtocolError(f"a PROXY header of 16 + {length} bytes is over the limit of 16 + {MAX_V2_LENGTH}")
    return length


@functools.lru_cache(_ADDRESS_CACHE_SIZE)
def _pack_ip(host: str) -> bytes:
    """Return the 4 or 16 bytes of *host*; 4 for an IPv4 address that is written as an IPv6 one."""
    try:
        address = IPv6Address(host) if ":" in host else IPv4Address(host)
    except ValueError:
        raise LocalProtocolError(f"a PROXY header has room for IP addresses only, and {host!r} is none") from None
    return address.packed.removeprefix(_MAPPED_PREFIX)


def _as_ipv6(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED_PREFIX + packed


def _unpack_ip(packed: bytes) -> str:
    shortest = packed.removeprefix(_MAPPED_PREFIX)
    return ".".join(map(str, shortest)) if len(shortest) == 4 else str(IPv6Address(shortest))


def _decode(received: bytes, is_v1_allowed: bool) -> tuple[ProxyHeader, int] | None:
    """Return the header and where it ends, None while its end is not there."""
    if is_v1_allowed and received.startswith(b"P"):
        return _decode_v1(received)
    if not _SIGNATURE.startswith(received[: len(_SIGNATURE)]):
        raise _no_header()
    end = _find_end_v2(received)
    return None if end is None else (_decode_v2(received[:end]), end)


def _no_header() -> BadProxyHeader:
    return BadProxyHeader("the connection does not start with a PROXY header")


def _decode_v1(received: bytes) -> tuple[ProxyHeader, int] | None:
    if not b"PROXY ".startswith(received[:6]):
        raise _no_header()
    start = next((start for start in _LINES if start.startswith(received[: len(start)])), None)
    if start is None:
        raise BadProxyHeader("the PROXY line's protocol is none of TCP4, TCP6 and UNKNOWN")
    if len(received) < len(start):
        return None
    # The CR must be there one byte before the limit, so a character which stands in its place is one too many.
    found = _LINES[start].match(received, len(start), MAX_V1_SIZE - 1)
    assert found is not None
    end = found.end()
    if end == MAX_V1_SIZE - 1:
        raise BadProxyHeader(f"the PROXY line is over {MAX_V1_SIZE} bytes")
    if not b"\r\n".startswith(received[end : end + 2]):
        raise BadProxyHeader(f"the PROXY line has, after {end} bytes, neither what belongs there nor its CR LF")
    if len(received) < end + 2:
        return None
    if start == b"PROXY UNKNOWN":
        return ProxyHeader(None, None), end + 2
    return _parse_line(received[len(start) : end].decode("ascii"), is_ipv6=start == b"PROXY TCP6 "), end + 2


def _parse_line(text: str, *, is_ipv6: bool) -> ProxyHeader:
    parts = text.split(" ")
    if len(parts) != 4:
        raise BadProxyHeader("the PROXY line must have two addresses and two ports, with one space between each")
    source, destination = (_parse_ip(part, is_ipv6) for part in parts[:2])
    source_port, destination_port = (_parse_port(part) for part in parts[2:])
    return ProxyHeader(TcpAddress(source, source_port), TcpAddress(destination, destination_port))


def _parse_ip(text: str, is_ipv6: bool) -> str:
    try:
        address = IPv6Address(text) if is_ipv6 else IPv4Address(text)
    except ValueError:
        raise BadProxyHeader(f"the PROXY line's {text!r} is not an IPv{6 if is_ipv6 else 4} address") from None
    return _unpack_ip(address.packed)


def _parse_port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > _MAX_PORT:
        raise BadProxyHeader(f"the PROXY line's {text!r} is not a port: 0 to {_MAX_PORT}, with no zeros in front")
    return int(text)


def _find_end_v2(received: bytes) -> int | None:
    """Judge the first 16 bytes, as far as they are there.  Return where the header ends, None while that is not."""
    if len(received) <= 12:
        return None
    version, command = divmod(received[12], 16)
    if version != 2:
        raise BadProxyHeader(f"the PROXY header's version is {version}, not 2")
    if command > 1:
        raise BadProxyHeader(f"the PROXY header's command {command} is neither LOCAL nor PROXY")
    if len(received) <= 13:
        return None
    family = received[13]
    if command == 1 and family not in _ADDRESSES_SIZES:
        raise BadProxyHeader(f"the PROXY header is for {family:#04x}, which is no family of streams")
    if len(received) < 16:
        return None
    length = int.from_bytes(received[14:16])
    if length > MAX_V2_LENGTH:
        raise BadProxyHeader(f"the PROXY header announces {length} bytes; the limit is {MAX_V2_LENGTH}")
    if command == 1 and length < _ADDRESSES_SIZES[family]:
        raise BadProxyHeader(f"the PROXY header's {length} bytes are too few for family and transport {family:#04x}")
    return 16 + length if len(received) >= 16 + length else None


def _decode_v2(header: bytes) -> ProxyHeader:
    is_local, family = header[12] == 0x20, header[13]
    start = 16 + _ADDRESSES_SIZES.get(family, 0)
    tlvs = _split_fields(header[start:])
    if tlvs is None and not (is_local or family == _UNSPECIFIED):
        raise BadProxyHeader("the PROXY header ends inside one of its additional fields")
    tlvs = tlvs or ()
    _check_crc32c(header, start, tlvs)
    if is_local or family not in (_TCP_OVER_IPV4, _TCP_OVER_IPV6):
        return ProxyHeader(None, None, tlvs)
    layout = _TCP4 if family == _TCP_OVER_IPV4 else _TCP6
    _, _, source, destination, source_port, destination_port = layout.unpack_from(header)
    return ProxyHeader(
        TcpAddress(_unpack_ip(source), source_port), TcpAddress(_unpack_ip(destination), destination_port), tlvs
    )


def _split_fields(data: bytes) -> tuple[tuple[int, bytes], ...] | None:
    """Return the additional fields that *data* consists of, None when it does not consist of any."""
    fields = []
    position = 0
    while position < len(data):
        value_start = position + _FIELD.size
        if value_start > len(data):
            return None
        kind, size = _FIELD.unpack_from(data, position)
        position = value_start + size
        if position > len(data):
            return None
        fields.append((kind, data[value_start:position]))
    return tuple(fields)


def _check_crc32c(header: bytes, position: int, tlvs: Iterable[tuple[int, bytes]]) -> None:
    """Verify the first checksum among *tlvs*, which begin at *position* (section 2.2.3)."""
    for kind, value in tlvs:
        position += _FIELD.size
        if kind == _CRC32C_FIELD:
            zeroed = header[:position] + bytes(len(value)) + header[position + len(value) :]
            if len(value) != 4 or _crc32c(zeroed) != int.from_bytes(value):
                raise BadProxyHeader("the PROXY header's checksum is wrong")
            return
        position += len(value)


def _crc32c(data: bytes) -> int:
    # 0.05 us a byte; without the table it is 0.6 us, and there are load balancers that send a checksum to everybody.
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = (remainder >> 8) ^ _CRC32C_TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF


def _crc32c_remainder(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CRC32C_POLYNOMIAL * (byte & 1))
    return byte


_CRC32C_TABLE: Final = [_crc32c_remainder(byte) for byte in range(256)]
