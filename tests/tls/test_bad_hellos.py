"""What is refused, with which alert, and at which byte."""

import pytest

from otun.errors import BadClientHello
from otun.tls.client_hello import AlertDescription, ClientHelloReader

from .hello_wire import (
    ALPN,
    GREASE,
    SERVER_NAME,
    alpn,
    body,
    bytewise,
    extension,
    hello,
    message,
    name,
    record,
    records,
    sni,
    vector,
)
from .reading import outcome

DECODE_ERROR = AlertDescription.DECODE_ERROR
ILLEGAL_PARAMETER = AlertDescription.ILLEGAL_PARAMETER
PROTOCOL_VERSION = AlertDescription.PROTOCOL_VERSION
RECORD_OVERFLOW = AlertDescription.RECORD_OVERFLOW
UNEXPECTED_MESSAGE = AlertDescription.UNEXPECTED_MESSAGE

MESSAGE = message(body(sni(b"blue.example.org")))


@pytest.mark.parametrize(
    ("start", "text", "alert"),
    [
        (b"G", r"does not start with TLS, but with 'G': it may be plain HTTP", UNEXPECTED_MESSAGE),
        (b"P", r"but with 'P'", UNEXPECTED_MESSAGE),
        (b" ", r"but with ' '", UNEXPECTED_MESSAGE),
        (b"\0", r"but with the byte 0x00", UNEXPECTED_MESSAGE),
        (b"\r", r"but with the byte 0x0d", UNEXPECTED_MESSAGE),
        (b"\x15", r"but with the byte 0x15", UNEXPECTED_MESSAGE),
        (b"\x17", r"but with the byte 0x17", UNEXPECTED_MESSAGE),
        (b"\x7f", r"but with the byte 0x7f", UNEXPECTED_MESSAGE),
        (b"\x80", r"SSL 2\.0", PROTOCOL_VERSION),
        (b"\x16\2", "a record's version has the major number 2", PROTOCOL_VERSION),
        (b"\x16\4", "a record's version has the major number 4", PROTOCOL_VERSION),
        (b"\x16\3\1\0\0", "has nothing of the ClientHello in it", UNEXPECTED_MESSAGE),
        (b"\x16\3\1\x40\1", "a record announces 16385 bytes; the limit is 16384", RECORD_OVERFLOW),
        (b"\x16\3\1\xff\xff", "a record announces 65535 bytes", RECORD_OVERFLOW),
        (b"\x16\3\1\0\7\0", "is of type 0, and is no ClientHello", UNEXPECTED_MESSAGE),
        (b"\x16\3\1\0\7\2", "is of type 2, and is no ClientHello", UNEXPECTED_MESSAGE),
        (b"\x16\3\1\0\5\1\0\0\0", "goes on for 1 bytes behind it", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:9]) + b"\x15", "interrupted by a record of type 21", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:9]) + b"\x14", "interrupted by a record of type 20", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:9]) + b"G", "interrupted by a record of type 71", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:9]) + b"\x16\0", "major number 0", PROTOCOL_VERSION),
        (record(MESSAGE[:9]) + b"\x16\3\3\0\0", "has nothing of the ClientHello in it", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:2]) + record(MESSAGE[2:] + b"\1")[:7], "goes on for 1 bytes", UNEXPECTED_MESSAGE),
        (record(MESSAGE[:9]) + record(MESSAGE[9:] + MESSAGE)[:5], "goes on for 72 bytes", UNEXPECTED_MESSAGE),
    ],
)
def test_a_wrong_start_is_refused_at_its_last_byte(start: bytes, text: str, alert: int) -> None:
    reader = ClientHelloReader()
    for piece in bytewise(start[:-1]):
        assert reader.feed(piece) is None
    with pytest.raises(BadClientHello, match=text) as caught:
        reader.feed(start[-1:])
    assert caught.value.alert == alert
    assert outcome([start + bytes(20)]) == (alert, str(caught.value))


