import pytest

from otun.errors import BadClientHello, LocalProtocolError
from otun.tls.client_hello import (
    HANDSHAKE_RECORD,
    MAX_CLIENT_HELLO,
    AlertDescription,
    ClientHello,
    ClientHelloReader,
    fatal_alert,
)

from .hello_wire import (
    ALPN,
    GREASE,
    KEY_SHARE,
    MAX_FRAGMENT,
    PADDING,
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
from .reading import outcome, read

USUAL = hello(sni(b"blue.example.org"), alpn(b"h2", b"http/1.1"))
BLUE = ClientHello("blue.example.org", (b"h2", b"http/1.1"))


def test_the_server_name_and_the_protocols_are_read() -> None:
    reader = ClientHelloReader()
    assert reader.feed(USUAL) == BLUE
    assert reader.received == USUAL
    assert USUAL[0] == HANDSHAKE_RECORD


def test_every_byte_but_the_last_asks_for_more() -> None:
    reader = ClientHelloReader()
    for index in range(len(USUAL) - 1):
        assert reader.feed(USUAL[index : index + 1]) is None
        assert reader.received == USUAL[: index + 1]
    assert reader.feed(memoryview(USUAL)[-1:]) == BLUE
    assert reader.received == USUAL


def test_nothing_asks_for_more() -> None:
    assert read(b"") is None


def test_a_client_may_ask_for_no_host_and_no_protocol() -> None:
    assert read(hello()) == ClientHello(None, ())


def test_before_extensions_there_were_none() -> None:
    assert read(records(message(body(has_extensions=False, version=b"\3\0")))) == ClientHello(None)


@pytest.mark.parametrize("version", [b"\3\0", b"\3\1", b"\3\3", b"\3\4", b"\3\xff"])
def test_every_version_of_tls_is_read(version: bytes) -> None:
    assert read(record(message(body(sni(b"a"), version=version)), version=version)) == ClientHello("a")


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        (b"a", "a"),
        (b"Blue.EXAMPLE.Org", "blue.example.org"),
        (b"blue.example.org.", "blue.example.org"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"_dmarc.a_b.example", "_dmarc.a_b.example"),
        (b"r3---sn-4g5e6nz7.example", "r3---sn-4g5e6nz7.example"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"a" * 63, "a" * 63),
        (b".".join([b"a" * 63] * 3 + [b"a" * 62]) + b".", ".".join(["a" * 63] * 3 + ["a" * 62])),
        (b"a." * 127 + b"a", "a." * 127 + "a"),
    ],
)
def test_a_server_name_is_spelt_in_one_way(sent: bytes, read_as: str) -> None:
    assert read(hello(sni(sent))) == ClientHello(read_as)


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b".", b"..", b".a", b"a..", b"a..b", b"a" * 64, b"a." * 127 + b"aa", b"a" * 65000),
        *(
            b"a\0",
            b"\0a",
            b"a\0.example.org",
            b"a b",
            b"a\n",
            b"\n",
            b"a/b",
            b"a:443",
            b"a%2eb",
            b"*",
            b"*.example.org",
        ),
        *(b"::1", b"[::1]", b"2001:db8::1", b"b\xc3\xbccher.example", b"\xff", "\u212a.example".encode(), b"a@b"),
    ],
)
def test_what_is_no_host_name_is_refused(sent: bytes) -> None:
    with pytest.raises(BadClientHello, match="is no host name") as caught:
        read(hello(sni(sent)))
    assert caught.value.alert == AlertDescription.UNRECOGNIZED_NAME == 112
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


def test_names_of_types_that_nobody_knows_are_ignored() -> None:
    others = [name(b"", kind=1), name(b"evil.example", kind=255)]
    assert read(hello(extension(SERVER_NAME, vector(2, *others)))) == ClientHello(None)
    assert read(hello(extension(SERVER_NAME, vector(2, *others, name(b"a"), *others)))) == ClientHello("a")


def test_protocols_are_any_bytes_in_the_clients_order() -> None:
    protocols = b"\x0a\x0a", b"h2", b"\0", b"x" * 255, b"h2"
    assert read(hello(alpn(*protocols))) == ClientHello(None, protocols)


def test_grease_and_unknown_extensions_are_ignored() -> None:
    first, second, third = GREASE
    block = [extension(first, b""), sni(b"a"), extension(second, b"\0"), alpn(b"h2"), extension(0xFFFF, bytes(40))]
    suites = third.to_bytes(2) + b"\x13\x01"
    assert read(records(message(body(*block, suites=suites)))) == ClientHello("a", (b"h2",))


def test_other_extensions_are_not_looked_into() -> None:
    assert read(hello(extension(PADDING, b"\1\2"), extension(KEY_SHARE, b"\xff"))) == ClientHello(None)


