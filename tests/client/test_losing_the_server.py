"""The server goes: `forward` and `accept` say so, and visitors see that they were cut short."""

import pytest
import trio

from otun import OtunError, SessionClosed, Tunnel, forward, open_session, open_tunnel

from ..server.harness import RunningServer
from ..server.services import receive_all, receive_head, response
from ..server.visitors import connect, receive_exactly, receive_until_reset, request
from .support import Use, accept_one, forward_it, uses


@uses
async def test_a_server_that_stops_ends_whatever_uses_the_tunnel(
    server: RunningServer, nursery: trio.Nursery, use: Use
) -> None:
    async with open_tunnel(server.control, name="app", reconnect=False) as tunnel:
        nursery.start_soon(server.stop)
        with pytest.raises(SessionClosed) as caught:
            await use(tunnel)
        assert "\n" not in str(caught.value)
        with pytest.raises(SessionClosed):
            await use(tunnel)


async def test_serving_a_tunnel_that_is_closed_here_ends_without_an_error(
    server: RunningServer, nursery: trio.Nursery
) -> None:
    async with open_tunnel(server.control, name="app", reconnect=False) as tunnel:
        nursery.start_soon(tunnel.aclose)
        await tunnel.serve(receive_head)


async def test_forward_as_a_whole_raises_it_too(server: RunningServer, nursery: trio.Nursery) -> None:
    async def stop_when_open(task_status: trio.TaskStatus[Tunnel]) -> None:
        with pytest.raises(SessionClosed):
            await forward(server.control, 3000, name="app", reconnect=False, task_status=task_status)
        ended.set()

    ended = trio.Event()
    tunnel = await nursery.start(stop_when_open)
    assert "open" in repr(tunnel)
    await server.stop()
    await ended.wait()
    assert "closed" in repr(tunnel)


async def test_a_lost_tunnel_does_not_interrupt_the_body(server: RunningServer) -> None:
    async with open_tunnel(server.control, name="app", reconnect=False) as tunnel:
        await server.stop()
        with pytest.raises(SessionClosed):
            await tunnel.accept()
        await trio.lowlevel.checkpoint()


# A server that is the test's


async def drop_the_connection(control, session, connection) -> None:
    await trio.aclose_forcefully(connection)


async def close_the_session(control, session, connection) -> None:
    await session.aclose()


async def close_the_control_stream(control, session, connection) -> None:
    await control.send_eof()


async def reset_the_control_stream(control, session, connection) -> None:
    control.reset()


async def send_an_error(control, session, connection) -> None:
    await control.send_all(b'{"type":"error","message":"the tunnel is closed for repairs"}\n')


async def send_an_error_and_close(control, session, connection) -> None:
    await control.send_all(b'{"type":"error","message":"the tunnel is closed for repairs"}\n')
    await session.aclose()


async def send_nonsense(control, session, connection) -> None:
    await control.send_all(b"nonsense\n")


async def send_another_message(control, session, connection) -> None:
    await control.send_all(b'{"type":"register"}\n')


WAYS = [
    drop_the_connection,
    close_the_session,
    close_the_control_stream,
    reset_the_control_stream,
    send_an_error,
    send_an_error_and_close,
    send_nonsense,
    send_another_message,
]


@uses
@pytest.mark.parametrize("end", WAYS, ids=lambda way: way.__name__)
async def test_however_the_server_ends_the_tunnel_the_client_notices(engine, start_service, use: Use, end) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(b'{"type":"registered","url":"http://app.example","subdomain":"app"}\n')
            await may_end.wait()
            await end(control, session, connection)
            await session.wait_closed()

    may_end = trio.Event()
    service = await start_service(serve)
    async with open_tunnel(service.address, reconnect=False) as tunnel:
        may_end.set()
        with trio.fail_after(10), pytest.raises(SessionClosed) as caught:
            await use(tunnel)
        assert isinstance(caught.value, OtunError)
        assert f"the server at {service.address}" in str(caught.value)
        if end is close_the_session:
            assert str(caught.value) == f"lost the server at {service.address}: it closed the connection"
        if end in (send_an_error, send_an_error_and_close):
            assert "closed for repairs" in str(caught.value)


@pytest.mark.parametrize("use", [forward_it, accept_one], ids=lambda use: use.__name__)
async def test_a_tunnel_that_we_have_ended_has_not_lost_its_server(server: RunningServer, use: Use) -> None:
    async with open_tunnel(server.control, name="app", reconnect=False) as tunnel:
        pass
    async with open_tunnel(server.control, name="app") as another:
        await another.aclose()
        for ended in (tunnel, another):
            with pytest.raises(SessionClosed) as caught:
                await use(ended)
            assert str(caught.value) == "the session was closed on this side"


async def test_what_the_server_tells_is_what_the_tunnel_shows(engine, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(
                b' {"type":"registered","later":[],"url":"https://else.example/x","subdomain":"given"} '
            )
            await session.wait_closed()

    service = await start_service(serve)
    async with open_tunnel(service.address, name="wanted") as tunnel:
        assert (tunnel.name, tunnel.url) == ("given", "https://else.example/x")
        assert "given" in repr(tunnel)


# Visitors


async def test_a_visitor_and_the_service_see_that_they_were_cut_short(tunnel_to) -> None:
    async def answer_half(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(1000))[:500])
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(connection)
        service_has_noticed.set()

    service_has_noticed = trio.Event()
    place = await tunnel_to(answer_half)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request(method="POST", body=bytes(1000))[:600])
        await receive_exactly(visitor, 500)
        await place.server.stop()
        with trio.fail_after(10):
            await receive_until_reset(visitor)
            await service_has_noticed.wait()
