"""Whom the client believes to be its server, and that it says nothing before."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from otun import (
    CertificateFiles,
    ConfigurationError,
    Fingerprint,
    OtunError,
    ServerNotTrusted,
    ServerUnreachable,
    TcpAddress,
    Trust,
    TunnelSettings,
    forward,
    open_tunnel,
)
from otun.yamux.frames import PING, encode_header

from ..server.fixtures import StartServer, StartService
from ..server.harness import RunningServer, open_descriptors
from ..tls.issuing import Authority, certificate_of, fingerprint_of
from .proxy_servers import Proxy
from .support import Names
from .wrong_servers import start_impostor, start_plain

HINT = "(see --fingerprint and --ca)"


async def fail_to_open(
    server: TcpAddress, trust: Trust | None, error: type[OtunError] = ServerNotTrusted, **options: object
) -> str:
    """Try to open a tunnel with a token; why it did not."""
    with pytest.raises(error) as caught:
        async with open_tunnel(server, name="app", token="SECRET", trust=trust, **options):
            raise AssertionError("the tunnel has opened")
    text = str(caught.value)
    assert text.isprintable()
    assert "SECRET" not in text
    return text


# Who is not believed

WRONG = {
    "another authority's": "unable to get local issuer certificate",
    "for another name": "IP address mismatch, certificate is not valid for '127.0.0.1'.",
    "expired": "certificate has expired",
    "too early": "certificate is not yet valid",
}


def wrong_certificate(kind: str, authority: Authority, stranger: Authority) -> CertificateFiles:
    match kind:
        case "another authority's":
            return stranger.issue("127.0.0.1")
        case "for another name":
            return authority.issue("otun.example", "127.0.0.2", "localhost")
        case "expired":
            return authority.issue_expired("127.0.0.1")
        case _:
            return authority.issue_too_early("127.0.0.1")


@pytest.mark.parametrize("kind", WRONG)
async def test_a_server_with_a_wrong_certificate_is_told_nothing(
    engine, start_service: StartService, authority: Authority, stranger: Authority, kind: str
) -> None:
    heard = await start_impostor(start_service, wrong_certificate(kind, authority, stranger))
    text = await fail_to_open(heard.address, Trust(ca=authority.path))
    assert text == f"cannot trust the server at {heard.address}: {WRONG[kind]} {HINT}"
    assert await heard.all_of_it() == b""


@pytest.mark.parametrize("kind", WRONG)
async def test_a_wrong_certificate_is_a_line_in_the_servers_log(
    start_server: StartServer, authority: Authority, stranger: Authority, server_log, kind: str
) -> None:
    server = await start_server(certificates=(wrong_certificate(kind, authority, stranger),))
    await fail_to_open(server.control, Trust(ca=authority.path))
    alert = {"another authority's": "unknown ca", "expired": "certificate expired"}.get(kind, "bad certificate")
    assert await server_log.wait_for(1) == [f"client: ended before it was encrypted: the other side said: {alert}"]


async def test_a_self_made_certificate_is_not_believed_without_its_fingerprint(
    start_server: StartServer, authority: Authority, tmp_path: Path, server_log
) -> None:
    server = await start_server(state=tmp_path / "state")
    for trust in (Trust(), Trust(ca=authority.path)):
        text = await fail_to_open(server.control, trust)
        assert text == f"cannot trust the server at {server.control}: self-signed certificate {HINT}"
    line = "client: ended before it was encrypted: the other side said: unknown ca"
    assert await server_log.wait_for(2) == [line, line]


@pytest.mark.parametrize("which", ["another", "the authority's", "one bit", "the first half", "the second half"])
async def test_a_server_with_another_fingerprint_is_told_nothing(
    engine, start_service: StartService, authority: Authority, which: str
) -> None:
    files = authority.issue("127.0.0.1")
    right = fingerprint_of(files).digest
    other = fingerprint_of(authority.issue("127.0.0.1")).digest
    asked = {
        "another": other,
        "the authority's": Fingerprint.of(ssl.PEM_cert_to_DER_cert(authority.path.read_text())).digest,
        "one bit": right[:-1] + bytes([right[-1] ^ 1]),
        "the first half": right[:16] + other[16:],
        "the second half": other[:16] + right[16:],
    }[which]
    heard = await start_impostor(start_service, files)
    text = await fail_to_open(heard.address, Trust(fingerprint=Fingerprint(asked)))
    assert text == (
        f"cannot trust the server at {heard.address}: its certificate's fingerprint is {fingerprint_of(files)} {HINT}"
    )
    assert await heard.all_of_it() == b""


async def test_another_fingerprint_is_a_line_in_the_servers_log(
    encrypted: RunningServer, authority: Authority, server_log
) -> None:
    await fail_to_open(encrypted.control, Trust(fingerprint=fingerprint_of(authority.issue("127.0.0.1"))))
    assert await server_log.wait_for(1) == ["client: ended: the peer closed the connection"]


GREETINGS = {
    "yamux": (encode_header(PING, 0, 0, 1), "it does not speak TLS"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak TLS"),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "it does not speak TLS"),
    "an alert": (bytes.fromhex("15 0303 0002 02 46"), "the other side said: no common version of TLS"),
    "an alert that Python does not know": (
        bytes.fromhex("15 0303 0002 02 78"),
        "the other side said: no application protocol",
    ),
}


@pytest.mark.parametrize("kind", GREETINGS)
async def test_the_client_never_falls_back_to_what_the_server_speaks(
    engine, start_service: StartService, authority: Authority, kind: str
) -> None:
    greeting, problem = GREETINGS[kind]
    heard = await start_plain(start_service, greeting)
    text = await fail_to_open(heard.address, Trust(ca=authority.path), ServerUnreachable)
    assert text == f"cannot reach the server at {heard.address}: TLS failed: {problem}"
    assert await heard.all_of_it() == b""


async def test_a_server_that_goes_in_the_middle_of_the_handshake(
    engine, start_service: StartService, authority: Authority
) -> None:
    async def go(connection: trio.SocketStream) -> None:
        await connection.receive_some()
        await connection.aclose()

    service = await start_service(go)
    text = await fail_to_open(service.address, Trust(ca=authority.path), ServerUnreachable)
    assert text == (
        f"cannot reach the server at {service.address}: TLS failed: the connection ended during the handshake"
    )
    assert service.accepted == 1


async def test_a_server_that_does_not_answer_the_handshake(
    engine, start_service: StartService, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.link.FIRST_CONNECT_TIMEOUT", 0.2)
    heard = await start_plain(start_service, b"")
    text = await fail_to_open(heard.address, Trust(ca=authority.path), ServerUnreachable)
    assert text == f"cannot reach the server at {heard.address}: TLS took too long"
    assert await heard.all_of_it() == b""


async def test_failures_and_a_cancelled_handshake_leave_nothing_open(
    engine, start_service: StartService, authority: Authority, stranger: Authority
) -> None:
    silent = await start_plain(start_service, b"")
    impostor = await start_impostor(start_service, stranger.issue("127.0.0.1"))
    before = open_descriptors()
    for _ in range(10):
        await fail_to_open(impostor.address, Trust(ca=authority.path))
        await fail_to_open(impostor.address, Trust(fingerprint=Fingerprint(bytes(32))))
        await fail_to_open(impostor.address, Trust(ca=authority.folder / "none"), ConfigurationError)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_ever, silent.address, Trust(ca=authority.path))
            while not silent.plain:
                await trio.lowlevel.checkpoint()
            silent.plain.clear()
            nursery.cancel_scope.cancel()
    while len(open_descriptors()) > len(before):
        await trio.lowlevel.checkpoint()


async def wait_for_ever(server: TcpAddress, trust: Trust) -> None:
    async with open_tunnel(server, trust=trust):
        raise AssertionError("the tunnel has opened")


# Who is believed


@pytest.mark.parametrize("kind", ["right", *WRONG])
async def test_a_fingerprint_takes_the_place_of_all_other_checks(
    start_server: StartServer, authority: Authority, stranger: Authority, kind: str
) -> None:
    files = authority.issue("127.0.0.1") if kind == "right" else wrong_certificate(kind, authority, stranger)
    server = await start_server(certificates=(files,))
    assert server.server.fingerprint == fingerprint_of(files)
    async with open_tunnel(server.control, trust=Trust(fingerprint=fingerprint_of(files))):
        pass


async def test_a_server_is_known_by_the_fingerprint_of_the_certificate_that_it_has_made(
    start_server: StartServer, tmp_path: Path
) -> None:
    for _ in range(2):  # It is the same the next time.
        server = await start_server(state=tmp_path / "state")
        assert server.server.is_self_made
        async with open_tunnel(server.control, trust=Trust(fingerprint=server.server.fingerprint)):
            pass
        await server.stop()


async def test_the_file_of_authorities_may_hold_the_servers_own_certificate(
    start_server: StartServer, authority: Authority
) -> None:
    one, two = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    (authority.folder / "one.pem").write_text(certificate_of(one))
    trust = Trust(ca=authority.folder / "one.pem")
    server = await start_server(certificates=(one,))
    async with open_tunnel(server.control, trust=trust):
        pass
    other = await start_server(certificates=(two,))
    await fail_to_open(other.control, trust)


async def test_the_servers_own_certificate_must_have_its_name_all_the_same(
    start_server: StartServer, authority: Authority
) -> None:
    files = authority.issue("otun.example")
    (authority.folder / "one.pem").write_text(certificate_of(files))
    server = await start_server(certificates=(files,))
    assert "IP address mismatch" in await fail_to_open(server.control, Trust(ca=authority.folder / "one.pem"))


NAMES = {
    "otun.example": True,
    "OTUN.example": True,
    "otun.example.": True,
    "a.otun.example": True,
    "a.b.otun.example": False,
    "example": False,
    "xotun.example": False,
}


@pytest.mark.parametrize("name", NAMES)
async def test_a_certificate_must_be_for_the_name_that_was_asked_for(
    start_server: StartServer, authority: Authority, name: str
) -> None:
    server = await start_server(certificates=(authority.issue("otun.example", "*.otun.example"),))
    Names(**{name: ["127.0.0.1"]})
    address = TcpAddress(name, server.control.port)
    if NAMES[name]:
        async with open_tunnel(address, trust=Trust(ca=authority.path)):
            pass
    else:
        text = await fail_to_open(address, Trust(ca=authority.path))
        assert f": Hostname mismatch, certificate is not valid for '{name}'. {HINT}" in text


async def test_the_systems_authorities_count_unless_others_are_given(
    start_server: StartServer, authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server(certificates=(authority.issue("otun.example"),))
    Names(**{"otun.example": ["127.0.0.1"]})
    address = TcpAddress("otun.example", server.control.port)
    monkeypatch.setenv("SSL_CERT_DIR", str(authority.folder / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    async with open_tunnel(address):
        pass
    await fail_to_open(address, Trust(ca=stranger.path))
    monkeypatch.setenv("SSL_CERT_FILE", str(stranger.path))
    await fail_to_open(address, None)


# When there is no TLS


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "app.localhost"])
async def test_this_machine_is_reached_without_tls(server: RunningServer, host: str) -> None:
    Names(**{host: ["127.0.0.1"], "127.0.0.1": ["127.0.0.1"]})
    async with open_tunnel(TcpAddress(host, server.control.port)):
        pass


@pytest.fixture
def outer_address() -> str:
    """An address of this machine that others might have, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # Nothing is sent.
        except OSError:
            pytest.skip("this machine is in no network")
        return str(sock.getsockname()[0])


