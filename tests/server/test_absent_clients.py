"""Clients that are lost, and visitors who wait for them; on a clock that jumps."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from otun.server import absence

from .conversation import Conversation, Tenant
from .memory_server import Line, MemoryServer, free_port, memory_server
from .raw_client import RawClient, port_of
from .visitors import request

HOST = "app.tunnel.test"


@asynccontextmanager
async def tenant(
    server: MemoryServer, name: str = "app", token: str = "ann", **fields: object
) -> AsyncIterator[Tenant]:
    """Answer for a tunnel, politely to its end."""
    async with server.connect() as (client, _), trio.open_nursery() as nursery:
        assert (await client.register(name, token=token, **fields))["type"] == "registered"
        one = Tenant(f"{name} of {token}", client, "")
        nursery.start_soon(client.serve, one.answer)
        yield one
        nursery.cancel_scope.cancel()


async def lose(server: MemoryServer, name: str = "app", token: str | None = "ann", **fields: object) -> None:
    """Open a tunnel, and lose the connection."""
    async with server.connect() as (client, line):
        assert (await client.register(name, token=token, **fields))["type"] == "registered"
        await line.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def see_lost(visitor: Conversation, since: float, seconds: float) -> None:
    """Be told that the tunnel has closed, so many seconds after that time."""
    answer = await visitor.receive()
    assert (answer.status, answer.fields["Otun-Error"]) == (502, "tunnel_closed")
    assert int(answer.fields["Retry-After"]) > 0
    assert seconds <= trio.current_time() - since <= seconds + 1


async def waits(visitor: Conversation) -> bool:
    """Whether there is no answer when everything has come to rest."""
    with trio.move_on_after(0.01) as scope:
        await visitor.receive()
    return scope.cancelled_caught


async def test_a_visitor_waits_for_the_client_and_reaches_it(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as visitor:
        await lose(server)
        await visitor.send("/x", host=HOST)
        await trio.sleep(4)
        assert await waits(visitor)
        async with tenant(server):
            answer = await visitor.receive()
            assert (answer.status, answer.body) == (200, b"app of ann 1 /x")
            await trio.sleep(10)  # It is there for good.
            assert (await visitor.ask("/y", host=HOST)).body == b"app of ann 1 /y"


async def test_who_waits_in_vain_is_told_so_five_seconds_after_the_loss(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as early, server.visit() as late, server.visit() as after:
        await lose(server)
        since = trio.current_time()
        await early.send(host=HOST)
        await trio.sleep(3)
        await late.send(host=HOST)
        await see_lost(early, since, 5)
        await see_lost(late, since, 5)
        await trio.sleep(1)
        await after.send(host=HOST)
        await see_lost(after, trio.current_time(), 0)
        await trio.sleep(absence.MISSING_FOR)
        async with server.visit() as stranger:
            assert (await stranger.ask(host=HOST)).status == 404


@pytest.mark.parametrize("token", ["ann", None])
async def test_who_comes_late_has_the_name_for_good(autojump_clock, monkeypatch, token: str | None) -> None:
    monkeypatch.setattr(absence, "MISSING_FOR", 50.0)
    async with memory_server("ann", is_open=True) as server:
        await lose(server, token=None)
        await trio.sleep(40)
        async with tenant(server, token=token):  # type: ignore[arg-type]
            for _ in range(2):
                async with server.visit() as visitor:
                    assert (await visitor.ask(host=HOST)).status == 200
                await trio.sleep(absence.MISSING_FOR)


async def status_at(server: MemoryServer, host: str, path: str = "/") -> int:
    async with server.visit() as visitor:
        return (await visitor.ask(path, host=host)).status


async def test_so_many_are_missed_and_no_more(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr(absence, "MAX_MISSING", 2)
    async with memory_server("ann") as server:
        for name in ("a", "b", "c"):
            await lose(server, name)
            await trio.sleep(6)
            assert await status_at(server, f"{name}.tunnel.test") == 502
        assert [await status_at(server, f"{name}.tunnel.test") for name in ("a", "b", "c")] == [404, 502, 502]


async def test_who_is_missing_is_in_nobodys_way(autojump_clock) -> None:
    async with memory_server("ann") as server:
        await lose(server, path="/api")
        await lose(server, "shop", hostnames=["shop.example.org"])
        await trio.sleep(10)
        assert await status_at(server, HOST, "/api") == 502
        async with tenant(server), tenant(server, "all", hostnames=["*.example.org"]):
            assert await status_at(server, HOST, "/api") == 200
            assert await status_at(server, "shop.example.org") == 200
        assert await status_at(server, HOST) == 404  # It has come back, and left.


async def test_a_longer_time_outlasts_the_limit_for_heads(autojump_clock) -> None:
    async with memory_server("ann", hold=60.0) as server, server.visit() as visitor:
        await lose(server)
        since = trio.current_time()
        await visitor.send(host=HOST)
        await see_lost(visitor, since, 60)


async def test_without_hold_nobody_waits(autojump_clock) -> None:
    async with memory_server("ann", hold=0.0) as server, server.visit() as visitor:
        await lose(server)
        assert (await visitor.ask(host=HOST)).status == 404


async def leave(client: RawClient) -> None:
    await client.session.aclose()


async def finish(client: RawClient) -> None:
    await client.control.send_eof()
    await client.session.wait_closed()


@pytest.mark.parametrize("way", [leave, finish], ids=lambda way: way.__name__)
async def test_nobody_waits_for_a_client_that_has_left(autojump_clock, way) -> None:
    async with memory_server("ann") as server, server.visit() as visitor:
        async with server.connect() as (client, _):
            await client.register("app", token="ann")
            await way(client)
        await trio.testing.wait_all_tasks_blocked()
        assert (await visitor.ask(host=HOST)).status == 404


async def reset_control(client: RawClient, line: Line) -> None:
    client.control.reset()
    await client.session.wait_closed()


async def talk_nonsense(client: RawClient, line: Line) -> None:
    await client.say(b"nonsense")
    await client.hear_farewell()


async def break_yamux(client: RawClient, line: Line) -> None:
    await line.send_all(b"nonsense" * 4)
    await client.session.wait_closed()


async def fall_silent(client: RawClient, line: Line) -> None:
    line.freeze()
    await trio.sleep(21)


async def cut(client: RawClient, line: Line) -> None:
    await line.aclose()


@pytest.mark.parametrize("way", [reset_control, talk_nonsense, break_yamux, fall_silent, cut], ids=lambda w: w.__name__)
async def test_visitors_wait_however_the_client_was_lost(autojump_clock, way) -> None:
    async with memory_server("ann") as server, server.connect() as (client, line):
        await client.register("app", token="ann")
        await way(client, line)
        await trio.testing.wait_all_tasks_blocked()
        async with server.visit() as visitor:
            await visitor.send(host=HOST)
            assert await waits(visitor)
            async with tenant(server):
                assert (await visitor.receive()).status == 200


async def test_a_request_that_finds_the_session_ended_and_the_tunnel_still_there_waits(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as visitor, server.connect() as (client, _):
        await client.register("app", token="ann")
        route = server.registry.find(HOST)
        assert route is not None
        session = route.members[0].session
        session.fail("lost")  # The client's task has not heard of it when the request is read.
        await visitor.send(host=HOST)
        assert await waits(visitor)
        async with tenant(server):
            assert (await visitor.receive()).status == 200


async def test_who_waits_for_a_stream_waits_for_the_next_session(autojump_clock) -> None:
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        client, line = await stack.enter_async_context(server.connect())
        await client.register("app", token="ann")
        visitors = [await stack.enter_async_context(server.visit()) for _ in range(258)]
        for visitor in visitors:  # The client acknowledges none: 256 streams are open, two visitors wait.
            await visitor.send(host=HOST)
        await trio.testing.wait_all_tasks_blocked()
        await line.aclose()
        for visitor in visitors[:256]:
            assert (await visitor.receive()).status == 502  # The request had left.
        async with tenant(server):
            for visitor in visitors[256:]:
                assert (await visitor.receive()).status == 200


async def test_the_body_waits_unread(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as visitor, trio.open_nursery() as nursery:
        await lose(server)
        body = b"x" * 5_000_000
        nursery.start_soon(visitor.stream.send_all, request(host=HOST, method="POST", body=body))
        await trio.sleep(3)
        async with tenant(server) as one:
            assert (await visitor.receive()).status == 200
            assert one.bodies == [body]


async def test_pipelined_requests_are_answered_in_order(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as visitor:
        await lose(server)
        await visitor.stream.send_all(request("/1", host=HOST) + request("/2", host=HOST))
        assert await waits(visitor)
        async with tenant(server):
            assert [(await visitor.receive()).body[-2:] for _ in range(2)] == [b"/1", b"/2"]


async def test_a_visitor_who_leaves_is_forgotten(autojump_clock) -> None:
    async with memory_server("ann") as server:
        await lose(server)
        async with server.visit() as visitor:
            await visitor.send(host=HOST)
            assert await waits(visitor)
        async with tenant(server) as one, server.visit() as other:
            assert (await other.ask("/other", host=HOST)).status == 200
            assert len(one.heads) <= 2  # Who has finished sending may still want its answer.


async def test_who_is_cut_off_meanwhile_takes_nobodys_place(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr(absence, "MAX_WAITING", 1)
    async with memory_server("ann") as server, server.visit() as first:
        await lose(server)
        await first.send(host=HOST)
        assert await waits(first)
        server.cut_visitors()
        async with server.visit() as second:
            await second.send(host=HOST)
            async with tenant(server):
                assert (await second.receive()).status == 200


async def test_so_many_wait_for_one_tunnel_and_no_more(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr(absence, "MAX_WAITING", 2)
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        await lose(server)
        await lose(server, "other")
        visitors = [await stack.enter_async_context(server.visit()) for _ in range(4)]
        for visitor in visitors[:3]:
            await visitor.send(host=HOST)
        await visitors[3].send(host="other.tunnel.test")
        assert (await visitors[2].receive()).status == 502
        async with tenant(server), tenant(server, "other"):
            for visitor in (*visitors[:2], visitors[3]):
                assert (await visitor.receive()).status == 200


async def test_so_many_tunnels_are_waited_for_and_no_more(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr(absence, "MAX_ABSENCES", 2)
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        for name in ("one", "two", "three"):
            await lose(server, name)
        visitors = [await stack.enter_async_context(server.visit()) for _ in range(2)]
        assert (await visitors[0].ask(host="three.tunnel.test")).status == 404
        async with tenant(server, "two"):
            await lose(server, "three")  # There is room again.
            await visitors[1].send(host="three.tunnel.test")
            assert await waits(visitors[1])


async def test_the_next_ones_rules_are_those_that_count(autojump_clock) -> None:
    async with memory_server("ann") as server, server.visit() as visitor:
        await lose(server)
        await visitor.send(host=HOST)
        assert await waits(visitor)
        async with tenant(server, deny_ip=["192.0.2.0/24"]):
            assert (await visitor.receive()).status == 403


async def test_a_lost_path_does_not_fall_to_a_shorter_one(autojump_clock) -> None:
    async with memory_server("ann") as server, tenant(server), server.visit() as visitor, server.visit() as other:
        await lose(server, path="/api")
        await visitor.send("/api/x", host=HOST)
        assert await waits(visitor)
        assert (await other.ask("/", host=HOST)).status == 200
        async with tenant(server, path="/api") as api:
            assert (await visitor.receive()).status == 200
            assert len(api.heads) == 1


async def test_a_lost_name_does_not_fall_to_a_wildcard(autojump_clock) -> None:
    wild = {"hostnames": ["*.example.org"]}
    async with memory_server("ann", "bob") as server, server.visit() as visitor:
        await lose(server, hostnames=["shop.example.org"])
        async with tenant(server, "wild", "bob", **wild):
            await visitor.send(host="shop.example.org")
            assert await waits(visitor)
            since = trio.current_time()
            await see_lost(visitor, since, 4)


async def test_both_paths_of_a_client_without_a_token_come_back_one_after_the_other(autojump_clock) -> None:
    async with memory_server(is_open=True) as server, server.visit() as visitor:
        async with server.connect() as (client, line):
            await client.register("app")
            await client.register("app", id="1", path="/api")
            await line.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await visitor.send("/api", host=HOST)
        async with server.connect() as (client, _), trio.open_nursery() as nursery:
            one = Tenant("app", client, "")
            nursery.start_soon(client.serve, one.answer)
            await client.register("app")
            assert await waits(visitor)
            assert (await client.register("app", id="1", path="/api"))["type"] == "registered"
            assert (await visitor.receive()).status == 200
            nursery.cancel_scope.cancel()


async def test_the_lost_tunnel_gives_way_to_another_client(autojump_clock) -> None:
    async with memory_server(is_open=True) as server, server.visit() as visitor:
        await lose(server, token=None)
        await visitor.send(host=HOST)
        assert await waits(visitor)
        async with server.connect("192.0.2.99") as (client, _), trio.open_nursery() as nursery:
            assert (await client.register("app"))["type"] == "registered"
            nursery.start_soon(client.serve, Tenant("other", client, "").answer)
            assert (await visitor.receive()).status == 200
            nursery.cancel_scope.cancel()


async def test_who_resumes_from_elsewhere_has_its_paths_back_one_after_the_other(autojump_clock) -> None:
    async with memory_server(is_open=True) as server, server.visit() as visitor, server.connect() as (old, _):
        secret = (await old.register("app", resume=""))["resume"]
        await old.register("app", id="1", path="/api")
        async with server.connect("192.0.2.99") as (client, _), trio.open_nursery() as nursery:
            nursery.start_soon(client.serve, Tenant("app", client, "").answer)
            assert (await client.register("app", resume=secret))["type"] == "registered"
            await visitor.send("/api", host=HOST)
            assert await waits(visitor)
            assert (await client.register("app", id="1", path="/api"))["type"] == "registered"
            assert (await visitor.receive()).status == 200
            nursery.cancel_scope.cancel()


async def test_without_a_domain_the_only_tunnel_that_is_there_gets_everybody(autojump_clock) -> None:
    async with memory_server("ann", domain=None) as server, server.visit() as visitor, tenant(server):
        await lose(server, "other")
        assert (await visitor.ask(host="192.0.2.1")).status == 200


@pytest.mark.parametrize("is_alone", [True, False])
async def test_without_a_domain_any_host_waits_for_the_only_tunnel(autojump_clock, is_alone: bool) -> None:
    async with memory_server("ann", domain=None) as server, server.visit() as visitor:
        await lose(server)
        if not is_alone:
            await lose(server, "other")
        await visitor.send(host="192.0.2.1")
        if is_alone:
            assert await waits(visitor)
            async with tenant(server):
                assert (await visitor.receive()).status == 200
        else:
            assert (await visitor.receive()).status == 404


async def test_what_is_expected_at_the_start_is_waited_for(autojump_clock) -> None:
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        server.registry.expect(HOST, keeper=server.keeper("ann"))
        server.registry.expect("*.shop.example.org", keeper=server.keeper("ann"))
        visitors = [await stack.enter_async_context(server.visit()) for _ in range(3)]
        await visitors[0].send("/deep", host=HOST)
        await visitors[1].send(host="a.shop.example.org")
        assert (await visitors[2].ask(host="nobody.tunnel.test")).status == 404
        since = trio.current_time()
        async with tenant(server):
            assert (await visitors[0].receive()).status == 200
            await see_lost(visitors[1], since, 5)


async def test_an_expected_name_is_nobodys_rival(autojump_clock) -> None:
    async with memory_server("ann", "bob") as server, server.visit() as visitor:
        server.registry.expect(HOST, keeper=server.keeper("ann"))
        assert len(server.registry) == 0
        assert "app" not in server.registry
        async with tenant(server, token="bob", path="/api"):
            assert (await visitor.ask("/x", host=HOST)).status == 404


# Ports


async def converse(port: int) -> bytes:
    """Connect to a port of this machine, say hello, and hear the answer."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
        await visitor.send_all(b"hello")
        return bytes(await visitor.receive_some())


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    await stream.send_all(await stream.receive_some())


