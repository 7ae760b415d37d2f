"""Other settings for a server that runs."""

from ipaddress import ip_network
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from otun import CertificateFiles, ConfigurationError, HttpTimeouts, ServerSettings, TcpAddress, open_tunnel
from otun.server.hub import Hub
from otun.server.knowledge import Knowledge
from otun.tls.trust import Trust

from ..tls.issuing import Authority
from .certificates import names_shown
from .conversation import Conversation, tenant
from .edges import NAME, Edge, StartEdge
from .harness import LOOPBACK, RunningServer, loopback_settings
from .log_lines import LogLines
from .raw_client import raw_client, registered_client
from .services import receive_head, response
from .visitors import Responses, connect, fetch, request

TOKEN = "s3cret"


async def reload(server: RunningServer, **changes: object) -> None:
    await server.server.reload(loopback_settings(**changes))


async def status_of(server: RunningServer) -> int:
    return (await fetch(server.public, host="app.localhost")).status


async def test_connections_that_are_there_go_on(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await reload(server, max_connections=7)
        await stream.send_all(response(b"hello"))
        responses = Responses(visitor)
        assert (await responses.next()).body == b"hello"
        await visitor.send_all(request())
        await receive_head(stream)
        await stream.send_all(response(b"again"))
        answer = await responses.next()
        assert (answer.body, answer.fields.get("Connection")) == (b"again", None)


async def test_limits_are_those_of_the_new_settings(server: RunningServer) -> None:
    async with registered_client(server.control):
        await reload(server, max_streams=0)
        assert await status_of(server) == 503
        await reload(server, max_connections=0)
        answer = await fetch(server.public)
        assert (answer.status, "too many" in answer.text.lower() or "full" in answer.text.lower()) == (503, True)


async def test_a_tunnels_quota_changes_for_tunnels_that_are_open(server: RunningServer) -> None:
    async with registered_client(server.control) as client, trio.open_nursery() as nursery:

        async def answer(stream: trio.abc.HalfCloseableStream) -> None:
            while (await receive_head(stream))[0]:
                await stream.send_all(response())

        nursery.start_soon(client.serve, answer)
        for _ in range(15):
            assert await status_of(server) == 200
        await reload(server, max_requests=1)
        assert {await status_of(server) for _ in range(15)} == {200, 429}
        await reload(server)
        for _ in range(15):
            assert await status_of(server) == 200
        nursery.cancel_scope.cancel()


async def test_time_limits_change_for_connections_that_are_there(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await reload(server, timeouts=HttpTimeouts(idle=0.05))
        await stream.send_all(response())
        await Responses(visitor).next()
        assert await visitor.receive_some() == b""


async def test_what_clients_may_choose_is_what_the_new_settings_say(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        assert (await client.register("a", id="1", hostnames=["a.example.org"]))["code"] == "hostname_not_allowed"
    await reload(server, allow_hostnames=("*.example.org",), tcp_ports=())
    async with raw_client(server.control) as client:
        assert (await client.register("a", id="1", hostnames=["a.example.org"]))["type"] == "registered"
        assert (await client.register(kind="tcp", id="2"))["code"] == "port_not_allowed"


async def test_a_tunnel_whose_port_is_offered_no_more_stays_open(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        url = str((await client.register(kind="tcp"))["url"])
        await reload(server, tcp_ports=())
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as visitor:
            await visitor.send_all(b"hello")
            assert await (await client.session.accept()).receive_some() == b"hello"


async def test_how_long_lost_clients_are_waited_for_is_what_the_new_settings_say(start_server) -> None:
    server = await start_server(hold=1000.0)
    await reload(server, hold=0.0)
    async with registered_client(server.control) as client:
        await client.vanish()
    while (answer := await fetch(server.public, host="app.localhost")).status == 502:
        await trio.testing.wait_all_tasks_blocked(0.001)
    assert answer.status == 404


async def test_trusted_proxies_are_those_of_the_new_settings(server: RunningServer) -> None:
    async with registered_client(server.control) as client, trio.open_nursery() as nursery:

        async def show_head(stream: trio.abc.HalfCloseableStream) -> None:
            head, _ = await receive_head(stream)
            if head:
                await stream.send_all(response(head))

        nursery.start_soon(client.serve, show_head)
        claim = "X-Forwarded-For: 192.0.2.7"
        assert "192.0.2.7" not in (await fetch(server.public, "/", claim)).text
        await reload(server, trusted_proxies=(ip_network("127.0.0.0/8"),))
        assert "192.0.2.7" in (await fetch(server.public, "/", claim)).text
        nursery.cancel_scope.cancel()


async def test_a_client_whose_token_is_gone_is_told_and_the_others_stay(start_server) -> None:
    server = await start_server(tokens=frozenset({TOKEN, "other"}))
    async with raw_client(server.control) as gone, raw_client(server.control) as other:
        assert (await gone.register("gone", token=TOKEN))["type"] == "registered"
        assert (await other.register("other", token="other"))["type"] == "registered"
        await reload(server, tokens=frozenset({"other", "new"}))
        assert (await gone.hear_farewell())["code"] == "token_revoked"
        assert (await other.register("more", token="other", id="2"))["type"] == "registered"
        async with raw_client(server.control) as late:
            assert (await late.register("late", token=TOKEN))["code"] == "bad_token"
        async with raw_client(server.control) as new:
            assert (await new.register("new", token="new"))["type"] == "registered"


async def test_names_are_reserved_for_as_long_as_the_new_settings_say(start_server) -> None:
    tokens = frozenset({TOKEN, "other"})
    server = await start_server(tokens=tokens)
    await reload(server, tokens=tokens, reservation=0)
    async with raw_client(server.control) as client:
        assert (await client.register("app", token=TOKEN))["type"] == "registered"
    while (await fetch(server.public)).status != 404:
        await trio.testing.wait_all_tasks_blocked()
    async with raw_client(server.control) as client:
        assert (await client.register("app", token="other"))["type"] == "registered"


# Encryption


async def test_other_certificates_are_shown_and_connections_that_are_there_go_on(
    edge: Edge, start_edge: StartEdge, authority: Authority
) -> None:
    async with tenant(edge.control, "app"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        assert (await talk.ask("/1", host=NAME)).text == "app 1 /1"
        await change(edge, certificates=(authority.certify(NAME, "more.example", into="another"),))
        assert await names_shown(edge.https, edge.context, NAME) == {NAME, "more.example"}
        assert (await talk.ask("/2", host=NAME)).text == "app 1 /2"


async def change(edge: Edge, **changes: object) -> None:
    settings = loopback_settings(domain="tunnel.test", https=LOOPBACK, tcp_ports=(), **changes)
    await edge.server.server.reload(settings)


async def test_hsts_and_redirects_are_those_of_the_new_settings(edge: Edge, authority: Authority) -> None:
    certificates = (authority.certify(NAME),)
    async with tenant(edge.control, "app"):
        assert (await fetch(edge.public, host=NAME)).status == 308
        await change(edge, certificates=certificates, redirect=False, hsts=60)
        assert (await fetch(edge.public, host=NAME)).status == 200
        assert (await edge.fetch()).fields["Strict-Transport-Security"] == "max-age=60"
        await change(edge, certificates=certificates)
        assert (await fetch(edge.public, host=NAME)).status == 308
        assert "Strict-Transport-Security" not in (await edge.fetch()).fields


async def test_clients_must_show_a_certificate_once_the_settings_say_so(
    start_server, authority: Authority, stranger: Authority
) -> None:
    certificates = (authority.issue("127.0.0.1"),)
    server = await start_server(certificates=certificates)
    trust = Trust(ca=authority.path)
    async with open_tunnel(server.control, name="before", trust=trust):
        await reload(server, certificates=certificates, client_ca=authority.path)
        assert (await fetch(server.public, host="none.localhost")).status == 404
        with pytest.raises(Exception, match="client-cert"):
            async with open_tunnel(server.control, name="after", trust=trust):
                pass
        with pytest.raises(Exception, match=r"."):
            async with open_tunnel(server.control, name="after", plaintext=True):
                pass
        theirs = attrs.evolve(trust, certificate=authority.issue("client"))
        async with open_tunnel(server.control, name="after", trust=theirs):
            pass


# What is refused, and what stays


def broken_file(folder: Path) -> tuple[CertificateFiles, ...]:
    (folder / "broken.pem").write_text("nonsense")
    return (CertificateFiles(folder / "broken.pem"),)


async def test_settings_that_cannot_be_used_change_nothing(start_server, authority: Authority, tmp_path: Path) -> None:
    tokens = frozenset({TOKEN})
    server = await start_server(tokens=tokens, certificates=(authority.issue("127.0.0.1"),))
    for bad in ({"certificates": broken_file(tmp_path)}, {"client_ca": tmp_path / "none.pem"}):
        with pytest.raises(ConfigurationError):
            await reload(server, tokens=frozenset({"new"}), max_connections=0, **bad)
    async with raw_client(server.control) as client:
        assert (await client.register("app", token="new"))["code"] == "bad_token"
    async with raw_client(server.control) as client:
        assert (await client.register("app", token=TOKEN))["type"] == "registered"
        assert (await fetch(server.public, host="none.localhost")).status == 404


async def test_what_cannot_change_stays_and_is_named(
    server: RunningServer, server_log: LogLines, tmp_path: Path
) -> None:
    async with registered_client(server.control):
        await reload(server, control=TcpAddress("127.0.0.1", 1), domain="tunnel.test", state=tmp_path, max_streams=0)
        assert await status_of(server) == 503
    await server.server.reload(ServerSettings(control=LOOPBACK, public=LOOPBACK))
    assert [line for line in server_log.lines if "restart" in line] == [
        "a change of control, domain, state needs a restart: the old one stays"
    ]


async def test_a_server_that_drains_reloads_nothing(server: RunningServer) -> None:
    server.server.drain()
    with pytest.raises(ConfigurationError, match="about to end"):
        await reload(server)


async def test_settings_that_are_ready_when_draining_has_begun_are_not_put_into_force(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections would be kept for longer again, and clients expected back."""
    prepare = Knowledge.prepare

    async def prepare_and_drain(self: Knowledge, settings: ServerSettings) -> None:
        await prepare(self, settings)
        server.server.drain()

    monkeypatch.setattr(Knowledge, "prepare", prepare_and_drain)
    applied: list[ServerSettings] = []
    monkeypatch.setattr(Hub, "apply", lambda _, settings: applied.append(settings))
    with pytest.raises(ConfigurationError, match="about to end"):
        await reload(server, hold=9.0)
    assert not applied
