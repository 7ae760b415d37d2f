"""A whole server with its client and its visitors: in memory, on a clock that jumps, and in milliseconds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from otun import (
    Connected,
    Lost,
    NotAllowed,
    Retrying,
    ServerSettings,
    Stream,
    TokenRefused,
    Tunnel,
    TunnelSettings,
)
from otun.testing import World, open_world

from .server.conversation import Conversation, receive_request
from .server.services import response

HOST = "app.tunnel.test"


@asynccontextmanager
async def answered(world: World, name: str = "app", **keywords: object) -> AsyncIterator[Tunnel]:
    """A tunnel that answers each visitor with its own name, and what has been asked for."""

    async def answer(stream: Stream) -> None:
        rest = b""
        while True:
            head, body, rest = await receive_request(stream, rest)
            if not head:
                return
            await stream.send_all(response(b"%s: %s" % (name.encode(), body or head.split()[1])))

    async with world.open_tunnel(name=name, **keywords) as tunnel, trio.open_nursery() as nursery:  # type: ignore[arg-type]
        nursery.start_soon(tunnel.serve, answer)
        yield tunnel
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def visitor(world: World) -> AsyncIterator[Conversation]:
    async with world.visit() as stream:
        yield Conversation(stream)


async def is_served(world: World) -> bool:
    async with visitor(world) as one:
        answer = await one.ask("/x", host=HOST)
        return (answer.status, answer.body) == (200, b"app: /x")


async def test_a_visitor_reaches_the_program(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel, visitor(world) as one:
        assert tunnel.url == "http://app.tunnel.test"
        for path in ("/a", "/b"):
            assert (await one.ask(path, host=HOST)).body == b"app: " + path.encode()


async def test_a_connection_that_breaks_is_replaced_and_visitors_wait_for_that(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel, visitor(world) as one:
        events = tunnel.events()
        assert isinstance(await anext(events), Connected)
        for _ in range(20):
            world.break_connections()
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            assert (await one.ask("/x", host=HOST)).body == b"app: /x"
            assert trio.current_time() - before < 3
            assert [type(await anext(events)) for _ in range(3)] == [Lost, Retrying, Connected]
            await trio.sleep(61)


async def test_a_server_that_is_away_for_long_is_found_again(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel:
        url = tunnel.url
        for outage, longest in ((10, 2), (299, 2), (3600, 30)):
            world.kill_server()
            with pytest.raises(ConnectionRefusedError):
                await is_served(world)
            await trio.sleep(outage)
            await world.start_server()
            await trio.sleep(longest + 0.01)
            assert await is_served(world)
            assert tunnel.url == url
            await trio.sleep(61)


async def test_a_link_that_is_down_is_noticed_by_both_within_their_time(autojump_clock) -> None:
    async with open_world(ServerSettings(domain="tunnel.test", hold=60)) as world, answered(world) as tunnel:
        events = tunnel.events()
        assert isinstance(await anext(events), Connected)
        world.stall()
        before = trio.current_time()
        assert isinstance(await anext(events), Lost)
        assert trio.current_time() - before <= 15
        await trio.sleep(30)
        async with visitor(world) as one, trio.open_nursery() as nursery:
            nursery.start_soon(go_on_after, world, 5)
            before = trio.current_time()
            assert (await one.ask("/x", host=HOST)).body == b"app: /x"
            assert 5 <= trio.current_time() - before <= 8


async def go_on_after(world: World, seconds: float) -> None:
    await trio.sleep(seconds)
    world.go_on()


async def test_a_link_that_is_down_for_a_moment_loses_nothing(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel, visitor(world) as one:
        events = tunnel.events()
        world.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on_after, world, 4)
            assert (await one.ask("/x", host=HOST)).body == b"app: /x"
        await trio.sleep(100)
        assert isinstance(await anext(events), Connected)
        with trio.move_on_after(1000):
            await anext(events)
            raise AssertionError("something has happened")


async def test_a_server_that_is_replaced_serves_who_is_there_and_the_next_one_the_others(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel, visitor(world) as early:
        events = tunnel.events()
        assert (await early.ask("/x", host=HOST)).body == b"app: /x"
        await early.send("/y", host=HOST)
        await world.start_server()
        assert (await early.receive()).body == b"app: /y"
        assert await is_served(world)
        await trio.sleep(100)
        assert await is_served(world)
        kinds = [type(await anext(events)) for _ in range(4)]
        assert kinds == [Connected, Lost, Retrying, Connected]


async def test_what_the_server_refuses_is_raised_and_what_it_ends_is_told(autojump_clock) -> None:
    tokens = ServerSettings(domain="tunnel.test", tokens=frozenset({"s3cret"}))
    async with open_world(tokens) as world:
        with pytest.raises(TokenRefused):
            async with answered(world, token="wrong"):
                pass
        async with answered(world, token="s3cret"):
            assert await is_served(world)
        with pytest.raises(NotAllowed):
            async with world.open_tunnel(TunnelSettings(hostnames=("shop.example.org",)), token="s3cret"):
                pass


async def test_who_waits_in_vain_is_told_so_after_five_seconds(autojump_clock) -> None:
    async with open_world() as world, answered(world):
        world.stall()
        await trio.sleep(21)  # The server has noticed.
        before = trio.current_time()
        async with visitor(world) as one:
            answer = await one.ask("/x", host=HOST)
            assert (answer.status, answer.fields["Otun-Error"]) == (502, "tunnel_closed")
            assert trio.current_time() - before <= 5
        world.go_on()


async def test_a_server_that_drains_ends_when_nobody_is_left(autojump_clock) -> None:
    async with open_world() as world, answered(world), visitor(world) as one:
        await one.send("/x", host=HOST)
        world.drain_server()
        answer = await one.receive()
        assert (answer.body, answer.fields["Connection"]) == (b"app: /x", "close")
        with pytest.raises(ConnectionRefusedError):
            await is_served(world)
        await trio.sleep(100)
        await world.start_server()
        await trio.sleep(2.01)
        assert await is_served(world)


async def test_a_session_that_has_had_as_many_visitors_as_it_can_is_replaced(autojump_clock) -> None:
    async with open_world() as world, answered(world) as tunnel:
        events = tunnel.events()
        assert world._server is not None
        (client,) = world._server.hub.clients
        client.session._connection._next_id += 2 * (client.session.streams_left - 3_000_000)
        assert await is_served(world)
        await trio.sleep(100)
        assert [type(await anext(events)) for _ in range(4)] == [Connected, Lost, Retrying, Connected]
        assert await is_served(world)
        (client,) = world._server.hub.clients
        assert client.session.streams_left > 2_000_000_000
