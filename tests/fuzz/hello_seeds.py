"""The seeds of `fuzz_client_hello.py`, and the words of its dictionary: see `make_corpus.py`."""

import sys
from pathlib import Path

from pieces import repeat

sys.path.append(str(Path(__file__).parents[1] / "tls"))

from hello_wire import GROUPS, SIGNATURES, alpn, body, extension, hello, message, name, record, sni, vector

WHOLE, BODY, EXTENSIONS, NAMES = range(4)


def client_hello(rest: bytes, meaning: int = WHOLE, *, size: int = 64, fragments: int = 0) -> bytes:
    return bytes([size - 1, meaning | fragments << 2]) + rest


ASKED = sni(b"Blue.example.org."), alpn(b"h2", b"http/1.1")
CLIENT_HELLO = {
    "usual": client_hello(hello(*ASKED), size=7),
    "many records": client_hello(hello(*ASKED, sizes=(3, 1)), size=1),
    "with early data": client_hello(hello(sni(b"a")) + record(bytes(9), kind=23), size=50),
    "an empty record": client_hello(record(message(body())[:9]) + record(b"")),
    "an alert in between": client_hello(record(message(body())[:9]) + record(b"\1\0", kind=21)),
    "more in the record": client_hello(record(message(body()) + b"\1"), size=3),
    "a record too large": client_hello(record(message(b"", length=20_000), length=16_385)),
    "too large": client_hello(record(message(b"", length=65_533))),
    "a server's": client_hello(record(message(body(), kind=2))),
    "SSL 2.0": client_hello(bytes.fromhex("80 2e 01 0303 0015 0000 0010")),
    "HTTP": client_hello(b"GET / HTTP/1.1\r\n\r\n"),
    "without end": client_hello(record(b"\1\0\xff\0") + repeat(record(b"x"), 11_000)),
    "no extensions": client_hello(body(has_extensions=False), BODY, fragments=1),
    "a session": client_hello(body(*ASKED, session_id=bytes(32), suites=bytes(6)), BODY, fragments=3),
    "a session too long": client_hello(body(session_id=bytes(33)), BODY),
    "odd suites": client_hello(body(suites=b"\0\1\2"), BODY, fragments=2),
    "no compression": client_hello(body(compression=b""), BODY),
    "cut short": client_hello(body()[:20], BODY),
    "something behind": client_hello(body(GROUPS) + b"\0", BODY),
    "grease": client_hello(extension(0x0A0A, b"") + ASKED[0] + extension(0x1A1A, b"\0"), EXTENSIONS),
    "what OpenSSL needs": client_hello(GROUPS + SIGNATURES + b"".join(ASKED), EXTENSIONS, size=1, fragments=2),
    "twice": client_hello(sni(b"a") + sni(b"b"), EXTENSIONS),
    "padding": client_hello(sni(b"a") + b"\0\x15\x80\0" + repeat(b"\0", 32_768), EXTENSIONS),
    "too large by its records": client_hello(
        sni(b"a") + b"\0\x15\x40\0" + repeat(b"\0", 16_384), EXTENSIONS, fragments=1
    ),
    "no protocols": client_hello(alpn(), EXTENSIONS),
    "a protocol without a name": client_hello(alpn(b"h2", b""), EXTENSIONS),
    "names that do not fit": client_hello(extension(0, vector(2, name(b"a")) + b"\0"), EXTENSIONS),
    "a length cut short": client_hello(sni(b"a") + b"\0\x15\0", EXTENSIONS),
    "a name": client_hello(name(b"a-1_2.xn--p1ai"), NAMES, fragments=1),
    "two names": client_hello(name(b"a") + name(b"b"), NAMES),
    "another kind of name": client_hello(name(b"\0\xff", kind=1) + name(b"a"), NAMES),
    "an address": client_hello(name(b"192.0.2.1"), NAMES),
    "an IPv6 address": client_hello(name(b"[::1]"), NAMES),
    "NUL": client_hello(name(b"a\0.b"), NAMES),
    "dots": client_hello(name(b"a..b"), NAMES),
    "the longest name": client_hello(b"\0\0\xff" + repeat(b"a.", 127) + b"a", NAMES),
    "no name": client_hello(b"", NAMES),
}

CLIENT_HELLO_WORDS = (
    *(b"\x16\3\1", b"\x16\3\3", b"\1\0", b"\3\3", b"\0\0", b"\0\x10", b"\0\0\0\6\0\4\0\0\1a", b"\2h2", b"\x08http/1.1"),
    *(b"\0\0\1a", b"\0\0\2a.", b"\1\0\1a", b"\0\x15\0\0", b"\0\x10\0\5\0\3\2h2", b"\xfe\x01\x20\x00"),
)
