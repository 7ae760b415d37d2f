"""Sessions that have fallen silent, and who may have their names; on a clock that jumps."""

from contextlib import AsyncExitStack

import pytest
import trio

from .harness import TCP_PORTS
from .memory_server import Line, MemoryServer, memory_server
from .raw_client import RawClient

PORT = TCP_PORTS[70]


async def ask(server: MemoryServer, token: str | None, name: str | None, **fields: object) -> dict[str, object]:
    """Ask for a tunnel on a session of its own, which ends with the answer."""
    async with server.connect() as (client, _):
        return await client.register(name, token=token, **fields)


def check_taken(answer: dict[str, object], *, retryable: bool) -> None:
    code = ("error", "name_taken", retryable)
    assert (answer["type"], answer.get("code"), answer.get("retryable", False)) == code, answer


async def beat(client: RawClient) -> None:
    """Be a client that is there."""
    while True:
        await trio.sleep(30)
        await client.say({"type": "heartbeat"})
        assert (await client.hear())["type"] == "heartbeat_ack"


async def hear_the_end(client: RawClient, line: Line) -> dict[str, object]:
    """Come back to life, and hear how it has ended."""
    line.thaw()
    farewell = await client.hear_farewell()
    assert farewell["code"] == "taken_over"
    assert not farewell.get("retryable", False)
    assert "another session" in str(farewell["message"])
    return farewell


async def test_the_same_token_has_its_name_after_15_seconds_of_silence_and_not_before(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line):
        await old.register("app", token="ann")
        line.freeze()
        await trio.sleep(14.5)
        check_taken(await ask(server, "ann", "app"), retryable=True)
        await trio.sleep(1)
        async with server.connect() as (new, _):
            assert (await new.register("app", token="ann"))["type"] == "registered"
            await hear_the_end(old, line)
            assert "app" in server.registry


async def test_all_that_the_old_session_had_is_free(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line):
        await old.register("app", token="ann", hostnames=["shop.example.org"])
        await old.register(None, token="ann", id="1", kind="tcp", remote_port=PORT)
        line.freeze()
        await trio.sleep(16)
        async with server.connect() as (new, _):
            assert (await new.register(token="ann", kind="tcp", remote_port=PORT))["type"] == "registered"
            for number, fields in enumerate(({"hostnames": ["shop.example.org"]}, {"path": "/api"})):
                assert (await new.register("app", token="ann", id=f"{number}", **fields))["type"] == "registered"
            await hear_the_end(old, line)


async def test_a_client_that_chooses_no_name_has_the_same_one_again(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line):
        before = await old.register(token="ann", local="3000")
        line.freeze()
        await trio.sleep(16)
        async with server.connect() as (new, _):
            after = await new.register(token="ann", local="3000")
            assert after["url"] == before["url"]
            await hear_the_end(old, line)


async def test_another_token_never_takes_over(autojump_clock) -> None:
    async with memory_server("ann", "bob") as server, server.connect() as (old, line):
        await old.register("app", token="ann")
        line.freeze()
        for _ in range(60):  # Until the session has ended for good, and beyond.
            await trio.sleep(1)
            check_taken(await ask(server, "bob", "app"), retryable=False)
        assert "app" not in server.registry
        assert (await ask(server, "ann", "app"))["type"] == "registered"


async def test_a_session_that_answers_pings_is_not_silent_however_little_it_says(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, _):
        await old.register("app", token="ann")
        for _ in range(85):
            await trio.sleep(1)
            check_taken(await ask(server, "ann", "app"), retryable=True)
        assert "app" in server.registry


async def test_one_that_was_silent_for_less_is_not_taken_over_afterwards(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line), trio.open_nursery() as nursery:
        await old.register("app", token="ann")
        nursery.start_soon(beat, old)
        for _ in range(40):
            line.freeze()
            await trio.sleep(4)
            check_taken(await ask(server, "ann", "app"), retryable=True)
            line.thaw()
            await trio.sleep(1)
        check_taken(await ask(server, "ann", "app"), retryable=True)
        nursery.cancel_scope.cancel()


async def test_two_clients_with_one_token_never_evict_each_other(autojump_clock) -> None:
    async with memory_server("ann") as server:
        for _ in range(2):  # Each of them in turn is the first.
            async with server.connect() as (first, _), trio.open_nursery() as nursery:
                assert (await first.register("app", token="ann"))["type"] == "registered"
                nursery.start_soon(beat, first)
                for _ in range(120):
                    await trio.sleep(5)
                    answer = await ask(server, "ann", "app")
                    check_taken(answer, retryable=True)
                    assert "15 s" in str(answer["message"])
                nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()


async def test_an_evicted_client_that_comes_back_does_not_evict_in_turn(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line):
        await old.register("app", token="ann")
        line.freeze()
        await trio.sleep(16)
        async with server.connect() as (new, _), trio.open_nursery() as nursery:
            await new.register("app", token="ann")
            nursery.start_soon(beat, new)
            await hear_the_end(old, line)
            for _ in range(30):
                await trio.sleep(1)
                check_taken(await ask(server, "ann", "app"), retryable=True)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
async def test_without_tokens_nobody_takes_over_from_a_silent_session_without_its_secret(
    autojump_clock, host: str
) -> None:
    async with memory_server(is_open=True) as server, server.connect() as (old, line):
        secret = (await old.register("app", resume=""))["resume"]
        line.freeze()
        for _ in range(19):
            await trio.sleep(1)
            async with server.connect(host) as (new, _):
                check_taken(await new.register("app"), retryable=True)
        async with server.connect(host) as (new, _):
            assert (await new.register("app", resume=secret))["type"] == "registered"
            await hear_the_end(old, line)


async def test_of_twenty_that_take_over_at_once_one_has_the_name(autojump_clock) -> None:
    async with memory_server("ann") as server, server.connect() as (old, line), AsyncExitStack() as stack:
        await old.register("app", token="ann")
        line.freeze()
        await trio.sleep(16)
        clients = [(await stack.enter_async_context(server.connect()))[0] for _ in range(20)]
        answers: list[dict[str, object]] = []

        async def register(client: RawClient) -> None:
            answers.append(await client.register("app", token="ann"))

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(register, client)
        assert [answer["type"] for answer in answers].count("registered") == 1
        for answer in answers:
            if answer["type"] == "error":
                check_taken(answer, retryable=True)
        await hear_the_end(old, line)
