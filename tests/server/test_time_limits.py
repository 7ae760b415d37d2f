"""A server's time limits, on a clock that jumps, with sessions in memory, so that neither engine takes part."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Final

import attrs
import pytest
import trio

from otun import ServerSettings, Session, SessionClosed, TcpAddress
from otun.access import UNLIMITED
from otun.server.absence import Hold
from otun.server.authentication import Authenticator
from otun.server.bans import Bans
from otun.server.clients import ClientAddress, Clients
from otun.server.control_port import ControlPort
from otun.server.opening import TunnelOpener
from otun.server.registry import Registry
from otun.server.reservations import Reservations
from otun.server.tcp_port import TcpPorts
from otun.server.traffic import Traffic
from otun.server.urls import PublicPorts
from otun.switchboard import open_switchboard
from otun.testing import session_pair

from .raw_client import RawClient

CLIENT: Final = ClientAddress(TcpAddress("127.0.0.1", 50_000), "127.0.0.1")
HEARTBEAT: Final = b'{"type":"heartbeat"}\n'


@attrs.define(eq=False)
class Served:
    """A client's session, the server's end of it, and when the server was done with it."""

    client: Session
    server: Session
    registry: Registry
    began: float
    ended_at: float | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def open_control(self) -> RawClient:
        return RawClient(self.client, trio.testing.memory_stream_pair()[0], await self.client.open_stream())

    async def wait_ended(self) -> float:
        """Wait until the server has dropped the client; return the time since the connection was made."""
        await self.ended.wait()
        assert self.ended_at is not None
        return self.ended_at - self.began


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    registry = Registry(None)
    async with (
        open_switchboard() as board,
        session_pair() as (client, server),
        trio.open_nursery() as nursery,
    ):
        bans = Bans(None)
        tcp_ports = TcpPorts((), (), board, bans, max_streams=1, hold=Hold(board, 0))
        clients = Clients()
        opener = TunnelOpener(
            ServerSettings(),
            clients,
            Authenticator(key=b"", is_open=True),
            Reservations(None, lifetime=0),
            registry,
            tcp_ports,
            Traffic(board, None, UNLIMITED),
            ports=PublicPorts(http=8080),
        )
        port = ControlPort(clients, opener, bans)
        served = Served(client, server, registry, trio.current_time())

        async def serve() -> None:
            await port.serve_client(server, CLIENT)
            served.ended_at = trio.current_time()
            served.ended.set()
            await server.aclose()

        nursery.start_soon(serve)
        yield served
        nursery.cancel_scope.cancel()


async def drip(client: RawClient, piece: bytes, interval: float) -> None:
    """Send *piece* again and again until the session ends."""
    with suppress(SessionClosed):
        while True:
            await trio.sleep(interval)
            await client.say(piece)


async def test_a_connection_without_a_stream_is_dropped_after_10_seconds(autojump_clock) -> None:
    async with serving() as served:
        assert await served.wait_ended() == pytest.approx(10, abs=0.5)


async def test_a_client_that_does_not_register_is_dropped_after_10_seconds(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        assert await served.wait_ended() == pytest.approx(10, abs=0.5)
        await served.client.wait_closed()
        assert client.session.is_closed


@pytest.mark.parametrize("start", [b"", b'{"type":"register"', b'{"type":"register","x":"'], ids=repr)
async def test_bytes_short_of_a_message_do_not_help_against_the_10_seconds(autojump_clock, start: bytes) -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        client = await served.open_control()
        nursery.start_soon(drip, client, b" ", 0.5)
        await client.say(start)
        assert await served.wait_ended() == pytest.approx(10, abs=0.5)


async def test_pings_do_not_help_against_the_10_seconds(autojump_clock) -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        nursery.start_soon(ping, served.client, 1)
        assert await served.wait_ended() == pytest.approx(10, abs=0.5)


async def test_a_registration_just_in_time_is_in_time(autojump_clock) -> None:
    async with serving() as served:
        await trio.sleep(5)
        client = await served.open_control()
        await client.say(b'{"type":"reg')
        await trio.sleep(4.5)
        await client.say(b'ister","subdomain":"app"}')
        assert (await client.hear())["type"] == "registered"
        await trio.sleep(60)
        assert "app" in served.registry


async def ping(session: Session, interval: float) -> None:
    with suppress(SessionClosed):
        while True:
            await trio.sleep(interval)
            await session.ping()


async def visit(server: Session, interval: float) -> None:
    """Open a visitor's stream again and again, and have it echo."""
    with suppress(SessionClosed):
        while True:
            await trio.sleep(interval)
            async with await server.open_stream() as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"


async def echo(client: Session) -> None:
    async def handle(stream) -> None:
        async for piece in stream:
            await stream.send_all(piece)

    with suppress(SessionClosed):
        await client.serve(handle)


async def test_silent_client_is_dropped_after_90_seconds(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        await client.register("app")
        answer = await client.hear()
        assert answer["type"] == "error"
        assert answer["code"]
        assert "90" in str(answer["message"])
        assert await served.wait_ended() == pytest.approx(90, abs=0.5)
        assert "app" not in served.registry
        await client.see_session_end()


async def test_silent_client_is_dropped_whatever_else_yamux_carries(autojump_clock) -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        client = await served.open_control()
        await client.register("app")
        for task in ((ping, served.client, 3), (ping, served.server, 7), (visit, served.server, 5)):
            nursery.start_soon(*task)
        nursery.start_soon(echo, served.client)
        assert await served.wait_ended() == pytest.approx(90, abs=0.5)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("start", [b"\n", b'{"type":"heartbeat"', b'{"type":"heartbeat","x":"'], ids=repr)
async def test_bytes_short_of_a_message_do_not_help_against_the_90_seconds(autojump_clock, start: bytes) -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        client = await served.open_control()
        await client.register("app")
        await client.say(start)
        nursery.start_soon(drip, client, b" ", 10)
        assert await served.wait_ended() == pytest.approx(90, abs=0.5)


async def test_each_heartbeat_gives_90_more_seconds(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        await client.register("app")
        for _ in range(5):
            await trio.sleep(89)
            await client.say(HEARTBEAT)
            assert await client.hear() == {"type": "heartbeat_ack"}
        assert await served.wait_ended() == pytest.approx(5 * 89 + 90, abs=0.5)


async def test_a_client_that_beats_every_30_seconds_stays_for_hours(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        await client.register("app")
        for _ in range(2 * 60 * 3):
            await trio.sleep(30)
            await client.say(HEARTBEAT)
            assert await client.hear() == {"type": "heartbeat_ack"}
        assert "app" in served.registry


async def test_heartbeats_are_answered_at_once(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        await client.register("app")
        times = [trio.current_time()]
        for _ in range(3):
            await client.say(HEARTBEAT)
            await client.hear()
            times.append(trio.current_time())
        assert all(later == earlier for earlier, later in pairwise(times))


async def test_a_client_that_does_not_read_its_acknowledgements_is_dropped_in_the_end(autojump_clock) -> None:
    async with serving() as served:
        client = await served.open_control()
        await client.register("app")
        with suppress(SessionClosed):
            for _ in range(15):  # The answers are more than a window holds.
                await client.say(HEARTBEAT * 1000)
        assert await served.wait_ended() <= 100
