"""What the caller hears when a `TlsSocket`'s handshake fails."""

import errno
import ssl

import pytest

from otun.switchboard import TlsAlert, TlsBuffers, TlsSocket, TlsVerificationError
from otun.switchboard.tls_errors import explain_tls_error

from .tls_peers import (
    HOST,
    VERSIONS,
    client_context,
    finish_handshakes,
    is_empty,
    server_context,
    socket_pair,
    try_once,
)

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10, "unexpected message"),
        (40, "handshake failure"),
        (48, "unknown ca"),
        (80, "internal error"),
        (110, "unsupported extension"),
        (112, "unrecognized name"),
        (116, "certificate required"),
    ],
)
def test_the_alert_that_refuses_a_client_is_told(code: int, words: str) -> None:
    """RFC 8446, section 6.2."""
    ours, theirs = socket_pair()
    with TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST) as sock, theirs:
        assert not try_once(sock.handshake)
        theirs.send(b"\x15\3\3\0\2\2" + bytes([code]))
        with pytest.raises(TlsAlert) as raised:
            sock.handshake()
        assert raised.value.strerror == f"the other side said: {words}"


def test_a_goodbye_instead_of_a_handshake_is_told() -> None:
    ours, theirs = socket_pair()
    with TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST) as sock, theirs:
        assert not try_once(sock.handshake)
        theirs.send(b"\x15\3\3\0\2\1\0")
        with pytest.raises(ConnectionAbortedError, match="the other side has ended the connection"):
            sock.handshake()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ssl.SSLCertVerificationError(), TlsVerificationError, "the certificate is not valid"),
        (ssl.SSLError(), OSError, "it failed"),
        (ssl.SSLEOFError(), OSError, "it failed"),
    ],
)
def test_errors_that_explain_nothing_are_explained_all_the_same(
    error: ssl.SSLError, kind: type[OSError], text: str
) -> None:
    for name in ("reason", "verify_message"):
        if not hasattr(error, name):
            setattr(error, name, None)
    explained = explain_tls_error(error)
    assert type(explained) is kind
    assert explained.strerror == text


@pytest.mark.parametrize(
    ("begins_with", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "it speaks HTTP, not TLS"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not speak TLS"),
        (b"\0" * 100, "it does not speak TLS"),
    ],
)
def test_a_client_that_speaks_something_else_is_told_so(begins_with: bytes, reason: str) -> None:
    ours, theirs = socket_pair()
    with TlsSocket(ours, server_context(), TlsBuffers(), is_server=True) as sock, theirs:
        theirs.send(begins_with)
        with pytest.raises(OSError, match=reason) as raised:
            sock.handshake()
        assert raised.value.errno == errno.EPROTO
        assert isinstance(raised.value.__cause__, ssl.SSLError)


@versions
def test_the_peer_is_told_by_an_alert_what_is_wrong_with_its_certificate(version) -> None:
    ours, theirs = socket_pair()
    client = TlsSocket(ours, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), TlsBuffers(), is_server=False, server_name=HOST)
    server = TlsSocket(theirs, server_context(version), TlsBuffers(), is_server=True)
    with client, server:
        assert not try_once(client.handshake)
        assert not try_once(server.handshake)
        with pytest.raises(TlsVerificationError, match="unable to get local issuer certificate"):
            client.handshake()
        with pytest.raises(TlsAlert, match="the other side said: unknown ca"):
            server.handshake()


@pytest.mark.parametrize(
    ("server_name", "is_right"),
    [(HOST, True), ("127.0.0.1", True), ("::1", True), ("other.example", False), ("127.0.0.2", False)],
)
def test_the_certificate_must_be_for_the_name_or_address(server_name: str, is_right: bool) -> None:
    ours, theirs = socket_pair()
    client = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=server_name)
    server = TlsSocket(theirs, server_context(), TlsBuffers(), is_server=True)
    with client, server:
        if is_right:
            finish_handshakes(client, server)
            assert client.peer_certificate is not None
            assert server.peer_certificate is None
        else:
            with pytest.raises(TlsVerificationError, match="match"):
                finish_handshakes(client, server)


@pytest.mark.parametrize("server_name", ["", ".example", "a..example", "a" * 64 + ".example"])
def test_a_name_that_is_none_is_a_value_error_and_the_socket_stays_the_callers(server_name: str) -> None:
    ours, theirs = socket_pair()
    with ours, theirs:
        buffers = TlsBuffers()
        with pytest.raises(ValueError, match=r"server_hostname|label"):
            TlsSocket(ours, client_context(), buffers, is_server=False, server_name=server_name)
        ours.send(b"still open")
        assert theirs.recv(100) == b"still open"
        assert is_empty(buffers)
