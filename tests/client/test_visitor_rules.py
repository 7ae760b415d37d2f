"""Rules about visitors, as a client asks for them: hashed, confirmed by the server, or no tunnel at all."""

import json
from functools import partial

import attrs
import pytest
import trio

from otun import (
    ConfigurationError,
    OtunError,
    SessionClosed,
    TcpAddress,
    TunnelSettings,
    TunnelUnprotected,
    forward,
    open_session,
    open_tunnel,
    open_tunnels,
)

from ..access.logins import authorization, cheap_login
from ..server.harness import RunningServer
from ..server.services import answering
from ..server.visitors import fetch
from .support import forward_until_end

ANN = cheap_login("ann", "s3cret")


async def test_passwords_are_hashed_before_they_are_sent(server: RunningServer, nursery, start_service) -> None:
    service = await start_service(answering(b"hello"))
    settings = TunnelSettings(name="app", basic_auth=["José:pässwörd", ANN])
    await nursery.start(partial(forward_until_end, server.control, service.address, settings=settings))
    for field in (authorization("José", "pässwörd"), authorization("ann", "s3cret")):
        assert (await fetch(server.public, "/", field)).text == "hello"
    assert (await fetch(server.public, "/", authorization("ann", "pässwörd"))).status == 401
    await server.stop()


@attrs.frozen
class OldServer:
    """A server that knows nothing of rules about visitors: it takes every tunnel, and tells what it was asked."""

    address: TcpAddress
    requests: list[dict[str, object]]
    streams: list[bool]


@pytest.fixture
async def old_server(nursery: trio.Nursery) -> OldServer:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    old = OldServer(TcpAddress(*listener.socket.getsockname()[:2]), [], [])

    async def serve(transport: trio.SocketStream) -> None:
        async with open_session(transport, "server") as session:
            try:
                control = await session.accept()
                received = b""
                while True:
                    piece = await control.receive_some()
                    if not piece:
                        return
                    received += piece
                    *lines, received = received.split(b"\n")
                    for line in lines:
                        old.requests.append(json.loads(line))
                        fields = {"url": "http://app.example", "subdomain": "app", "stream_header": True}
                        fields["id"] = old.requests[-1].get("id", "")
                        await control.send_all(json.dumps({"type": "registered", **fields}).encode() + b"\n")
                        stream = await session.open_stream()  # A visitor comes at once.
                        await stream.send_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            except SessionClosed:
                old.streams.append(True)

    nursery.start_soon(trio.serve_listeners, serve, [listener])
    return old


RULES = [
    {"basic_auth": [ANN]},
    {"allow_ip": ["10.0.0.0/8"]},
    {"deny_ip": ["::1"]},
    {"require_header": ["X-Key: k3y"]},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
async def test_a_server_that_does_not_know_of_rules_ends_the_tunnel(
    engine: str, nursery: trio.Nursery, old_server: OldServer, rules: dict[str, list[str]], start_service
) -> None:
    service = await start_service(answering(b"hello"))
    (name,) = rules
    with pytest.raises(
        TunnelUnprotected, match=f"without {name.replace('_', '-')}: it does not know of that"
    ) as caught:
        await forward(old_server.address, service.address, TunnelSettings(**rules))
    assert isinstance(caught.value, OtunError)
    assert "s3cret" not in str(caught.value)
    assert service.accepted == 0
    assert len(old_server.requests) == 1
    nursery.cancel_scope.cancel()


async def test_so_does_it_with_a_further_tunnel(engine: str, nursery: trio.Nursery, old_server: OldServer) -> None:
    with pytest.raises(TunnelUnprotected, match="without basic-auth, allow-ip"):
        async with open_tunnels(
            old_server.address, [TunnelSettings(), TunnelSettings(basic_auth=[ANN], allow_ip=["::1"])]
        ):
            raise AssertionError("the tunnels are open")
    assert len(old_server.requests) == 2
    nursery.cancel_scope.cancel()


async def test_without_rules_an_old_server_will_do(engine: str, nursery: trio.Nursery, old_server: OldServer) -> None:
    async with open_tunnel(old_server.address) as tunnel:
        assert tunnel.name == "app"
    assert set(old_server.requests[0]) == {"type", "stream_header", "health", "resume"}
    nursery.cancel_scope.cancel()


async def test_what_is_sent_is_no_password(engine: str, nursery: trio.Nursery, old_server: OldServer) -> None:
    with pytest.raises(TunnelUnprotected):
        async with open_tunnel(old_server.address, TunnelSettings(basic_auth=["ann:s3cret", "bob:0ther"])):
            pass
    sent = json.dumps(old_server.requests)
    assert "s3cret" not in sent
    assert "0ther" not in sent
    logins = old_server.requests[0]["basic_auth"]
    assert [login.partition(":")[0] for login in logins] == ["ann", "bob"]
    assert all(":$argon2id$v=19$m=19456,t=2,p=1$" in login for login in logins)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "settings",
    [
        {"basic_auth": ["s3cret"]},
        {"basic_auth": ["ann:$2y$s3cret"]},
        {"basic_auth": ["ann:s3cret", "ann:0ther"]},
        {"allow_ip": ["nowhere"]},
        {"deny_ip": ["10.0.0.1/8"]},
        {"require_header": ["s3cret value"]},
        {"kind": "tcp", "basic_auth": ["ann:s3cret"]},
        {"kind": "tls", "require_header": ["X-Key: s3cret"]},
    ],
    ids=range(8),
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TunnelSettings(**settings)
    assert "s3cret" not in str(caught.value)


def test_settings_show_no_secret() -> None:
    settings = TunnelSettings(basic_auth=["ann:s3cret"], require_header=["X-Key: s3cret"], allow_ip=["::1"])
    assert "s3cret" not in repr(settings)
    assert "::1/128" in repr(settings)


async def test_a_tcp_tunnel_takes_addresses(server: RunningServer) -> None:
    settings = TunnelSettings(kind="tcp", deny_ip=["127.0.0.1"])
    async with open_tunnel(server.control, settings) as tunnel:
        port = int(tunnel.url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
            assert await visitor.receive_some() == b""
