"""Server, client and service in one Trio program, as the README shows it; and what it leaves behind: nothing."""

import gc
from functools import partial

import pytest
import trio

import otun
from otun import ServerSettings, TcpAddress

from ..server.harness import Engine, choose_engine, loopback_settings, open_descriptors, run_server
from ..server.raw_client import registered_client
from ..server.services import answering, receive_head, response
from ..server.visitors import connect, fetch, parse, receive_exactly, request


async def test_a_tunnel_fits_into_15_lines(engine) -> None:
    loopback = TcpAddress("127.0.0.1", 0)

    async def hello(stream: trio.abc.Stream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")

    async with trio.open_nursery() as nursery:
        settings = ServerSettings(control=loopback, public=loopback)
        server = await nursery.start(otun.serve, settings)
        async with otun.open_tunnel(server.control_addresses[0], name="hello") as tunnel:
            nursery.start_soon(trio.serve_listeners, hello, [tunnel])
            assert tunnel.url == f"http://hello.localhost:{server.public_addresses[0].port}"
            assert (await fetch(server.public_addresses[0], host="hello.localhost")).body == b"hello"
            nursery.cancel_scope.cancel()


async def test_so_does_forwarding_to_a_port(engine) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answering(b"there"), 0, host="127.0.0.1"))
        local_port = listeners[0].socket.getsockname()[1]
        server = await nursery.start(otun.serve, loopback_settings())
        tunnel = await nursery.start(otun.forward, server.control_addresses[0], local_port)
        assert len(tunnel.name) == 8
        assert (await fetch(server.public_addresses[0], host="any.example")).body == b"there"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("client_engine", ["epoll", "tasks"])
async def test_a_client_of_either_engine_works_with_the_server(
    engine: Engine, nursery: trio.Nursery, start_service, monkeypatch: pytest.MonkeyPatch, client_engine: Engine
) -> None:
    running = await run_server(nursery, loopback_settings())
    choose_engine(client_engine, monkeypatch)  # The server has begun: this concerns the client only.
    service = await start_service(answering(bytes(2_000_000)))
    async with otun.open_tunnel(running.control, name="app") as tunnel, trio.open_nursery() as forwarding:
        forwarding.start_soon(tunnel.forward_to, service.address)
        for _ in range(5):
            assert (await fetch(running.public)).body == bytes(2_000_000)
        forwarding.cancel_scope.cancel()


async def test_two_servers_live_side_by_side(engine, nursery: trio.Nursery) -> None:
    for _ in range(2):
        running = await run_server(nursery, loopback_settings())
        async with registered_client(running.control, "app") as client:
            nursery.start_soon(client.serve, answering(b"mine"))
            assert (await fetch(running.public)).body == b"mine"
            await client.session.aclose()


async def test_a_server_address_may_be_text(engine, nursery: trio.Nursery) -> None:
    running = await run_server(nursery, loopback_settings())
    async with otun.open_tunnel(str(running.control), name="app") as tunnel:
        assert tunnel.name == "app"


async def test_a_cancelled_server_leaves_no_descriptor(engine, tmp_path) -> None:
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        await run_server(
            nursery, loopback_settings(control=TcpAddress("", 0), public=TcpAddress("", 0), state=tmp_path)
        )
        nursery.cancel_scope.cancel()
    assert open_descriptors() == before


@pytest.mark.parametrize("moment", ["waiting for a head", "waiting for a response", "in a response"])
async def test_a_server_cancelled_in_the_midst_of_work_leaves_no_descriptor(engine, moment: str) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await receive_head(stream)
        if moment == "in a response":
            while True:
                await stream.send_all(bytes(100_000))
        await trio.sleep_forever()

    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        running = await run_server(nursery, loopback_settings())
        silent = [await trio.open_tcp_stream("127.0.0.1", running.control.port) for _ in range(5)]
        async with registered_client(running.control) as client:
            nursery.start_soon(client.serve, answer)
            visitors = [await connect(running.public) for _ in range(10)]
            for visitor in visitors:
                await visitor.send_all(request()[:10] if moment == "waiting for a head" else request())
            if moment == "in a response":
                await receive_exactly(visitors[0], 1000)
            await client.session.ping()
            await running.stop()
            await client.session.wait_closed()
        for connection in (*silent, *visitors):
            await trio.aclose_forcefully(connection)
        nursery.cancel_scope.cancel()
    gc.collect()
    assert open_descriptors() == before


async def test_server_and_client_that_end_together_leave_no_descriptor(engine) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await receive_head(stream)
        await stream.send_all(response(b"hello"))

    before = open_descriptors()
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
            running = await run_server(nursery, loopback_settings())
            port = listeners[0].socket.getsockname()[1]
            await nursery.start(otun.forward, running.control, port)
            async with await connect(running.public) as visitor:
                await visitor.send_all(request(host="any"))
                assert parse(await receive_exactly(visitor, len(response(b"hello")))).body == b"hello"
            nursery.cancel_scope.cancel()
    gc.collect()
    assert open_descriptors() == before


async def test_a_server_can_be_stopped_within_a_second_whoever_is_connected(engine, nursery: trio.Nursery) -> None:
    running = await run_server(nursery, loopback_settings())
    async with registered_client(running.control) as client, await connect(running.public) as visitor:
        await visitor.send_all(request())
        await client.session.accept()
        with trio.fail_after(1):
            await running.stop()
