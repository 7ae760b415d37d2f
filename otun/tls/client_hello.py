"""What a TLS client says first, read without answering it: which host it wants, and which protocols it offers.

The rules are those of RFC 8446 (TLS 1.3), whose ClientHello is that of the versions before it; the sections are named
where a rule comes from one.  Whoever terminates TLS gets the same bytes and reads them again, so what two programs
might understand differently is refused: nobody shall be routed by one name and served by another.
"""

import re
from enum import IntEnum
from typing import Final

import attrs

from ..errors import BadClientHello, LocalProtocolError

HANDSHAKE_RECORD: Final = 0x16
"""The first byte of a connection that begins with a ClientHello, and of no plain HTTP."""

MAX_CLIENT_HELLO: Final = 64 * 1024
"""Bytes, with the headers of the records, in which a ClientHello must end.  Usual ones have 200 to 2000 bytes,
post-quantum ones up to some 20 KiB; OpenSSL takes 128 KiB."""

_ALERT_RECORD: Final = 0x15
_FATAL: Final = 2
_RECORD_HEADER_SIZE: Final = 5
_MAX_FRAGMENT: Final = 2**14  # section 5.1
_CLIENT_HELLO: Final = 1
_MESSAGE_HEADER_SIZE: Final = 4
_FIXED_SIZE: Final = _MESSAGE_HEADER_SIZE + 2 + 32  # and legacy_version and random: what has always the same size
_MAX_SESSION_ID: Final = 32

_SERVER_NAME, _ALPN = 0, 16  # extensions
_HOST_NAME: Final = 0
_MAX_HOST_NAME: Final = 255
_HOST_NAMES: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*+\.?")


class AlertDescription(IntEnum):
    """What an alert is about; the numbers are those of RFC 8446, section 6.  These are the ones used here."""

    UNEXPECTED_MESSAGE = 10
    RECORD_OVERFLOW = 22
    ILLEGAL_PARAMETER = 47
    DECODE_ERROR = 50
    PROTOCOL_VERSION = 70
    INTERNAL_ERROR = 80
    UNRECOGNIZED_NAME = 112


@attrs.frozen
class ClientHello:
    """What a ClientHello asks for.

    *server_name* is the host name of the extension server_name, in lower case and without a dot at its end; None when
    there is none.  *alpn* has the protocols that are offered, the preferred one first.
    """

    server_name: str | None
    alpn: tuple[bytes, ...] = ()


