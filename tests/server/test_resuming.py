"""A session's secret, and whoever shows it."""

import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing

from otun import SessionClosed, open_tunnel
from otun.server import queries
from otun.server.database import open_database

from .conversation import Tenant, conversation, tenant
from .harness import TCP_PORTS, RunningServer
from .raw_client import RawClient, raw_client
from .stored_tokens import SOMEBODY, stored
from .visitors import fetch

PORT: Final = TCP_PORTS[80]
DOMAIN: Final = "tunnel.test"

Start = Callable[..., Awaitable[RunningServer]]


@pytest.fixture
def start(start_server) -> Start:
    """Start a server for ann, for bob, and for everybody else."""

    async def start(**changes: object) -> RunningServer:
        settings = {"domain": DOMAIN, "tokens": frozenset({"ann", "bob"}), "open": True}
        return await start_server(**(settings | changes))

    return start


async def see_taken_over(client: RawClient) -> None:
    farewell = await client.hear_farewell()
    assert (farewell["code"], farewell.get("retryable", False)) == ("taken_over", False)


async def see_alive(client: RawClient) -> None:
    await client.say({"type": "heartbeat"})
    assert (await client.hear())["type"] == "heartbeat_ack"


@pytest.mark.parametrize("token", ["ann", None], ids=["a token", "anonymous"])
async def test_whoever_shows_the_secret_has_the_names_at_once_although_the_session_lives(
    start: Start, token: str | None
) -> None:
    server = await start()
    async with raw_client(server.control) as old, raw_client(server.control) as new:
        before = await old.register("app", token=token, resume="")
        await old.register(None, token=token, id="1", kind="tcp", remote_port=PORT)
        secret = before["resume"]
        assert isinstance(secret, str)
        assert len(secret) >= 20
        after = await new.register("app", token=token, resume=secret)
        assert after["type"] == "registered", after
        assert after["resume"] not in ("", secret)
        await see_taken_over(old)
        answer = await new.register(None, token=token, id="1", kind="tcp", remote_port=PORT)
        assert answer["type"] == "registered"
        await see_alive(new)


async def test_a_secret_is_for_those_who_ask_and_good_for_one_session(start: Start) -> None:
    server = await start()
    async with raw_client(server.control) as old, raw_client(server.control) as new:
        assert not (await old.register("app", token="ann")).get("resume")
        assert not (await old.register("app-2", token="ann", id="1", resume="")).get("resume")
        first = (await new.register("app-3", token="ann", resume=""))["resume"]
        async with raw_client(server.control) as newer:
            second = (await newer.register("app-3", token="ann", resume=first))["resume"]
            await see_taken_over(new)
            async with raw_client(server.control) as again:
                assert (await again.register("app-3", token="ann", resume=first))["code"] == "name_taken"
            await see_alive(newer)
            assert second != first
        await see_alive(old)


async def test_a_name_that_the_server_made_up_is_the_same_again(start: Start) -> None:
    server = await start()
    async with raw_client(server.control) as old, raw_client(server.control) as new:
        before = await old.register(token="ann", resume="")
        after = await new.register(token="ann", resume=before["resume"])
        assert after["url"] == before["url"]
        await see_taken_over(old)


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param("guess", id="wrong"),
        pytest.param("\0\x1b[31m\U0001f600", id="controls"),
        pytest.param("x" * 60_000, id="huge"),
        pytest.param("{their}", id="somebody else's"),
        pytest.param("{cut}", id="cut short"),
        pytest.param("{longer}", id="with more behind it"),
        pytest.param("{own} ", id="with a space"),
    ],
)
async def test_another_secret_changes_nothing(start: Start, secret: str) -> None:
    server = await start()
    async with raw_client(server.control) as ann, raw_client(server.control) as bob, raw_client(server.control) as new:
        own = str((await ann.register("app", token="ann", resume=""))["resume"])
        their = str((await bob.register("other", token="bob", resume=""))["resume"])
        shown = secret.format(their=their, cut=own[:-1], longer=f"{own}A", own=own)
        answer = await new.register("app", token="ann", resume=shown)
        assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "name_taken", True)
        assert own not in str(answer)
        assert len(str(answer)) < 1000
        await see_alive(ann)
        await see_alive(bob)


