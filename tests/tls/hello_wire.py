"""ClientHellos written out by hand, so that every length in them can be wrong.  Knows nothing of otun."""

from collections.abc import Iterable, Sequence
from itertools import cycle

SERVER_NAME, SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, ALPN = 0, 10, 13, 16
PADDING, SUPPORTED_VERSIONS, KEY_SHARE = 21, 43, 51
GREASE = 0x0A0A, 0x1A1A, 0xDADA
MAX_FRAGMENT = 2**14

ANONYMOUS = bytes.fromhex("c018")  # TLS_ECDH_anon_WITH_AES_128_CBC_SHA: a server needs no certificate for it


def vector(width: int, *values: bytes, length: int | None = None) -> bytes:
    """*values* behind their length, or behind another one."""
    value = b"".join(values)
    return (len(value) if length is None else length).to_bytes(width) + value


def extension(kind: int, value: bytes, *, length: int | None = None) -> bytes:
    return kind.to_bytes(2) + vector(2, value, length=length)


def name(value: bytes, *, kind: int = 0) -> bytes:
    return bytes([kind]) + vector(2, value)


def sni(*names: bytes) -> bytes:
    """The extension server_name with these host names."""
    return extension(SERVER_NAME, vector(2, *map(name, names)))


def alpn(*protocols: bytes) -> bytes:
    return extension(ALPN, vector(2, *(vector(1, protocol) for protocol in protocols)))


GROUPS = extension(SUPPORTED_GROUPS, vector(2, b"\0\x17"))
KEY = bytes.fromhex(  # a point of P-256: its generator (SEC 2, section 2.4.2)
    "04 6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
SIGNATURES = extension(SIGNATURE_ALGORITHMS, vector(2, b"\4\1\2\1"))


def body(
    *extensions: bytes,
    version: bytes = b"\3\3",
    session_id: bytes = b"",
    suites: bytes = ANONYMOUS,
    compression: bytes = b"\0",
    has_extensions: bool = True,
) -> bytes:
    """A ClientHello without its header (RFC 8446, section 4.1.2)."""
    fixed = version + bytes(range(32)) + vector(1, session_id) + vector(2, suites) + vector(1, compression)
    return fixed + (vector(2, *extensions) if has_extensions else b"")


def message(content: bytes, *, kind: int = 1, length: int | None = None) -> bytes:
    return bytes([kind]) + vector(3, content, length=length)


def record(fragment: bytes, *, kind: int = 22, version: bytes = b"\3\1", length: int | None = None) -> bytes:
    return bytes([kind]) + version + vector(2, fragment, length=length)


def records(content: bytes, sizes: Sequence[int] = (MAX_FRAGMENT,)) -> bytes:
    """*content* in records of these sizes, over and over."""
    found = []
    start = 0
    for size in cycle(sizes):
        found.append(record(content[start : start + size]))
        start += size
        if start >= len(content):
            break
    return b"".join(found)


def hello(*extensions: bytes, sizes: Sequence[int] = (MAX_FRAGMENT,)) -> bytes:
    """A connection's first bytes, which OpenSSL accepts when *extensions* are sound."""
    return records(message(body(GROUPS, SIGNATURES, *extensions)), sizes)


def bytewise(data: bytes) -> Iterable[bytes]:
    return (data[index : index + 1] for index in range(len(data)))
