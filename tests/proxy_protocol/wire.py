"""Headers written out by hand, so that the tests do not ask the encoder what the decoder should read."""

from collections.abc import Iterable

from otun.proxy_protocol import ProxyHeader, ProxyHeaderReader

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
V4 = bytes.fromhex("C0A80001 C0A8000B DC04 01BB")  # 192.168.0.1:56324 to 192.168.0.11:443
V6 = bytes.fromhex("20010DB8000000000000000000000001 20010DB8000000000000000000000002 DC04 01BB")


def v2(version_and_command: int, family: int, block: bytes, *, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes([version_and_command, family]) + size.to_bytes(2) + block


def field(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2) + value


def read(data: bytes, *, is_v1_allowed: bool = True) -> ProxyHeader | None:
    return ProxyHeaderReader(is_v1_allowed=is_v1_allowed).feed(data)


def read_pieces(pieces: Iterable[bytes], *, is_v1_allowed: bool = True) -> tuple[ProxyHeader, bytes] | None:
    """What a reader says of *pieces*: the header and everything behind it."""
    reader = ProxyHeaderReader(is_v1_allowed=is_v1_allowed)
    header = None
    rest = b""
    for piece in pieces:
        if header is not None:
            rest += piece
            continue
        header = reader.feed(piece)
        rest = reader.rest
    return None if header is None else (header, rest)


def crc32c(data: bytes) -> int:
    """The checksum by its definition: the remainder of a division of polynomials, bit by bit, highest power first."""
    bits = [byte >> index & 1 for byte in data for index in range(8)] + [0] * 32
    for index in range(32):
        bits[index] ^= 1
    polynomial = [index for index in range(33) if 0x11EDC6F41 >> (32 - index) & 1]
    for position in range(len(bits) - 32):
        if bits[position]:
            for index in polynomial:
                bits[position + index] ^= 1
    return sum((bit ^ 1) << index for index, bit in enumerate(bits[-32:]))
