"""Clients that speak TLS, and those that should, on a port that tells them apart by a byte."""

import socket
import ssl
from pathlib import Path

import pytest
import trio

from otun import (
    RegistrationRefused,
    TcpAddress,
    Trust,
    open_tunnel,
)
from otun.yamux.frames import PING, SYN, encode_header

from ..tls.issuing import Authority
from .certificates import TlsVisitor
from .fixtures import StartServer
from .harness import RunningServer
from .log_lines import LogLines
from .raw_client import raw_client, registered_client
from .services import answering, receive_all
from .test_strangers import client_hello
from .tls_client import (
    EVERYWHERE,
    TLS_1_2,
    TLS_1_3,
    TLS_REQUIRED,
    connect_tls,
    context_for,
    encrypted_client,
    fail_to_start,
    fetch_https,
    reached,
    see_refusal,
)
from .visitors import connect, fetch

OLD_VERSION = ssl.TLSVersion.TLSv1_1


@pytest.fixture
async def public_server(start_server: StartServer, tmp_path: Path) -> RunningServer:
    """A server whose control port other machines reach."""
    return await start_server(control=EVERYWHERE, state=tmp_path / "state")


@pytest.mark.parametrize("versions", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
async def test_one_port_serves_clients_with_tls_and_without(
    encrypted: RunningServer, authority: Authority, nursery: trio.Nursery, versions: tuple[ssl.TLSVersion, ...]
) -> None:
    context = context_for(authority.path, versions=versions)
    async with registered_client(encrypted.control, "plain") as plain:
        nursery.start_soon(plain.serve, answering(b"plain"))
        async with encrypted_client(encrypted.control, context) as secret:
            assert (await secret.register("secret"))["type"] == "registered"
            nursery.start_soon(secret.serve, answering(b"secret"))
            assert (await fetch(encrypted.public, host="plain.localhost")).body == b"plain"
            assert (await fetch(encrypted.public, host="secret.localhost")).body == b"secret"


async def test_a_client_hello_may_come_byte_by_byte(encrypted: RunningServer) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", encrypted.control.port) as stream:
        for byte in client_hello():
            await stream.send_all(bytes([byte]))
        assert (await stream.receive_some(1)) == b"\x16"


async def test_a_port_that_others_reach_tells_clients_without_tls_that_they_need_it(
    public_server: RunningServer, server_log: LogLines
) -> None:
    async with raw_client(reached(public_server.control)) as client:
        await client.say({"type": "register", "subdomain": "app", "token": "SECRET"})
        answer = await client.hear_farewell()
    assert answer["code"] == "tls_required"
    assert answer["message"] == TLS_REQUIRED
    assert not answer.get("retryable", False)
    assert await server_log.wait_for(1) == [f"client: refused: {TLS_REQUIRED}"]
    assert (await fetch(public_server.public)).status == 404


async def test_our_client_without_tls_is_refused_by_a_port_that_others_reach(public_server: RunningServer) -> None:
    with pytest.raises(RegistrationRefused, match=r"^this server takes encrypted connections only: ") as caught:
        async with open_tunnel(reached(public_server.control), plaintext=True):
            pass
    assert caught.value.code == "tls_required"
    assert not caught.value.is_retryable


async def test_a_port_that_others_reach_takes_clients_without_tls_if_it_is_told_to(start_server: StartServer) -> None:
    server = await start_server(control=EVERYWHERE, allow_plaintext=True, open=True)
    async with registered_client(reached(server.control)):
        pass


async def test_a_port_that_others_reach_must_have_a_certificate_or_a_place_for_one() -> None:
    assert await fail_to_start(control=EVERYWHERE) == (
        "a control port that other machines reach needs a certificate, or a state folder for one of its own"
    )


async def test_a_client_with_tls_is_told_that_the_server_has_no_certificate(
    server: RunningServer, authority: Authority, server_log: LogLines
) -> None:
    text = await see_refusal(server.control, Trust(ca=authority.path))
    assert text == (f"cannot reach the server at {server.control}: TLS failed: the other side said: unrecognized name")
    assert await server_log.wait_for(1) == [
        "client: ended before it was encrypted: it wants TLS, for which this server has no certificate; "
        "--state DIR gives it one"
    ]


# The HTTPS port, shared


@pytest.fixture
async def shared(start_server: StartServer, authority: Authority) -> RunningServer:
    """A server that takes one visitor at a time, or a client that has not registered yet, by HTTPS."""
    certificate = authority.issue("app.localhost", "127.0.0.1")
    return await start_server(https=TcpAddress("127.0.0.1", 0), certificates=(certificate,), max_connections=1)


async def test_clients_and_visitors_share_the_https_port(
    shared: RunningServer, authority: Authority, nursery: trio.Nursery
) -> None:
    (https,) = shared.server.https_addresses
    context = context_for(authority.path, alpn=["otun/1"])
    async with encrypted_client(https, context) as client:
        assert (await client.register("app"))["type"] == "registered"
        nursery.start_soon(client.serve, answering(b"by way of one port"))
        # The client does not take up the room of a visitor.
        assert (await fetch_https(https, authority.path)).endswith(b"by way of one port")
        async with open_tunnel(https, name="other", trust=Trust(ca=authority.path)) as tunnel:
            assert tunnel.name == "other"


async def test_who_does_not_ask_for_our_protocol_is_a_visitor(shared: RunningServer, authority: Authority) -> None:
    (https,) = shared.server.https_addresses
    for alpn in ([], ["http/1.1"], ["otun/2", "http/1.1"]):
        stream = await connect_tls(https, context_for(authority.path, alpn=alpn))
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n")
            assert (await receive_all(stream)).startswith(b"HTTP/1.1 404 ")


async def test_clients_who_fail_leave_the_https_port_to_others(
    shared: RunningServer, authority: Authority, stranger: Authority
) -> None:
    (https,) = shared.server.https_addresses
    for _ in range(3):
        with pytest.raises(trio.BrokenResourceError):
            await connect_tls(https, context_for(stranger.path, alpn=["otun/1"]))
    while True:  # The server may learn of the last one's end after the next one's beginning.
        try:
            assert b"404" in await fetch_https(https, authority.path)
        except trio.BrokenResourceError:
            continue
        return


async def test_clients_by_https_count_when_their_handshakes_end_and_not_only_when_they_begin(
    start_server: StartServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.client_gate.MAX_UNREGISTERED", 1)
    certificate = authority.issue("app.localhost", "127.0.0.1")
    server = await start_server(https=TcpAddress("127.0.0.1", 0), certificates=(certificate,))
    (https,) = server.server.https_addresses
    context = context_for(authority.path, alpn=["otun/1"])
    async with await connect(https) as one, await connect(https) as other:
        first, second = (TlsVisitor(sock, context, "app.localhost") for sock in (one, other))
        for visitor in (first, second):
            await visitor.sock.send_all(visitor.hello())
            await visitor.sock.socket.recv(1, socket.MSG_PEEK)  # It is answered, so that it has been let in.
        await first.shake_hands()
        await first.send_all(encode_header(PING, SYN, 0, 1))
        assert await first.receive_some()
        await second.shake_hands()
        assert await second.receive_some() == b""


# Versions


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_an_old_version_is_refused_with_a_line_for_each_end(
    encrypted: RunningServer, authority: Authority, server_log: LogLines
) -> None:
    with pytest.raises(trio.BrokenResourceError) as caught:
        await connect_tls(encrypted.control, context_for(authority.path, versions=(OLD_VERSION,)))
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert caught.value.__cause__.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert await server_log.wait_for(1) == ["client: ended before it was encrypted: no common version of TLS"]
