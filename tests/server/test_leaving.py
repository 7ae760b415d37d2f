"""A client that leaves: its name is free again at once."""

from collections.abc import Awaitable, Callable

import pytest

from otun.server.registry import Registry

from .harness import RunningServer
from .raw_client import RawClient, raw_client, registered_client
from .visitors import fetch


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