@pytest.mark.parametrize("size", [0, 1, 32])
def test_a_session_id_has_up_to_32_bytes(size: int) -> None:
    assert read(records(message(body(sni(b"a"), session_id=b"s" * size)))) == ClientHello("a")


@pytest.mark.parametrize("sizes", [(1,), (2, 1), (3,), (4,), (5,), (100, 1), (MAX_FRAGMENT,)])
def test_a_hello_may_come_in_many_records(sizes: tuple[int, ...]) -> None:
    data = hello(sni(b"blue.example.org"), alpn(b"h2", b"http/1.1"), sizes=sizes)
    assert outcome([data]) == outcome(bytewise(data)) == BLUE


@pytest.mark.parametrize("size", [10_000, MAX_FRAGMENT, 50_000])
def test_post_quantum_hellos_are_large(size: int) -> None:
    shares = extension(KEY_SHARE, vector(2, b"\x11\xec", vector(2, bytes(size))))
    data = hello(shares, sni(b"blue.example.org"), alpn(b"h2", b"http/1.1"))
    assert len(data) > size
    assert outcome([data]) == outcome(bytewise(data)) == BLUE


def test_what_follows_is_received_but_not_looked_at() -> None:
    early_data = record(b"", kind=23) + b"anything" * 100_000
    reader = ClientHelloReader()
    assert reader.feed(USUAL + early_data) == BLUE
    assert reader.received == USUAL + early_data


def test_the_largest_hello_ends_at_the_limit() -> None:
    room = MAX_CLIENT_HELLO - len(hello(sni(b"a"), extension(PADDING, b""), sizes=(8000,)))
    room -= 5 * (room // 8000)
    largest = hello(sni(b"a"), extension(PADDING, bytes(room)), sizes=(8000,))
    assert len(largest) == MAX_CLIENT_HELLO
    assert outcome([largest + b"more"]) == outcome(bytewise(largest)) == ClientHello("a")
    too_large = hello(sni(b"a"), extension(PADDING, bytes(room + 1)), sizes=(8000,))
    assert (
        outcome([too_large]) == outcome(bytewise(too_large)) == (47, "the ClientHello does not end within 65536 bytes")
    )


def test_a_hello_that_can_only_be_too_large_is_refused_when_it_says_so() -> None:
    start = record(message(b"", length=MAX_CLIENT_HELLO - 4), length=MAX_FRAGMENT)
    assert read(start) is None
    start = record(message(b"", length=MAX_CLIENT_HELLO - 3), length=MAX_FRAGMENT)
    assert read(start[:-1]) is None
    with pytest.raises(BadClientHello, match="does not end within 65536 bytes") as caught:
        read(start)
    assert caught.value.alert == AlertDescription.ILLEGAL_PARAMETER


def test_small_records_do_not_make_room_for_more() -> None:
    data = hello(extension(PADDING, bytes(12_000)), sizes=(1,))
    reader = ClientHelloReader()
    assert reader.feed(data[: MAX_CLIENT_HELLO - 1]) is None
    with pytest.raises(BadClientHello, match="does not end within 65536 bytes"):
        reader.feed(data[MAX_CLIENT_HELLO - 1 : MAX_CLIENT_HELLO])


def test_a_reader_that_has_read_or_raised_is_spent() -> None:
    reader = ClientHelloReader()
    assert reader.feed(USUAL) == BLUE
    with pytest.raises(LocalProtocolError, match="read already"):
        reader.feed(b"")
    reader = ClientHelloReader()
    with pytest.raises(BadClientHello):
        reader.feed(b"GET ")
    with pytest.raises(LocalProtocolError, match="read already"):
        reader.feed(USUAL)
    assert reader.received == b"GET "


def test_the_callers_buffer_may_be_used_again() -> None:
    buffer = bytearray(USUAL[:50])
    reader = ClientHelloReader()
    assert reader.feed(buffer) is None
    buffer[:] = bytes(50)
    assert reader.feed(USUAL[50:]) == BLUE


def test_the_repr_tells_how_far_it_is() -> None:
    reader = ClientHelloReader()
    reader.feed(USUAL[:7])
    assert repr(reader) == "<ClientHelloReader reading, 7 bytes>"
    reader.feed(USUAL[7:])
    assert repr(reader) == f"<ClientHelloReader finished, {len(USUAL)} bytes>"


def test_an_alert_is_a_record_of_seven_bytes() -> None:
    assert fatal_alert(112) == bytes.fromhex("15 0301 0002 02 70")
    assert fatal_alert(AlertDescription.DECODE_ERROR) == bytes.fromhex("15 0301 0002 02 32")


def test_an_empty_list_of_protocols_is_not_the_same_as_none() -> None:
    with pytest.raises(BadClientHello, match="list of protocols is empty"):
        read(hello(extension(ALPN, vector(2))))
