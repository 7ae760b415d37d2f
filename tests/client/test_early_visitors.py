"""Visitors who come before anybody cares are not lost."""

import pytest
import trio

from otun import TcpAddress, Tunnel, TunnelSettings, open_tunnel
from otun.client.opening import TunnelKind
from otun.client.visitors import Visitors
from otun.testing import session_pair

from ..server.harness import RunningServer
from ..server.raw_client import stream_count
from ..server.services import answering, receive_head, response
from ..server.visitors import connect, receive_answer, request, reset
from .support import kinds, public_address, session_of


async def wait_for_visitors(tunnel: Tunnel, count: int) -> None:
    """Wait until the client knows of so many visitors."""
    with trio.fail_after(10):
        while stream_count(session_of(tunnel)) < 1 + count:
            await session_of(tunnel).ping()
    await session_of(tunnel).ping()


@kinds
@pytest.mark.parametrize("has_finished", [True, False], ids=["finished", "waiting"])
@pytest.mark.parametrize("size", [0, 1000, 200_000])
async def test_who_came_before_forward_was_called_is_served(
    server: RunningServer, start_service, size: int, has_finished: bool, kind: TunnelKind
) -> None:
    async def count(connection: trio.SocketStream) -> None:
        _, received = await receive_head(connection)
        while len(received) < size:
            received += await connection.receive_some()
        if has_finished:
            assert await connection.receive_some() == b""
        await connection.send_all(response(str(len(received)).encode()))

    sent = request(method="POST", body=bytes(size))
    service = await start_service(count)
    visitors = []
    settings = TunnelSettings(name="app", kind=kind)
    async with open_tunnel(server.control, settings) as tunnel, trio.open_nursery() as nursery:
        for _ in range(5):
            visitors.append(await connect(public_address(server, tunnel)))
            await visitors[-1].send_all(sent)
            if has_finished:
                await visitors[-1].send_eof()
        await wait_for_visitors(tunnel, 5)
        nursery.start_soon(tunnel.forward_to, service.address)
        for visitor in visitors:
            async with visitor:
                with trio.fail_after(10):
                    assert (await receive_answer(visitor)).text == str(size)
        nursery.cancel_scope.cancel()


async def test_who_came_before_a_forward_in_vain_gets_a_502_page(
    server: RunningServer, nobody_listens: TcpAddress
) -> None:
    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        async with await connect(server.public) as visitor:
            await visitor.send_all(request(method="POST", body=bytes(100_000)))
            await wait_for_visitors(tunnel, 1)
            nursery.start_soon(tunnel.forward_to, nobody_listens)
            with trio.fail_after(10):
                assert (await receive_answer(visitor)).status == 502
        nursery.cancel_scope.cancel()


async def test_who_left_before_forward_was_called_does_no_harm(server: RunningServer, start_service) -> None:
    service = await start_service(answering(b"served"))
    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        for is_polite in (True, False):
            visitor = await connect(server.public)
            await visitor.send_all(request(method="POST", body=bytes(1000)))
            await wait_for_visitors(tunnel, 1)
            if is_polite:
                await visitor.aclose()
            else:
                reset(visitor)
        nursery.start_soon(tunnel.forward_to, service.address)
        async with await connect(server.public) as visitor:
            await visitor.send_all(request())
            assert (await receive_answer(visitor)).body == b"served"
        nursery.cancel_scope.cancel()


async def test_those_who_left_before_they_were_accepted_are_not_kept(autojump_clock) -> None:
    async with session_pair() as (client, server):
        visitors = Visitors()
        client.deliver_to(lambda core: visitors.arrived(client, core, None))
        for _ in range(1000):
            (await server.open_stream()).reset()
            await server.ping()
        assert len(visitors._unaccepted) <= 2 * client.limits.accept_backlog
        stayed = await server.open_stream()
        assert (await visitors.accept()).id == stayed.id


async def test_300_early_visitors_are_all_served(server: RunningServer, start_service) -> None:
    service = await start_service(answering(b"served"))
    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        visitors = []
        for _ in range(300):
            visitors.append(await connect(server.public))
            await visitors[-1].send_all(request())
        await wait_for_visitors(tunnel, 256)  # More than that may not wait to be accepted.
        nursery.start_soon(tunnel.forward_to, service.address)
        for visitor in visitors:
            async with visitor:
                assert (await receive_answer(visitor)).body == b"served"
        nursery.cancel_scope.cancel()


async def test_some_may_be_answered_here_and_the_others_forwarded(server: RunningServer, start_service) -> None:
    service = await start_service(answering(b"forwarded"))
    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        async with await connect(server.public) as first, await connect(server.public) as second:
            await first.send_all(request())
            await wait_for_visitors(tunnel, 1)
            await second.send_all(request())
            await wait_for_visitors(tunnel, 2)
            mine = await tunnel.accept()
            nursery.start_soon(tunnel.forward_to, service.address)
            assert (await receive_answer(second)).body == b"forwarded"
            async with mine:
                await mine.send_all(response(b"accepted"))
            assert (await receive_answer(first)).body == b"accepted"
        nursery.cancel_scope.cancel()