class ClientHelloReader:
    """Reads a ClientHello from a connection's bytes, in whatever pieces and records they come.

    What is judged at a certain byte is judged at that byte only, so the answer does not depend on the pieces: records
    and the message's header at once, the rest of the message when all of it is there.  At most twice
    `MAX_CLIENT_HELLO` is stored, and the last piece.

    Names that are not host names by their letters are refused, an IPv6 address and ``*.example.org`` among them.  An
    IPv4 address, which RFC 6066 forbids as well, is left as the name it looks like: so do nginx and HAProxy, and it is
    what the one who terminates TLS will see.

    The name is that of this ClientHello.  A client that is asked for another one (section 4.1.4) must repeat the name,
    but OpenSSL does not insist: it calls a server's ``sni_callback`` once more, with the other name.  Who terminates
    TLS and trusts the name has to compare it there.
    """

    def __init__(self) -> None:
        self._received = bytearray()
        self._position = 0  # in `_received`: what stands before it has been taken apart
        self._fragment_left = 0  # bytes of the present record that are still to come
        self._message = bytearray()
        self._is_finished = False

    def __repr__(self) -> str:
        state = "finished" if self._is_finished else "reading"
        return f"<ClientHelloReader {state}, {len(self._received)} bytes>"

    @property
    def received(self) -> bytes:
        """Everything that was fed, what follows the ClientHello included: for whoever terminates TLS.  A copy."""
        return bytes(self._received)

    def feed(self, data: bytes | bytearray | memoryview) -> ClientHello | None:
        """Take the connection's next bytes; return the ClientHello once it is complete, None while it is not.

        Records that follow it in *data* are not looked at.  Raises `BadClientHello` when the bytes are none that is
        accepted here.  A reader that has returned a ClientHello or raised is spent, and raises `LocalProtocolError`.
        """
        if self._is_finished:
            raise LocalProtocolError("the ClientHello has been read already")
        self._received += data
        self._is_finished = True
        if self._read_records():
            return _parse(bytes(self._message))
        if len(self._received) >= MAX_CLIENT_HELLO:
            raise _too_large()
        self._is_finished = False
        return None

    def _read_records(self) -> bool:
        """Gather the message from its records, as far as they are there.  Return whether it is complete."""
        end = min(len(self._received), MAX_CLIENT_HELLO)
        while self._position < end:
            if not self._fragment_left and not self._read_record_header(end):
                return False
            fragment = self._received[self._position : min(self._position + self._fragment_left, end)]
            self._position += len(fragment)
            self._fragment_left -= len(fragment)
            self._message += fragment
            if self._is_message_complete():
                return True
        return False

    def _read_record_header(self, end: int) -> bool:
        """Judge a record's header, as far as it is there.  Return whether it is, and has been taken."""
        header = self._received[self._position : min(self._position + _RECORD_HEADER_SIZE, end)]
        if header[0] != HANDSHAKE_RECORD:
            if self._position:
                raise _unexpected(f"the ClientHello is interrupted by a record of type {header[0]}")
            raise _no_handshake(header[0])
        if len(header) > 1 and header[1] != 3:
            raise _foreign_version("a record's", header[1])
        if len(header) < _RECORD_HEADER_SIZE:
            return False
        length = int.from_bytes(header[3:])
        if not length:
            raise _unexpected("a record has nothing of the ClientHello in it")
        if length > _MAX_FRAGMENT:
            text = f"a record announces {length} bytes; the limit is {_MAX_FRAGMENT}"
            raise BadClientHello(text, alert=AlertDescription.RECORD_OVERFLOW)
        self._position += _RECORD_HEADER_SIZE
        self._fragment_left = length
        return True

    def _is_message_complete(self) -> bool:
        """Judge the message's header, as far as it is there, and whether the message ends with a record."""
        message = self._message
        if message and message[0] != _CLIENT_HELLO:
            raise _unexpected(f"the first message of the handshake is of type {message[0]}, and is no ClientHello")
        if len(message) < _MESSAGE_HEADER_SIZE:
            return False
        size = _MESSAGE_HEADER_SIZE + int.from_bytes(message[1:_MESSAGE_HEADER_SIZE])
        if size > MAX_CLIENT_HELLO:
            raise _too_large()
        left_over = len(message) + self._fragment_left - size
        if left_over > 0:
            raise _unexpected(f"the ClientHello's last record goes on for {left_over} bytes behind it")
        return len(message) == size


def fatal_alert(description: int) -> bytes:
    """Return the record that tells a client why it is refused, before any keys have been agreed on (section 6).

    Its version is the one that a first record has for all clients, TLS 1.0 (section 5.1); they ignore it.
    """
    return bytes([_ALERT_RECORD, 3, 1, 0, 2, _FATAL, description])


def _unexpected(text: str) -> BadClientHello:
    return BadClientHello(text, alert=AlertDescription.UNEXPECTED_MESSAGE)


def _malformed(text: str) -> BadClientHello:
    return BadClientHello(text, alert=AlertDescription.DECODE_ERROR)


def _illegal(text: str) -> BadClientHello:
    return BadClientHello(text, alert=AlertDescription.ILLEGAL_PARAMETER)


def _foreign_version(whose: str, major: int) -> BadClientHello:
    text = f"{whose} version has the major number {major}, which is not that of TLS"
    return BadClientHello(text, alert=AlertDescription.PROTOCOL_VERSION)


def _too_large() -> BadClientHello:
    # A message that is too long has no alert of its own; OpenSSL answers with the same.
    return _illegal(f"the ClientHello does not end within {MAX_CLIENT_HELLO} bytes")


def _no_handshake(first: int) -> BadClientHello:
    if first & 0x80:
        text = "the connection does not start with TLS, but may with SSL 2.0, which is not served"
        return BadClientHello(text, alert=AlertDescription.PROTOCOL_VERSION)
    if 0x20 <= first < 0x7F:
        return _unexpected(f"the connection does not start with TLS, but with {chr(first)!r}: it may be plain HTTP")
    return _unexpected(f"the connection does not start with TLS's handshake, but with the byte {first:#04x}")