@pytest.mark.parametrize(
    ("content", "text", "alert"),
    [
        (b"", "ends before its session id", DECODE_ERROR),
        (body()[:33], "ends before its session id", DECODE_ERROR),
        (body()[:34], "session id do not fit", DECODE_ERROR),
        (body(version=b"\2\3"), "the ClientHello's version has the major number 2", PROTOCOL_VERSION),
        (body(version=b"\0\2"), "the ClientHello's version has the major number 0", PROTOCOL_VERSION),
        (body(version=b"\xfe\xfd"), "the ClientHello's version has the major number 254", PROTOCOL_VERSION),
        (body(session_id=b"s" * 33), "session id has 33 bytes", DECODE_ERROR),
        (body(suites=b""), "cipher suites take 0 bytes", DECODE_ERROR),
        (body(suites=b"\xc0"), "cipher suites take 1 bytes", DECODE_ERROR),
        (body(suites=b"\xc0\x18\x13"), "cipher suites take 3 bytes", DECODE_ERROR),
        (body(compression=b""), "no compression methods", DECODE_ERROR),
        (body(has_extensions=False)[:-1], "compression methods do not fit", DECODE_ERROR),
        (body(has_extensions=False)[:-2], "compression methods do not fit", DECODE_ERROR),
        (body(has_extensions=False)[:-3], "cipher suites do not fit", DECODE_ERROR),
        (body(has_extensions=False) + b"\0", "extensions do not fit", DECODE_ERROR),
        (body(has_extensions=False) + b"\0\1", "extensions do not fit", DECODE_ERROR),
        (body() + b"\0", "1 bytes behind its extensions", DECODE_ERROR),
        (body() + body(), "bytes behind its extensions", DECODE_ERROR),
        (body(b"\0"), "extensions do not fit", DECODE_ERROR),
        (body(b"\0\x15"), "extensions do not fit", DECODE_ERROR),
        (body(b"\0\x15\0"), "extensions do not fit", DECODE_ERROR),
        (body(extension(21, b"", length=1)), "extensions do not fit", DECODE_ERROR),
        (body(sni(b"a") + b"\0\x15\0"), "extensions do not fit", DECODE_ERROR),
        (body(sni(b"a"), sni(b"b")), "extension 0 more than once", ILLEGAL_PARAMETER),
        (body(sni(b"a"), sni(b"a")), "extension 0 more than once", ILLEGAL_PARAMETER),
        (body(alpn(b"h2"), sni(b"a"), alpn(b"h2")), "extension 16 more than once", ILLEGAL_PARAMETER),
        (body(*[extension(GREASE[0], b"")] * 2), "extension 2570 more than once", ILLEGAL_PARAMETER),
        (body(sni(b"a", b"b")), "more than one host name", ILLEGAL_PARAMETER),
        (body(sni(b"a", b"a")), "more than one host name", ILLEGAL_PARAMETER),
        (body(sni(b"", b"a")), "more than one host name", ILLEGAL_PARAMETER),
        (body(sni()), "list of server names is empty", DECODE_ERROR),
        (body(extension(SERVER_NAME, b"")), "server names do not fit", DECODE_ERROR),
        (body(extension(SERVER_NAME, b"\0")), "server names do not fit", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a")) + b"\0")), "1 bytes behind its server", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a"), length=5))), "server names do not fit", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a"), length=3))), "1 bytes behind its server", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a")[:-1]))), "server names do not fit", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a"), b"\0"))), "server names do not fit", DECODE_ERROR),
        (body(extension(SERVER_NAME, vector(2, name(b"a"), b"\0\0"))), "server names do not fit", DECODE_ERROR),
        (body(alpn()), "list of protocols is empty", DECODE_ERROR),
        (body(alpn(b"h2", b"")), "a protocol without a name", DECODE_ERROR),
        (body(extension(ALPN, b"")), "protocols do not fit", DECODE_ERROR),
        (body(extension(ALPN, vector(2, b"\2h2") + b"\0")), "1 bytes behind its protocols", DECODE_ERROR),
        (body(extension(ALPN, vector(2, b"\3h2"))), "protocols do not fit", DECODE_ERROR),
        (body(extension(ALPN, vector(2, b"\2h2", length=4))), "protocols do not fit", DECODE_ERROR),
    ],
)
def test_a_wrong_message_is_refused_at_its_end(content: bytes, text: str, alert: int) -> None:
    data = records(message(content))
    reader = ClientHelloReader()
    assert reader.feed(data[:-1]) is None
    with pytest.raises(BadClientHello, match=text) as caught:
        reader.feed(data[-1:])
    assert caught.value.alert == alert
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: blue.example.org\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + hello(sni(b"a")),
        b"\r\n\r\n\0\r\nQUIT\n" + hello(sni(b"a")),
        b"SSH-2.0-x\r\n",
    ],
)
def test_other_protocols_are_told_by_their_first_byte(data: bytes) -> None:
    refused = outcome([data])
    assert isinstance(refused, tuple)
    assert refused == outcome([data[:1]])
    assert refused[0] == UNEXPECTED_MESSAGE


def test_hellos_of_ssl_2_are_told_by_their_first_byte() -> None:
    """OpenSSL reads them (RFC 5246, appendix E.2), and finds no name in them."""
    old = bytes.fromhex("80 2e 01 03 03 0015 0000 0010") + bytes(37)
    refused = outcome([old])
    assert isinstance(refused, tuple)
    assert refused == outcome([old[:1]])
    assert refused[0] == PROTOCOL_VERSION


def test_a_hello_for_quic_or_dtls_is_none_for_tcp() -> None:
    assert outcome([b"\x16\xfe\xfd\0\0"]) == (
        PROTOCOL_VERSION,
        "a record's version has the major number 254, which is not that of TLS",
    )


def test_the_first_error_counts_not_the_last() -> None:
    data = record(MESSAGE[:9]) + record(b"", kind=23) + b"GET"
    assert outcome([data]) == outcome(bytewise(data))
    assert outcome([data + hello(sni(b"a"))]) == outcome([data])