@pytest.mark.parametrize("token", ["bob", None, "wrong"])
async def test_a_secret_is_of_no_use_to_anybody_else(start: Start, token: str | None) -> None:
    server = await start(open=token != "wrong")
    async with raw_client(server.control) as ann, raw_client(server.control) as thief:
        secret = (await ann.register("app", token="ann", resume=""))["resume"]
        answer = await thief.register("app", token=token, resume=secret)
        assert (answer["code"], answer.get("retryable", False)) == (
            "bad_token" if token == "wrong" else "name_taken",
            False,
        )
        await see_alive(ann)


@pytest.mark.parametrize("value", [1, True, [], {}, ["x"], 1.5], ids=repr)
async def test_a_secret_that_is_no_text_is_a_bad_message(start: Start, value: object) -> None:
    server = await start()
    async with raw_client(server.control) as client:
        await client.say({"type": "register", "subdomain": "app", "token": "ann", "resume": value})
        assert "resume" in str((await client.hear_farewell())["message"])


async def test_a_session_does_not_take_its_own_place(start: Start) -> None:
    server = await start()
    async with raw_client(server.control) as client:
        secret = (await client.register("app", token="ann", resume=""))["resume"]
        answer = await client.register("app-2", token="ann", id="1", resume=secret)
        assert answer["type"] == "registered"
        await see_alive(client)


REFUSED: Final = [
    ("their", {}),
    ("-no-name-", {}),
    ("app", {"kind": "udp"}),
    ("app", {"kind": "tls"}),
    ("app", {"path": "no path"}),
    ("app", {"hostnames": ["a.example.net"]}),
    ("app", {"hostnames": ["shop.example.org"]}),
    ("app", {"allow_ip": ["nowhere"]}),
    ("app", {"id": "x" * 65}),
    (None, {"kind": "tcp", "remote_port": 1}),
    (None, {"kind": "tcp", "remote_port": PORT + 1}),
    (None, {"kind": "tcp", "remote_port": PORT + 2}),
]


@pytest.mark.parametrize(("name", "fields"), REFUSED, ids=str)
async def test_a_session_ends_only_when_the_one_that_shows_its_secret_has_a_tunnel(
    start: Start, name: str | None, fields: dict[str, object]
) -> None:
    server = await start(allow_hostnames=("*.example.org",))
    async with raw_client(server.control) as ann, raw_client(server.control) as bob, raw_client(server.control) as new:
        with socket.create_server(("127.0.0.1", PORT + 2)):
            await bob.register("their", token="bob", hostnames=["shop.example.org"])
            await bob.register(None, token="bob", id="1", kind="tcp", remote_port=PORT + 1)
            secret = (await ann.register("app", token="ann", resume=""))["resume"]
            assert (await new.register(name, token="ann", resume=secret, **fields))["type"] == "error"
            await see_alive(ann)
            async with raw_client(server.control) as again:
                assert (await again.register("app", token="ann", resume=secret))["type"] == "registered"
                await see_taken_over(ann)


