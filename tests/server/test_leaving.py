"""A client that leaves: its name is free again at once."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from otun import Stream
from otun.server.registry import Registry

from .harness import RunningServer
from .log_lines import LogLines
from .raw_client import RawClient, raw_client, registered_client
from .services import receive_head, response
from .visitors import Responses, connect, fetch, request


async def close_the_session(client: RawClient) -> None:
    await client.session.aclose()


async def close_the_control_stream(client: RawClient) -> None:
    await client.control.send_eof()
    await client.session.wait_closed()


async def reset_the_control_stream(client: RawClient) -> None:
    client.control.reset()
    await client.session.wait_closed()


async def reset_the_connection(client: RawClient) -> None:
    await client.vanish()


async def break_the_control_protocol(client: RawClient) -> None:
    await client.say(b"nonsense")
    await client.hear_farewell()


WAYS = [
    close_the_session,
    close_the_control_stream,
    reset_the_control_stream,
    reset_the_connection,
    break_the_control_protocol,
]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_the_name_is_free_again_the_moment_the_client_goes(
    server: RunningServer, leave: Callable[[RawClient], Awaitable[None]]
) -> None:
    for _ in range(5):
        async with registered_client(server.control, "app") as client:
            await leave(client)
            async with raw_client(server.control) as next_client:
                assert (await next_client.register("app"))["type"] == "registered"


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_visitors_are_told_that_there_is_no_tunnel_any_more(
    server: RunningServer, registries: list[Registry], leave: Callable[[RawClient], Awaitable[None]]
) -> None:
    async with registered_client(server.control, "other"):
        async with registered_client(server.control, "app") as client:
            await leave(client)
            async with registered_client(server.control, "app"):
                pass  # The server has seen the first one go.
        while "app" in registries[0]:
            async with raw_client(server.control) as barrier:
                await barrier.session.ping()
        assert (await fetch(server.public, host="app.localhost")).status == 404


async def test_a_client_that_leaves_before_it_has_registered_leaves_nothing(
    server: RunningServer, registries: list[Registry]
) -> None:
    async with raw_client(server.control) as client:
        await client.say(b'{"type":"register","subdomain":"app"')
        await client.vanish()
    async with registered_client(server.control, "app"):
        assert len(registries[0]) == 1


# A client that says so first, and lets its visitors finish


async def go_away(client: RawClient) -> None:
    client.session.go_away()
    await client.session.ping()
    await trio.testing.wait_all_tasks_blocked()


async def answer_one(visitor: trio.abc.Stream, client: RawClient) -> Stream:
    """The visitor asks, and is answered; the stream stays for its next request."""
    await visitor.send_all(request())
    stream = await client.session.accept()
    await receive_head(stream)
    await stream.send_all(response(b"first"))
    return stream


async def test_the_name_of_a_client_that_goes_away_is_free_while_its_visitors_finish(server: RunningServer) -> None:
    async with registered_client(server.control, "app") as client, await connect(server.public) as visitor:
        await visitor.send_all(request(host="app.localhost"))
        stream = await client.session.accept()
        await receive_head(stream)
        await go_away(client)
        async with registered_client(server.control, "app"), registered_client(server.control, "other"):
            await stream.send_all(response(b"late"))
            answer = await Responses(visitor).next()
            assert (answer.status, answer.body) == (200, b"late")
        assert (await fetch(server.public, host="app.localhost")).status == 404


async def test_a_client_that_goes_away_is_rid_of_visitors_who_want_nothing_now(
    server: RunningServer, server_log: LogLines
) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        stream = await answer_one(visitor, client)
        responses = Responses(visitor)
        assert (await responses.next()).body == b"first"
        client.session.go_away()
        assert await stream.receive_some() == b""
        await visitor.send_all(request())
        assert (await responses.next()).status == 404
    assert any(line.endswith("leaves, when its visitors have finished") for line in server_log.lines)


@pytest.mark.parametrize("fields", [[], ["X: not known from before"]])
async def test_the_answer_that_is_under_way_when_a_client_goes_away_is_its_last(
    server: RunningServer, fields: list[str]
) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await go_away(client)
        await stream.send_all(response(b"last", *fields))
        assert (await Responses(visitor).next()).body == b"last"
        assert await stream.receive_some() == b""


async def test_a_client_that_goes_away_before_it_registers_gets_no_visitors(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        await go_away(client)
        await client.register("app")
        await client.session.ping()
        async with registered_client(server.control, "app"):
            pass


async def test_what_a_client_that_goes_away_says_of_its_health_is_of_no_interest(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        await client.register("app", health=True)
        await go_away(client)
        await client.say({"type": "health", "healthy": False})
        assert (await client.hear())["type"] == "heartbeat_ack"
