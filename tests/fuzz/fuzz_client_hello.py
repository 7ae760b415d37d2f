"""Fuzzes what reads a TLS ClientHello: any bytes are one, or not yet one, or refused, however they are cut.

OpenSSL reads what was accepted, too, and may refuse it, but must not find another server name in it.

The input: the first byte is the size of the pieces, less one, of 1 to 64 bytes; the second says what the rest is (see
`MEANINGS`, lower two bits) and the size of the records (see `FRAGMENTS`); then this rest, see `pieces.expand`.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["otun"]):
    from otun.errors import BadClientHello, LocalProtocolError
    from otun.tls.client_hello import MAX_CLIENT_HELLO, AlertDescription, ClientHello, ClientHelloReader, fatal_alert

sys.path.append(str(Path(__file__).parents[1] / "tls"))

from harness import fuzz
from hello_wire import MAX_FRAGMENT, SERVER_NAME, alpn, body, extension, hello, message, records, sni, vector
from pieces import cut, expand
from terminator import Seen, Terminator

FRAGMENTS = MAX_FRAGMENT, 1, 5, 100
"""Bytes in a record, by the bits 2 and 3 of the second byte."""

MEANINGS = {
    0: lambda rest, size: rest,
    1: lambda rest, size: records(message(rest), (size,)),
    2: lambda rest, size: records(message(body(rest)), (size,)),
    3: lambda rest, size: hello(extension(SERVER_NAME, vector(2, rest)), sizes=(size,)),
}
"""What the rest becomes: it is all bytes, or a message without its header, or extensions, or a list of server names.

Lengths that do not fit are most of what mutations find, so each way in gets past some of them.
"""

MAX_REST = 60_000
"""Bytes: more do not fit behind two bytes of length with what stands around them."""

TERMINATOR = Terminator()


def read(pieces: list[bytes]) -> ClientHello | tuple[int, str] | None:
    reader = ClientHelloReader()
    fed = b""
    for piece in pieces:
        fed += piece
        found, refused = None, None
        try:
            found = reader.feed(piece)
        except BadClientHello as error:
            refused = error.alert, str(error)
        assert reader.received == fed
        assert len(reader._message) <= MAX_CLIENT_HELLO
        if found is not None or refused is not None:
            check_spent(reader)
            return found or refused
    assert len(fed) < MAX_CLIENT_HELLO
    return None


def check_spent(reader: ClientHelloReader) -> None:
    try:
        reader.feed(b"")
    except LocalProtocolError:
        return
    raise AssertionError("a spent reader goes on")


def check_refusal(alert: int, text: str) -> None:
    assert alert in [*AlertDescription]
    assert len(fatal_alert(alert)) == 7
    assert text.isprintable()


def check_hello(found: ClientHello, data: bytes) -> None:
    """What was asked for can be asked for again; a name has one spelling, and OpenSSL sees the same."""
    name = found.server_name
    assert name is None or (0 < len(name) <= 255 and name.isascii() and name == name.lower().strip("."))
    again = ([sni(name.encode())] if name is not None else []) + ([alpn(*found.alpn)] if found.alpn else [])
    if sum(map(len, again)) < MAX_REST:
        assert read([hello(*again)]) == found
    seen = TERMINATOR.see(data)
    if isinstance(seen, Seen):
        theirs = None if seen.server_name is None else seen.server_name.lower().removesuffix(".")
        assert theirs == name, f"OpenSSL reads another name: {seen.server_name!r}, not {name!r}"


def test_one_input(data: bytes) -> None:
    first, second = data[:2].ljust(2, b"\0")
    meaning = second & 3
    rest = expand(data[2:])
    stream = MEANINGS[meaning](rest[:MAX_REST] if meaning else rest, FRAGMENTS[second >> 2 & 3])
    result = read([stream])
    assert read(cut(stream, first % 64 + 1)) == result, "it depends on how the bytes are cut"
    match result:
        case ClientHello():
            check_hello(result, stream)
        case alert, text:
            check_refusal(alert, text)


if __name__ == "__main__":
    fuzz(test_one_input)