async def test_a_session_that_gives_way_makes_room_under_its_tokens_limit(start: Start, tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await database.write(queries.create_token, stored("one", max_tunnels=1), SOMEBODY)
    server = await start(state=tmp_path)
    async with raw_client(server.control) as old, raw_client(server.control) as new:
        secret = (await old.register("app", token="one-secret", resume=""))["resume"]
        async with raw_client(server.control) as other:
            assert (await other.register("app-2", token="one-secret"))["code"] == "too_many_tunnels"
        await see_alive(old)
        assert (await new.register("app-2", token="one-secret", resume=secret))["type"] == "registered"
        await see_taken_over(old)


async def test_the_last_port_passes_from_a_session_to_the_one_that_takes_its_place(start: Start) -> None:
    server = await start(tcp_ports=(range(PORT, PORT + 1),))
    async with raw_client(server.control) as old, raw_client(server.control) as new:
        secret = (await old.register(token="ann", kind="tcp", resume=""))["resume"]
        assert (await new.register(token="ann", kind="tcp", resume=secret))["type"] == "registered"
        await see_taken_over(old)


async def test_a_session_without_a_port_stays_when_there_is_none_for_the_next(start: Start) -> None:
    server = await start(tcp_ports=(range(PORT, PORT + 1),))
    async with raw_client(server.control) as bob, raw_client(server.control) as old, raw_client(server.control) as new:
        await bob.register(token="bob", kind="tcp")
        secret = (await old.register("app", token="ann", resume=""))["resume"]
        assert (await new.register(token="ann", kind="tcp", resume=secret))["code"] == "no_port_free"
        await see_alive(old)


async def test_of_twenty_with_the_same_secret_one_has_the_name_in_the_end(start: Start) -> None:
    server = await start()
    async with raw_client(server.control) as old, AsyncExitStack() as stack:
        secret = (await old.register("app", token="ann", resume=""))["resume"]
        clients = [await stack.enter_async_context(raw_client(server.control)) for _ in range(20)]
        await see_one_winner([partial(one.register, "app", token="ann", resume=secret) for one in clients])
        await see_taken_over(old)


@pytest.mark.parametrize("tokens", [["ann"], ["ann", "bob"], [None], ["ann", "bob", None]], ids=repr)
async def test_of_twenty_that_come_for_one_name_one_has_it(start: Start, tokens: list[str | None]) -> None:
    server = await start()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(server.control)) for _ in range(20)]
        asking = [
            partial(client.register, "app", token=tokens[number % len(tokens)]) for number, client in enumerate(clients)
        ]
        await see_one_winner(asking)


async def see_one_winner(asking: list[Callable[[], Awaitable[dict[str, object]]]]) -> None:
    answers: list[dict[str, object]] = []

    async def ask(one: Callable[[], Awaitable[dict[str, object]]]) -> None:
        answers.append(await one())

    async with trio.open_nursery() as nursery:
        for one in asking:
            nursery.start_soon(ask, one)
    codes = sorted(str(answer.get("code", "")) for answer in answers)
    assert codes == ["", *["name_taken"] * (len(asking) - 1)]


async def test_visitors_whose_requests_run_are_told_and_the_next_ones_reach_the_new_session(start: Start) -> None:
    async def hold(tenant: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if b"/slow" in head:
            await trio.sleep_forever()
        if b"/half" in head:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            await trio.sleep_forever()

    server = await start()
    host = f"app.{DOMAIN}"
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        old = await stack.enter_async_context(raw_client(server.control))
        secret = (await old.register("app", token="ann", resume=""))["resume"]
        tenant_before = Tenant("before", old, "", hold)
        nursery.start_soon(old.serve, tenant_before.answer)
        slow = await stack.enter_async_context(conversation(server.public))
        half = await stack.enter_async_context(conversation(server.public))
        await slow.send("/slow", host=host)
        await half.send("/half", host=host)
        await tenant_before.wait_for_requests(2)
        async with tenant(server.control, "app", token="ann", resume=secret) as after:
            assert (await slow.receive()).status == 502
            with suppress(trio.BrokenResourceError):  # Cut short, so that nobody takes it for the whole.
                assert b"half" in await half.receive_rest()
            answer = await fetch(server.public, "/next", host=host)
            assert (answer.status, answer.body) == (200, b"app 1 /next")
            assert len(after.heads) == 1
        nursery.cancel_scope.cancel()


async def test_the_library_takes_over_and_the_one_before_is_told_why(start: Start) -> None:
    server = await start()
    async with open_tunnel(server.control, name="app", token="ann") as old:
        assert old.resume_secret
        async with open_tunnel(server.control, name="app", token="ann", resume=old.resume_secret) as new:
            assert (new.name, new.url) == (old.name, old.url)
            with pytest.raises(SessionClosed, match="another session of this client has taken its place"):
                await old.accept()
            assert old.resume_secret not in repr(old) + repr(new)
            assert new.resume_secret != old.resume_secret