@pytest.fixture
def port() -> int:
    return free_port()


def tcp(port: int) -> dict[str, object]:
    return {"kind": "tcp", "remote_port": port}


async def test_a_lost_port_keeps_its_queue_for_the_same_client(port: int) -> None:
    async with memory_server("ann", hold=1000.0) as server, trio.open_nursery() as nursery:
        await lose(server, "ssh", **tcp(port))
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
            await visitor.send_all(b"hello")
            async with server.connect() as (client, _):
                assert (await client.register("ssh", token="ann", **tcp(port)))["type"] == "registered"
                nursery.start_soon(client.serve, echo)
                assert await visitor.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def test_another_client_never_gets_the_queue(port: int) -> None:
    async with memory_server(is_open=True, hold=1000.0) as server, trio.open_nursery() as nursery:
        await lose(server, "ssh", token=None, **tcp(port))
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as visitor,
            server.connect("192.0.2.99") as (client, _),
        ):
            assert (await client.register("ssh", **tcp(port)))["type"] == "registered"
            nursery.start_soon(client.serve, echo)
            with suppress(trio.BrokenResourceError):
                await visitor.send_all(b"hello")
                assert not await visitor.receive_some()
            assert await converse(port) == b"hello"
        nursery.cancel_scope.cancel()


async def test_when_no_port_is_free_a_client_gets_its_own_or_else_another_ones_that_is_away(
    autojump_clock, monkeypatch
) -> None:
    ports = [free_port()]
    while len(set(ports)) < 2:
        ports = [free_port(), free_port()]
    async with memory_server("ann", "bob", "eve", reservation=0.0) as server, AsyncExitStack() as stack:
        for token, port in zip(("ann", "bob"), ports, strict=True):
            await lose(server, "ssh", token=token, **tcp(port))
        monkeypatch.setattr(server.tcp_ports, "_ranges", [range(port, port + 1) for port in ports])
        for token, port in (("bob", ports[1]), ("eve", ports[0])):
            client, _ = await stack.enter_async_context(server.connect())
            assert port_of(await client.register("ssh", token=token, kind="tcp")) == port


async def test_a_lost_port_is_free_when_the_time_is_over(autojump_clock, port: int) -> None:
    async with memory_server("ann", "bob") as server:
        await lose(server, "ssh", **tcp(port))
        assert port in server.tcp_ports
        await trio.sleep(6)
        assert port not in server.tcp_ports
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_port_without_hold_is_free_at_once(autojump_clock, port: int) -> None:
    async with memory_server("ann", hold=0.0) as server:
        await lose(server, "ssh", **tcp(port))
        assert port not in server.tcp_ports


async def test_an_expected_port_is_given_with_its_sockets(port: int) -> None:
    async with memory_server("ann", hold=1000.0) as server, trio.open_nursery() as nursery:
        given = socket.create_server(("127.0.0.1", port))
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor, server.connect() as (client, _):
            await visitor.send_all(b"hello")
            server.tcp_ports.expect(port, keeper=server.keeper("ann"), sockets=[given])
            assert (await client.register("ssh", token="ann", **tcp(port)))["type"] == "registered"
            nursery.start_soon(client.serve, echo)
            assert await visitor.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
