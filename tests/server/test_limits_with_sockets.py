"""The time limits again, shortened, over real sockets and both engines: what happens to everybody when they pass."""

import pytest
import trio

from otun import SessionClosed, open_session, open_tunnel

from .harness import RunningServer, open_descriptors
from .raw_client import raw_client, registered_client
from .services import receive_head, response
from .visitors import connect, receive_exactly, receive_until_reset, request


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, seconds: float) -> None:
    monkeypatch.setattr(f"otun.server.control_port.{name}", lambda since: since + seconds)


async def test_a_silent_clients_visitors_are_cut_short_with_it(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "silence_deadline", 0.3)
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(response(bytes(1000))[:500])
        await receive_exactly(visitor, 500)
        assert (await client.hear_farewell())["code"]
        await receive_until_reset(visitor)


async def test_connections_that_do_not_register_are_closed(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "registration_deadline", 0.2)
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 0.2)
    before = open_descriptors()
    silent = [await trio.open_tcp_stream("127.0.0.1", server.control.port) for _ in range(50)]
    for connection in silent:
        async with connection:
            async for _ in connection:
                pass
    with trio.fail_after(10):
        while len(open_descriptors()) > len(before):
            async with raw_client(server.control) as barrier:
                await barrier.register()


async def test_heartbeats_of_our_client_keep_its_tunnel(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, "silence_deadline", 0.2)
    monkeypatch.setattr("otun.client.registration.HEARTBEAT_INTERVAL", 0.02)
    async with open_tunnel(server.control, name="app") as tunnel:
        with trio.move_on_after(0.5) as scope:
            await tunnel.accept()
        assert scope.cancelled_caught


async def test_without_heartbeats_our_client_is_told_why_its_tunnel_has_ended(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "silence_deadline", 0.2)
    async with open_tunnel(server.control, name="app", reconnect=False) as tunnel:
        with trio.fail_after(5), pytest.raises(SessionClosed, match="heartbeat"):
            await tunnel.accept()


async def test_a_client_does_not_wait_for_ever_for_a_server_that_does_not_close(
    engine, start_service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.mux.board_driver.CLOSE_TIMEOUT", 0.2)

    async def register_and_forget(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(b'{"type":"registered","url":"http://app.example","subdomain":"app"}\n')
            await session.ping()
            may_leave.set()
            await trio.sleep_forever()

    may_leave = trio.Event()
    service = await start_service(register_and_forget)
    with trio.fail_after(3):
        async with open_tunnel(service.address):
            await may_leave.wait()
