"""Several sessions that share a tunnel; on a clock that jumps."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from otun.server import opening
from otun.server.registry import Route

from .conversation import Conversation, OnRequest, Tenant, answer_by_name
from .memory_server import Line, MemoryServer, free_port, memory_server
from .raw_client import RawClient
from .visitors import request

HOST = "app.tunnel.test"


@attrs.frozen
class Member:
    """A client in the group, and its answers, which are *name*."""

    client: RawClient
    line: Line
    tenant: Tenant
    nursery: trio.Nursery

    @property
    def count(self) -> int:
        """How many requests have reached it."""
        return len(self.tenant.heads)

    async def lose(self) -> None:
        """Lose its connection."""
        await self.line.aclose()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def member(
    server: MemoryServer,
    name: str = "a",
    on_request: OnRequest = answer_by_name,
    token: str | None = "ann",
    **fields: object,
) -> AsyncIterator[Member]:
    async with server.connect() as (client, line), trio.open_nursery() as nursery:
        answer = await client.register("app", **({"token": token, "group": True} | fields))
        assert answer["type"] == "registered", answer
        one = Tenant(name, client, "", on_request)
        nursery.start_soon(client.serve, one.answer)
        yield Member(client, line, one, nursery)
        nursery.cancel_scope.cancel()


async def never(tenant: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    await trio.sleep_forever()


async def refusal(server: MemoryServer, token: str | None = "ann", name: str = "app", **fields: object) -> object:
    """Why a tunnel cannot be had."""
    async with server.connect() as (client, _):
        answer = await client.register(name, **({"token": token, "group": True} | fields))
        assert answer["type"] == "error", answer
        return answer["code"]


def route_of(server: MemoryServer) -> Route:
    route = server.registry.find(HOST)
    assert route is not None
    return route


async def visit(server: MemoryServer, stack: AsyncExitStack, target: str = "/") -> Conversation:
    visitor = await stack.enter_async_context(server.visit())
    await visitor.send(target, host=HOST)
    await trio.testing.wait_all_tasks_blocked()
    return visitor


# Who answers


async def test_visitors_go_to_whoever_has_the_fewest_streams(autojump_clock) -> None:
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(server, on_request=never))
        for _ in range(4):
            await visit(server, stack)
        await trio.sleep(1)
        second = await stack.enter_async_context(member(server, on_request=never))
        for _ in range(8):
            await visit(server, stack)
        await trio.sleep(1)
        assert (first.count, second.count) == (6, 6)
        assert [one.streams for one in route_of(server).members] == [6, 6]


async def test_visitors_who_come_one_after_the_other_are_spread(autojump_clock) -> None:
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(server, name)) for name in "abc"]
        for _ in range(9):
            async with server.visit() as visitor:
                assert (await visitor.ask("/", "Connection: close", host=HOST)).status == 200
        assert [one.count for one in members] == [3, 3, 3]


async def test_a_connection_that_is_kept_does_not_stick_to_a_busy_member(autojump_clock) -> None:
    async def slow(tenant: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if b"/slow" in head:
            await trio.sleep_forever()
        await answer_by_name(tenant, stream, number, head)

    async with memory_server("ann") as server, AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(server, "a", slow))
        kept = await visit(server, stack)
        assert (await kept.receive()).text.startswith("a")
        for _ in range(3):
            await visit(server, stack, "/slow")
        second = await stack.enter_async_context(member(server, "b"))
        for _ in range(3):
            assert (await kept.ask(host=HOST)).text.startswith("b 1")
        await second.lose()
        assert (await kept.ask(host=HOST)).text.startswith("a 1")
        assert first.count == 5


async def test_a_connection_that_is_kept_stays_where_it_is_among_equals(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a"), member(server, "b"), server.visit() as visitor:
        answers = {(await visitor.ask(host=HOST)).text for _ in range(10)}
        assert len(answers) == 1


async def test_an_upgraded_connection_stays(autojump_clock) -> None:
    async def upgrade(tenant: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        while data := await stream.receive_some():
            await stream.send_all(tenant.name.encode() + data)

    async with (
        memory_server("ann") as server,
        member(server, "a", upgrade),
        member(server, "b"),
        server.visit() as visitor,
    ):
        await visitor.stream.send_all(request("/", "Connection: upgrade", "Upgrade: x", host=HOST))
        received = b""
        while b"\r\n\r\n" not in received:
            received += await visitor.stream.receive_some()
        for _ in range(3):
            await visitor.stream.send_all(b"x")
            assert await visitor.stream.receive_some() == b"ax"


# Members that fail


async def test_a_lost_member_is_passed_over_and_the_last_one_is_waited_for(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a") as first, AsyncExitStack() as stack:
        async with member(server, "b") as second:
            await first.lose()
            for _ in range(4):
                async with server.visit() as visitor:
                    assert (await visitor.ask(host=HOST)).text.startswith("b")
            await second.lose()
        visitor = await visit(server, stack)
        async with member(server, "c"):
            assert (await visitor.receive()).text.startswith("c")


async def test_a_member_that_leaves_is_passed_over_at_once(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a") as first, member(server, "b"):
        first.client.session.go_away()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(4):
            async with server.visit() as visitor:
                assert (await visitor.ask(host=HOST)).text.startswith("b")


async def test_a_connection_that_is_kept_does_not_stick_to_a_member_that_leaves(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a") as first, server.visit() as kept:
        assert (await kept.ask(host=HOST)).text.startswith("a")
        first.client.session.go_away()
        assert (await kept.ask(host=HOST)).text.startswith("a")  # There is nobody else.
        async with member(server, "b"):
            assert (await kept.ask(host=HOST)).text.startswith("b")


async def test_a_request_that_was_sent_is_not_sent_again(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a", never) as first, AsyncExitStack() as stack:
        visitor = await visit(server, stack)
        async with member(server, "b") as second:
            await first.lose()
            assert (await visitor.receive()).status == 502
            assert second.count == 0


async def test_requests_of_which_nothing_was_sent_go_to_another_member(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (client, line), AsyncExitStack() as stack:
        await client.register("app", token="ann", group=True)  # It accepts nobody.
        visitors = [await visit(server, stack, f"/{number}") for number in range(260)]
        async with member(server, "b") as second:
            await line.aclose()
            statuses = Counter([(await visitor.receive()).status for visitor in visitors])
            assert statuses == {502: 256, 200: 4}
            assert second.count == 4


async def test_whoever_has_no_room_is_passed_over(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (client, _), AsyncExitStack() as stack:
        await client.register("app", token="ann", group=True)
        (busy,) = route_of(server).members
        async with member(server, "b"):
            busy.session.open_soon = lambda opener: False  # type: ignore[method-assign]  # Too many wait already.
            for _ in range(3):
                visitor = await visit(server, stack)
                assert (await visitor.receive()).text.startswith("b")


async def test_all_counts_are_zero_in_the_end(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a"), member(server, "b") as second:
        members = list(route_of(server).members)
        for _ in range(6):
            async with server.visit() as visitor:
                await visitor.ask(host=HOST)
        await second.lose()
        while any(one.streams for one in members):
            await trio.testing.wait_all_tasks_blocked()
        assert route_of(server).members == [one for one in members if not one.session.is_closed]


# Members whose local service is not well


async def report(member: Member, *, is_healthy: bool) -> None:
    await member.client.say({"type": "health", "healthy": is_healthy})
    assert (await member.client.hear())["type"] == "heartbeat_ack"


async def test_a_member_that_is_not_well_gets_no_requests_until_it_is(autojump_clock) -> None:
    async with memory_server("ann") as server, AsyncExitStack() as stack:
        kept = await stack.enter_async_context(server.visit())
        async with member(server, "a", health=True) as first, member(server, "b") as second:
            assert (await kept.ask(host=HOST)).text.startswith("a")
            await report(first, is_healthy=False)
            for _ in range(3):
                assert (await kept.ask(host=HOST)).text.startswith("b")
            await report(second, is_healthy=False)
            answer = await kept.ask(host=HOST)
            assert (answer.status, answer.fields["Otun-Error"]) == (503, "unhealthy")
            assert int(answer.fields["Retry-After"]) > 0
            await report(first, is_healthy=True)
            async with server.visit() as visitor:
                assert (await visitor.ask(host=HOST)).text.startswith("a")


async def test_a_tunnel_alone_that_is_not_well_says_so(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, health=True) as only, server.visit() as visitor:
        assert (await visitor.ask(host=HOST)).status == 200
        await report(only, is_healthy=False)
        assert (await visitor.ask(host=HOST)).status == 503
        assert only.count == 1


async def test_who_comes_back_is_well_until_it_says_otherwise(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server) as first, server.visit() as visitor:
        await report(first, is_healthy=False)
        await first.lose()
        await visitor.send(host=HOST)
        async with member(server):
            assert (await visitor.receive()).status == 200


async def test_the_server_says_that_it_wants_to_know_if_it_is_asked(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (client, _), server.connect() as (other, _):
        assert (await client.register("app", token="ann", health=True))["health"] is True
        assert "health" not in await other.register("other", token="ann")


@pytest.mark.parametrize("message", [{"healthy": False, "id": "x"}, {"healthy": 1}, {}], ids=str)
async def test_bad_words_about_health_end_the_session(autojump_clock, message: dict[str, object]) -> None:
    async with memory_server("ann") as server, server.connect() as (client, _):
        await client.register("app", token="ann", health=True)
        await client.say({"type": "health", **message})
        assert (await client.hear_farewell())["code"] == "bad_message"


# Who may join


@pytest.mark.parametrize("token", ["ann", None])
async def test_all_members_must_have_said_that_they_are_in_a_group(autojump_clock, token: str | None) -> None:
    async with memory_server("ann", is_open=True) as server:
        async with member(server, token=token):
            assert await refusal(server, token, group=False) == "name_taken"
        async with member(server, token=token, group=False):
            assert await refusal(server, token) == "name_taken"
        async with member(server, token=token), member(server, token=token):
            assert len(route_of(server).members) == 2


async def test_nobody_joins_another_tokens_group(autojump_clock) -> None:
    async with memory_server("ann", "bob", is_open=True, reservation=0.0) as server, member(server):
        assert await refusal(server, "bob") == "name_taken"
        assert await refusal(server, None) == "name_taken"


async def test_a_session_does_not_join_itself(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (client, _):
        await client.register("app", token="ann", group=True)
        assert (await client.register("app", token="ann", group=True, id="1"))["code"] == "name_taken"


RULES: dict[str, object] = {"allow_ip": ["192.0.2.0/24"], "require_header": ["X-Key: 1"]}


@pytest.mark.parametrize(
    "other",
    [
        {},
        RULES | {"allow_ip": ["192.0.2.0/25"]},
        RULES | {"require_header": ["X-Key: 2"]},
        RULES | {"deny_ip": ["192.0.2.1"]},
        RULES | {"hostnames": ["shop.example.org"]},
    ],
)
async def test_members_that_ask_for_something_else_are_refused(autojump_clock, other: dict[str, object]) -> None:
    async with memory_server("ann") as server:
        for one, another in ((RULES, other), (other, RULES)):
            async with member(server, **one):
                assert await refusal(server, **another) == "group_mismatch"
                async with member(server, **one):
                    pass


async def test_a_group_has_so_many_members_and_no_more(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr(opening, "MAX_MEMBERS", 2)
    async with memory_server("ann") as server, member(server), server.connect() as (old, _):
        secret = (await old.register("app", token="ann", group=True, resume=""))["resume"]
        assert await refusal(server) == "too_many_tunnels"
        async with member(server, resume=secret):
            assert await refusal(server) == "too_many_tunnels"


async def test_another_path_is_another_group(autojump_clock) -> None:
    async with (
        memory_server("ann") as server,
        member(server, "a"),
        member(server, "b", path="/api"),
        server.visit() as visitor,
    ):
        assert (await visitor.ask("/api", host=HOST)).text.startswith("b")
        assert (await visitor.ask("/", host=HOST)).text.startswith("a")


async def test_what_a_visitor_has_shown_holds_for_all_members(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, **RULES), member(server, **RULES):
        one, other = route_of(server).members
        assert one.rules is other.rules
        async with server.visit("192.0.2.7") as visitor, server.visit("198.51.100.1") as stranger:
            assert (await visitor.ask("/", "X-Key: 1", host=HOST)).status == 200
            assert (await stranger.ask("/", "X-Key: 1", host=HOST)).status == 403


async def test_each_member_gets_what_its_own_edits_leave(autojump_clock) -> None:
    """What is known of a request that comes again is what was left for the member that had it before."""
    key = {"require_header": ["X-Key"]}
    async with memory_server("ann") as server, member(server, "a", **key) as first, server.visit() as kept:
        for _ in range(4):
            assert (await kept.ask("/", "X-Key: 1", "X-Admin: yes", host=HOST)).text.startswith("a")
        async with member(server, "b", request_headers=["-X-Admin"], **key) as second:
            await first.lose()
            assert (await kept.ask("/", "X-Key: 1", "X-Admin: yes", host=HOST)).text.startswith("b")
            assert b"X-Admin: yes" in first.tenant.heads[-1]
            assert b"X-Admin" not in second.tenant.heads[0]


async def test_who_resumes_takes_its_own_place_only(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a"), server.connect() as (old, _):
        secret = (await old.register("app", token="ann", group=True, resume=""))["resume"]
        async with member(server, "c", resume=secret):
            assert (await old.hear_farewell())["code"] == "taken_over"
            assert len(route_of(server).members) == 2


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_who_resumes_as_the_only_member_may_ask_for_something_else(autojump_clock, kind: str) -> None:
    fields: dict[str, object] = {"token": "ann", "group": True, "kind": kind}
    if kind == "tcp":
        fields["remote_port"] = free_port()
    async with memory_server("ann") as server, server.connect() as (old, _), server.connect() as (new, _):
        secret = (await old.register("app", resume="", **fields))["resume"]
        assert await refusal(server, deny_ip=["192.0.2.0/24"], **fields) == "group_mismatch"
        answer = await new.register("app", resume=secret, deny_ip=["192.0.2.0/24"], **fields)
        assert answer["type"] == "registered"
        assert (await old.hear_farewell())["code"] == "taken_over"
        if kind == "http":
            async with server.visit("192.0.2.7") as visitor:
                assert (await visitor.ask(host=HOST)).status == 403


async def test_a_silent_member_is_joined_and_not_taken_over(autojump_clock) -> None:
    async with memory_server("ann") as server, member(server, "a") as first:
        first.line.freeze()
        await trio.sleep(16)
        async with member(server, "b"):
            assert len(route_of(server).members) == 2


# TCP


@asynccontextmanager
async def tcp_member(server: MemoryServer, name: bytes, port: int) -> AsyncIterator[tuple[RawClient, Line]]:
    async with server.connect() as (client, line), trio.open_nursery() as nursery:
        fields: dict[str, object] = {"kind": "tcp", "remote_port": port, "group": True}
        assert (await client.register("ssh", token="ann", **fields))["type"] == "registered"

        async def answer(stream: trio.abc.HalfCloseableStream) -> None:
            await stream.send_all(name)
            await trio.sleep_forever()

        nursery.start_soon(client.serve, answer)
        yield client, line
        nursery.cancel_scope.cancel()


async def test_connections_of_a_tcp_group_go_to_whoever_has_the_fewest() -> None:
    port = free_port()
    async with memory_server("ann", hold=1000.0, max_streams=100) as server, AsyncExitStack() as stack:
        _, line = await stack.enter_async_context(tcp_member(server, b"a", port))
        await stack.enter_async_context(tcp_member(server, b"b", port))

        async def visit() -> bytes:
            visitor = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            return bytes(await visitor.receive_some())

        assert Counter([await visit() for _ in range(6)]) == {b"a": 3, b"b": 3}
        await line.aclose()
        while len(server.tcp_ports[port].route.members) > 1:
            await trio.testing.wait_all_tasks_blocked()
        assert [await visit() for _ in range(3)] == [b"b"] * 3
        fields: dict[str, object] = {"kind": "tcp", "remote_port": port}
        assert await refusal(server, name="ssh", group=False, **fields) == "port_taken"
        assert await refusal(server, name="ssh", deny_ip=["10.0.0.0/8"], **fields) == "group_mismatch"
