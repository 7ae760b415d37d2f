"""Hellos of programs that are in use: Python's ssl, `openssl s_client`, curl."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest

from otun.tls.client_hello import AlertDescription, ClientHello, ClientHelloReader, fatal_alert

from .hello_wire import bytewise
from .reading import outcome, read
from .terminator import Seen, Terminator, anonymous

LIMIT = 20.0
"""Seconds for a program to connect, to speak and to end."""

CHANGES: dict[str, Callable[[ssl.SSLContext], object]] = {
    "as it is": lambda context: None,
    "with ALPN": lambda context: context.set_alpn_protocols(["h2", "http/1.1"]),
    "TLS 1.2": lambda context: setattr(context, "maximum_version", ssl.TLSVersion.TLSv1_2),
    "TLS 1.3": lambda context: setattr(context, "minimum_version", ssl.TLSVersion.TLSv1_3),
}


def first_bytes(context: ssl.SSLContext, server_name: str | None) -> bytes:
    """What Python's ssl sends first."""
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("asked_for", "read_as"),
    [
        ("blue.example.org", "blue.example.org"),
        ("Blue.Example.ORG", "blue.example.org"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("192.0.2.1", None),
        ("::1", None),
        (None, None),
    ],
)
def test_a_hello_of_pythons_ssl_is_read(change: str, asked_for: str | None, read_as: str | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    CHANGES[change](context)
    data = first_bytes(context, asked_for)
    expected = ClientHello(read_as, (b"h2", b"http/1.1") if change == "with ALPN" else ())
    assert outcome([data]) == outcome(bytewise(data)) == expected


def test_a_replayed_hello_is_answered_as_if_nobody_had_read_it() -> None:
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    client = anonymous(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(client_in, client_out, server_hostname="blue.example.org")
    server = Terminator().context.wrap_bio(server_in, server_out, server_side=True)
    reader = ClientHelloReader()
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert reader.feed(client_out.read()) == ClientHello("blue.example.org")
    server_in.write(reader.received)
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client_in.write(server_out.read())
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    server_in.write(client_out.read())
    server.do_handshake()
    client_in.write(server_out.read())
    client.do_handshake()
    client.write(b"hello")
    server_in.write(client_out.read())
    assert server.read() == b"hello"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("alert", AlertDescription)
def test_clients_understand_why_they_are_refused(alert: AlertDescription, change: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CHANGES[change](context)
    incoming = ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="blue.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    incoming.write(fatal_alert(alert))
    with pytest.raises(ssl.SSLError) as caught:
        connection.do_handshake()
    assert caught.value.reason.endswith(f"_ALERT_{alert.name}") or caught.value.reason == f"TLSV1_{alert.name}"


def say_to(*command: str, answer: bytes = b"") -> tuple[bytes, str]:
    """Run *command*, in which PORT is the port to connect to; return what it sent first, and what it printed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        port = str(listener.getsockname()[1])
        with subprocess.Popen(
            [word.replace("PORT", port) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as program:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(LIMIT)
                    reader = ClientHelloReader()
                    while reader.feed(connection.recv(65_536)) is None:
                        pass
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    printed, _ = program.communicate(timeout=LIMIT)
            finally:
                program.kill()
    return reader.received, printed


@pytest.mark.interop
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-servername", "Blue.example.org"], ClientHello("blue.example.org")),
        (["-servername", "blue.example.org."], ClientHello("blue.example.org")),
        (["-noservername"], ClientHello(None)),
        (["-servername", "a", "-alpn", "h2,http/1.1"], ClientHello("a", (b"h2", b"http/1.1"))),
        (["-servername", "a", "-tls1_2", "-alpn", "h2"], ClientHello("a", (b"h2",))),
        (["-servername", "a", "-tls1_3"], ClientHello("a")),
        (["-servername", "a", "-tls1", "-cipher", "ALL:@SECLEVEL=0"], ClientHello("a")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_hello_of_s_client_is_read(options: list[str], expected: ClientHello) -> None:
    data, _ = say_to("openssl", "s_client", "-connect", "127.0.0.1:PORT", *options)
    assert outcome([data]) == outcome(bytewise(data)) == expected
    if "-tls1" not in options:  # which OpenSSL still speaks when told to, but does not serve
        seen = Terminator().see(data)
        assert isinstance(seen, Seen)
        assert seen.server_name == (None if "-noservername" in options else options[1])


@pytest.mark.interop
def test_s_client_says_what_the_alert_says() -> None:
    alert = fatal_alert(AlertDescription.UNRECOGNIZED_NAME)
    _, printed = say_to("openssl", "s_client", "-connect", "127.0.0.1:PORT", "-servername", "a", answer=alert)
    assert "unrecognized name" in printed


@pytest.mark.interop
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--http1.1"], ClientHello("blue.example.org", (b"http/1.1",))),
        (["--http2"], ClientHello("blue.example.org", (b"h2", b"http/1.1"))),
        (["--no-alpn", "--tls-max", "1.2"], ClientHello("blue.example.org")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_hello_of_curl_is_read(options: list[str], expected: ClientHello) -> None:
    address = ["--resolve", "blue.example.org:PORT:127.0.0.1", "https://blue.example.org:PORT/"]
    data, printed = say_to("curl", "--silent", "--show-error", *options, *address, answer=fatal_alert(112))
    assert read(data) == expected
    assert "unrecognized name" in printed
