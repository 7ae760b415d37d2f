"""What fields say about a message's framing: our own rules, whatever the parser lets through."""

import pytest

from otun.http.fields import MAX_LENGTH_DIGITS, Field, Framing, MalformedFields, read_framing


def framing(*lines: bytes, version: str = "1.1") -> Framing:
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append(Field.of(name, value.strip()))
    return read_framing(fields, version=version)


def test_without_any_field_there_is_no_framing() -> None:
    assert framing(b"X-A: b") == Framing(None, False, frozenset(), None)


@pytest.mark.parametrize("digits", [b"0", b"5", b"007", b"9" * MAX_LENGTH_DIGITS])
def test_a_length_is_a_number(digits: bytes) -> None:
    assert framing(b"Content-Length: " + digits).content_length == int(digits)


@pytest.mark.parametrize(
    "value", [b"", b"+5", b"-5", b"5, 5", b"5 5", b"0x5", b"5.0", b"1e3", b"\xb2", b"1" * (MAX_LENGTH_DIGITS + 1)]
)
def test_other_lengths_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedFields):
        framing(b"Content-Length: " + value)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_the_only_coding(value: bytes) -> None:
    assert framing(b"Transfer-Encoding: " + value).is_chunked


@pytest.mark.parametrize("value", [b"", b"gzip", b"gzip, chunked", b"chunked, chunked", b"chunked;q=1", b"identity"])
def test_other_codings_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedFields):
        framing(b"Transfer-Encoding: " + value)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"content-length: 6"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        (b"Connection: close, Content-Length", b"Content-Length: 5"),
        (b"Connection: Transfer-Encoding",),
        (b"Connection: HOST",),
        (b"Connection: close", b"Connection: trailer"),
    ],
)
def test_contradictions_are_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedFields):
        framing(*lines)


def test_http_1_0_has_no_transfer_codings() -> None:
    with pytest.raises(MalformedFields):
        framing(b"Transfer-Encoding: chunked", version="1.0")


def test_options_of_all_connection_fields_count() -> None:
    found = framing(b"Connection: Close , X-A", b"Connection: keep-alive", b"Connection: ,")
    assert {b"close", b"x-a", b"keep-alive"} <= found.options


@pytest.mark.parametrize(
    ("lines", "version", "upgrade"),
    [
        ((b"Connection: Upgrade", b"Upgrade: websocket"), "1.1", b"websocket"),
        ((b"Connection: keep-alive, upgrade", b"Upgrade: a", b"Upgrade: b"), "1.1", b"a, b"),
        ((b"Upgrade: websocket",), "1.1", None),
        ((b"Connection: Upgrade", b"Upgrade: websocket"), "1.0", None),
        ((b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), "1.1", None),
        ((b"Connection: Upgrade", b"Upgrade: websocket, H2C"), "1.1", None),
    ],
)
def test_an_upgrade_counts_when_connection_names_it(
    lines: tuple[bytes, ...], version: str, upgrade: bytes | None
) -> None:
    assert framing(*lines, version=version).upgrade == upgrade


@pytest.mark.parametrize(
    ("name", "is_plain"),
    [(b"Accept", True), (b"X-A", True), (b"X_A", True), (b"Host", False), (b"Content_Length", False), (b"TE", False)],
)
def test_fields_that_concern_a_relay_are_not_plain(name: bytes, is_plain: bool) -> None:
    field = Field.of(name, b"v")
    assert field == (name.lower(), b"v", name + b": v\r\n", is_plain)