@asynccontextmanager
async def listening_outside(host: str) -> AsyncIterator[tuple[TcpAddress, bytearray]]:
    """Listen on that address, and keep what comes."""
    heard = bytearray()

    async def listen(connection: trio.SocketStream) -> None:
        heard.extend(await connection.receive_some())
        await connection.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host=host)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, listen, [listener])
        yield TcpAddress(host, listener.socket.getsockname()[1]), heard
        nursery.cancel_scope.cancel()


async def test_a_name_for_this_machine_that_leads_elsewhere_is_reached_with_tls(engine, outer_address: str) -> None:
    async with listening_outside(outer_address) as (address, heard):
        for name in ("localhost", "app.localhost"):
            Names(**{name: [outer_address]})
            await fail_to_open(TcpAddress(name, address.port), None, ServerUnreachable)
            assert heard[:1] == b"\x16"
            heard.clear()


async def test_any_other_name_is_reached_with_tls_although_it_is_this_machine(engine, start_service) -> None:
    heard = await start_plain(start_service, b"SSH-2.0\r\n")
    Names(**{"otun.example": ["127.0.0.1"]})
    await fail_to_open(TcpAddress("otun.example", heard.address.port), None, ServerUnreachable)
    assert await heard.all_of_it() == b""


async def test_plaintext_and_trust_exclude_each_other(engine, server: RunningServer, authority: Authority) -> None:
    for trust in (Trust(), Trust(ca=authority.path), Trust(fingerprint=Fingerprint(bytes(32)))):
        text = await fail_to_open(server.control, trust, ConfigurationError, plaintext=True)
        assert text == "without TLS nothing can be checked: plaintext and trust exclude each other"


# The rest of the library


async def test_forward_checks_as_open_tunnel_does(
    engine, start_service: StartService, authority: Authority, stranger: Authority
) -> None:
    heard = await start_impostor(start_service, stranger.issue("127.0.0.1"))
    with pytest.raises(ServerNotTrusted):
        await forward(heard.address, 9, TunnelSettings(name="app"), token="SECRET", trust=Trust(ca=authority.path))
    assert await heard.all_of_it() == b""


async def test_the_server_is_checked_behind_a_proxy(
    engine, start_service: StartService, nursery: trio.Nursery, authority: Authority, stranger: Authority
) -> None:
    heard = await start_impostor(start_service, stranger.issue("otun.example"))
    proxy = Proxy(heard.address)
    await proxy.start(nursery, proxy.serve_http)
    await fail_to_open(TcpAddress("otun.example", 443), Trust(ca=authority.path), proxy=f"http://{proxy.address}")
    assert proxy.asked == ["otun.example:443"]
    assert await heard.all_of_it() == b""