def _parse(message: bytes) -> ClientHello:
    """Read a complete message (section 4.1.2), whose header has been judged."""
    if len(message) < _FIXED_SIZE:
        raise _malformed("the ClientHello ends before its session id")
    if message[_MESSAGE_HEADER_SIZE] != 3:
        raise _foreign_version("the ClientHello's", message[_MESSAGE_HEADER_SIZE])
    session_id, position = _take_vector(message, _FIXED_SIZE, 1, "session id")
    if len(session_id) > _MAX_SESSION_ID:
        raise _malformed(f"the ClientHello's session id has {len(session_id)} bytes; the limit is {_MAX_SESSION_ID}")
    suites, position = _take_vector(message, position, 2, "cipher suites")
    if not suites or len(suites) % 2:
        raise _malformed(
            f"the ClientHello's cipher suites take {len(suites)} bytes; each takes 2, and there must be one"
        )
    compression_methods, position = _take_vector(message, position, 1, "compression methods")
    if not compression_methods:
        raise _malformed("the ClientHello has no compression methods")
    if position == len(message):  # RFC 5246, section 7.4.1.2: no extensions, and not even their length
        return ClientHello(None)
    block, position = _take_vector(message, position, 2, "extensions")
    if position != len(message):
        raise _malformed(f"the ClientHello has {len(message) - position} bytes behind its extensions")
    extensions = _split_extensions(block)
    name, protocols = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return ClientHello(
        None if name is None else _read_server_name(name), () if protocols is None else _read_protocols(protocols)
    )


def _take_vector(data: bytes, position: int, width: int, what: str) -> tuple[bytes, int]:
    """Return the vector at *position* of *data*, which begins with its length in *width* bytes, and where it ends."""
    start = position + width
    end = start + int.from_bytes(data[position:start])
    # The first is not implied by the second: a length that is cut short is a smaller number.
    if start > len(data) or end > len(data):
        raise _malformed(f"the ClientHello's {what} do not fit into what they are in")
    return data[start:end], end


def _take_only_vector(data: bytes, what: str) -> bytes:
    """Return the vector that *data* consists of, which may not be empty."""
    vector, end = _take_vector(data, 0, 2, what)
    if end != len(data):
        raise _malformed(f"the ClientHello has {len(data) - end} bytes behind its {what}")
    if not vector:
        raise _malformed(f"the ClientHello's list of {what} is empty")
    return vector


def _split_extensions(block: bytes) -> dict[int, bytes]:
    extensions: dict[int, bytes] = {}
    position, size = 0, len(block)
    while position < size:
        kind = int.from_bytes(block[position : position + 2])
        value, position = _take_vector(block, position + 2, 2, "extensions")
        if kind in extensions:  # section 4.2
            raise _illegal(f"the ClientHello has extension {kind} more than once")
        extensions[kind] = value
    return extensions


def _read_server_name(extension: bytes) -> str | None:
    """Return the host name in an extension server_name (RFC 6066, section 3).

    Names of other types, of which there are none so far, have a length of two bytes as well, and are ignored.
    """
    names = _take_only_vector(extension, "server names")
    host_name = None
    position = 0
    while position < len(names):
        kind = names[position]
        name, position = _take_vector(names, position + 1, 2, "server names")
        if kind != _HOST_NAME:
            continue
        if host_name is not None:
            raise _illegal("the ClientHello has more than one host name")
        host_name = name
    return None if host_name is None else _normalise(host_name)


def _normalise(host_name: bytes) -> str:
    if len(host_name) > _MAX_HOST_NAME or not _HOST_NAMES.fullmatch(host_name):
        text = f"the ClientHello's server name is no host name: {host_name[:_MAX_HOST_NAME]!r}"
        raise BadClientHello(text, alert=AlertDescription.UNRECOGNIZED_NAME)
    return host_name.decode("ascii").lower().removesuffix(".")


def _read_protocols(extension: bytes) -> tuple[bytes, ...]:
    """Return the protocols in an extension application_layer_protocol_negotiation (RFC 7301, section 3.1)."""
    names = _take_only_vector(extension, "protocols")
    protocols = []
    position = 0
    while position < len(names):
        protocol, position = _take_vector(names, position, 1, "protocols")
        if not protocol:
            raise _malformed("the ClientHello offers a protocol without a name")
        protocols.append(protocol)
    return tuple(protocols)
