"""The client's side of the control protocol, on a clock that jumps, without a socket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from otun import ServerUnreachable, Session, SessionClosed, Stream, TcpAddress
from otun.client.registration import open_registration
from otun.control.messages import Register
from otun.testing import session_pair

SERVER = TcpAddress("server.example", 4443)
REGISTERED = b'{"type":"registered","url":"http://app.example","subdomain":"app"}\n'


class Messages:
    """What the client says on its control stream, and when."""

    def __init__(self, control: Stream) -> None:
        self._control = control
        self._received = b""

    async def next(self) -> tuple[float, dict[str, object]]:
        while b"\n" not in self._received:
            piece = await self._control.receive_some()
            assert piece, "the client has ended its control stream"
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return trio.current_time(), json.loads(line)

    async def answer(self, message: bytes) -> None:
        await self._control.send_all(message)


@asynccontextmanager
async def registered(request: Register) -> AsyncIterator[tuple[Session, Messages, dict[str, object]]]:
    """Register by the client's own code; the server's end is the test's."""
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        arrived: list[tuple[Messages, dict[str, object]]] = []

        async def answer() -> None:
            messages = Messages(await server.accept())
            arrived.append((messages, (await messages.next())[1]))
            await messages.answer(REGISTERED)

        nursery.start_soon(answer)
        async with open_registration(client, SERVER, request) as registration:
            assert (registration.first.url, registration.first.subdomain) == ("http://app.example", "app")
            yield client, *arrived[0]


async def test_the_registration_is_what_the_go_program_says(autojump_clock) -> None:
    async with registered(Register(subdomain="app", token="secret")) as (_, _, request):
        assert request == {"type": "register", "subdomain": "app", "token": "secret"}


async def test_name_and_token_are_left_out_where_there_is_none(autojump_clock) -> None:
    async with registered(Register()) as (_, _, request):
        assert request == {"type": "register"}


async def test_the_client_says_a_heartbeat_every_30_seconds(autojump_clock) -> None:
    async with registered(Register()) as (_, messages, _):
        began = trio.current_time()
        for number in range(1, 20):
            when, message = await messages.next()
            assert message == {"type": "heartbeat"}
            assert when - began == pytest.approx(30 * number, abs=1)
            await messages.answer(b'{"type":"heartbeat_ack"}\n')


async def test_acknowledgements_may_be_joined_split_and_have_more_fields(autojump_clock) -> None:
    async with registered(Register()) as (client, messages, _):
        await messages.next()
        await messages.next()
        await messages.answer(b' {"type":"heartbeat_ack","load":0.5}{"type":"heart')
        await trio.sleep(1)
        await messages.answer(b'beat_ack"}\r\n')
        await messages.next()
        assert not client.is_closed


async def test_heartbeats_go_on_beside_busy_streams(autojump_clock) -> None:
    async with registered(Register()) as (client, messages, _), trio.open_nursery() as nursery:

        async def ping() -> None:
            while True:
                await trio.sleep(1)
                await client.ping()

        nursery.start_soon(ping)
        began = trio.current_time()
        assert (await messages.next())[0] - began == pytest.approx(30, abs=1)
        assert (await messages.next())[0] - began == pytest.approx(60, abs=1)
        nursery.cancel_scope.cancel()


async def test_no_heartbeat_comes_after_the_tunnel(autojump_clock) -> None:
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        controls: list[Messages] = []

        async def answer() -> None:
            controls.append(Messages(await server.accept()))
            await controls[0].next()
            await controls[0].answer(REGISTERED)

        nursery.start_soon(answer)
        async with open_registration(client, SERVER, Register()):
            await controls[0].next()
        with trio.move_on_after(1000) as scope:
            await controls[0].next()
        assert scope.cancelled_caught


async def test_a_dead_server_is_noticed(autojump_clock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with session_pair(transports=(ours, theirs)) as (client, server), trio.open_nursery() as nursery:

        async def answer_and_die() -> None:
            messages = Messages(await server.accept())
            await messages.next()
            await messages.answer(REGISTERED)
            await server.ping()  # so that it has left
            theirs.send_stream.send_all_hook = trio.sleep_forever  # From now on nothing comes from the server.

        nursery.start_soon(answer_and_die)
        async with open_registration(client, SERVER, Register()):
            began = trio.current_time()
            with pytest.raises(SessionClosed):
                await client.accept()
            assert trio.current_time() - began <= 90


@pytest.mark.parametrize("is_accepting", [True, False], ids=["accepting", "ignoring"])
async def test_an_answer_to_the_registration_is_awaited_for_10_seconds(autojump_clock, is_accepting: bool) -> None:
    async with session_pair() as (client, server):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            if is_accepting:
                nursery.start_soon(server.accept)
            with pytest.raises(ServerUnreachable, match=r"server\.example:4443.*10 seconds"):
                async with open_registration(client, SERVER, Register()):
                    pass
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    "answer",
    [b'{"type":"heartbeat_ack"}', b'{"type":"heartbeat"}', b"[]", b'{"type":"registered"}', b"HTTP/1.1 400"],
    ids=repr,
)
async def test_another_answer_to_the_registration_is_no_servers(autojump_clock, answer: bytes) -> None:
    async with session_pair() as (client, server), trio.open_nursery() as nursery:

        async def say_it() -> None:
            control = await server.accept()
            await control.receive_some()
            await control.send_all(answer)

        nursery.start_soon(say_it)
        with pytest.raises(ServerUnreachable, match=r"server\.example:4443"):
            async with open_registration(client, SERVER, Register()):
                pass


@pytest.mark.parametrize("is_polite", [True, False], ids=["ending", "resetting"])
async def test_a_control_stream_that_ends_without_an_answer_is_no_servers(autojump_clock, is_polite: bool) -> None:
    async with session_pair() as (client, server), trio.open_nursery() as nursery:

        async def end_it() -> None:
            control = await server.accept()
            await control.receive_some()
            if is_polite:
                await control.send_eof()
            else:
                control.reset()

        nursery.start_soon(end_it)
        with pytest.raises(ServerUnreachable, match=r"server\.example:4443"):
            async with open_registration(client, SERVER, Register()):
                pass
