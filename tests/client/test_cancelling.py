"""Cancelling `forward`: visitors are cut short, and nothing stays open."""

import gc
from contextlib import suppress
from functools import partial

import pytest
import trio

from otun import SessionClosed, Tunnel, TunnelSettings, forward, open_tunnel
from otun.client.opening import TunnelKind

from ..server.harness import RunningServer, open_descriptors
from ..server.services import Asked, answer_with_target, answering, receive_all, receive_head, response
from ..server.visitors import (
    ask,
    connect,
    fetch,
    parse,
    receive_answer,
    receive_exactly,
    receive_until_reset,
    request,
)
from .support import kinds, public_address


async def wait_for_descriptors(expected: set[str]) -> None:
    """Let the server and the service notice that their peers have gone: what is open is to be as it was before."""
    gc.collect()
    with trio.move_on_after(10):
        while len(open_descriptors()) > len(expected):
            await trio.lowlevel.checkpoint()
    assert len(open_descriptors()) == len(expected)


@kinds
async def test_visitors_and_the_service_see_that_they_were_cut_short(
    server: RunningServer, start_service, kind: TunnelKind
) -> None:
    async def answer_half(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(1000))[:500])
        try:
            await receive_all(connection)
        finally:
            service_has_noticed.set()

    service_has_noticed = trio.Event()
    service = await start_service(answer_half)
    settings = TunnelSettings(name="app", kind=kind)
    async with trio.open_nursery() as forwarding:
        tunnel = await forwarding.start(forward, server.control, service.address, settings)
        async with await connect(public_address(server, tunnel)) as visitor:
            await visitor.send_all(request())
            await receive_exactly(visitor, 500)
            forwarding.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await receive_until_reset(visitor)
                await service_has_noticed.wait()


@pytest.mark.parametrize("is_busy", [True, False], ids=["in mid-answer", "idle"])
async def test_all_sockets_are_closed(server: RunningServer, start_service, is_busy: bool) -> None:
    async def flood(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        while is_busy:
            await connection.send_all(bytes(100_000))
        await receive_all(connection)

    service = await start_service(flood)
    before = open_descriptors()
    visitors = []
    async with trio.open_nursery() as forwarding:
        await forwarding.start(partial(forward, server.control, service.address, name="app"))
        for _ in range(10):
            visitors.append(await connect(server.public))
            await visitors[-1].send_all(request())
            if is_busy:
                await receive_exactly(visitors[-1], 1000)
        forwarding.cancel_scope.cancel()
    for visitor in visitors:
        await trio.aclose_forcefully(visitor)
    await wait_for_descriptors(before)


async def test_all_sockets_are_closed_whenever_it_is_cancelled(server: RunningServer, start_service) -> None:
    """Cancel while a visitor is on its way, a little later each time."""
    service = await start_service(answering(b"hello"))
    before = open_descriptors()
    for steps in range(60):
        async with trio.open_nursery() as nursery:
            scope = await nursery.start(forward_until_cancelled, server, service.address)
            nursery.start_soon(visit_in_vain, server)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    await wait_for_descriptors(before)


async def forward_until_cancelled(server: RunningServer, local, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        async with open_tunnel(server.control) as tunnel:
            task_status.started(scope)
            await tunnel.forward_to(local)


async def visit_in_vain(server: RunningServer) -> None:
    try:
        await ask(server.public, request("/", "Connection: close", host="any.example"))
    except* trio.BrokenResourceError:
        pass


async def test_cancelled_while_it_connects_it_leaves_nothing(server: RunningServer) -> None:
    before = open_descriptors()
    for steps in range(40):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward, server.control, 3000)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    await wait_for_descriptors(before)


async def test_the_tunnel_outlives_a_cancelled_forward(server: RunningServer, start_service) -> None:
    service = await start_service(answer_with_target)
    async with open_tunnel(server.control, name="app") as tunnel:
        for number in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tunnel.forward_to, service.address)
                async with await connect(server.public) as visitor:
                    await visitor.send_all(request(f"/{number}"))
                    assert (await receive_answer(visitor)).text == f"/{number}"
                nursery.cancel_scope.cancel()


@kinds
async def test_a_cancelled_forward_cuts_its_visitors_short_although_the_tunnel_stays(
    server: RunningServer, start_service, kind: TunnelKind
) -> None:
    async def answer_half(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(1000))[:500])
        try:
            await receive_all(connection)
        finally:
            service_has_noticed.set()

    service_has_noticed = trio.Event()
    service = await start_service(answer_half)
    async with (
        open_tunnel(server.control, TunnelSettings(name="app", kind=kind)) as tunnel,
        await connect(public_address(server, tunnel)) as visitor,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.forward_to, service.address)
            await visitor.send_all(request())
            await receive_exactly(visitor, 500)
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await receive_until_reset(visitor)
            await service_has_noticed.wait()
        assert "open" in repr(tunnel)


async def test_a_cancelled_forward_leaves_no_http_visitor_without_an_answer(
    server: RunningServer, start_service
) -> None:
    async def wait(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        has_asked.set()
        try:
            await receive_all(connection)
        finally:
            service_has_noticed.set()

    has_asked, service_has_noticed = trio.Event(), trio.Event()
    service = await start_service(wait)
    async with open_tunnel(server.control, name="app") as tunnel, await connect(server.public) as visitor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tunnel.forward_to, service.address)
            await visitor.send_all(request())
            await has_asked.wait()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            assert parse(await receive_all(visitor)).status == 502
            await service_has_noticed.wait()
        assert "open" in repr(tunnel)


async def test_who_comes_after_a_cancelled_forward_waits_for_accept(server: RunningServer, start_service) -> None:
    async def fail(connection: trio.SocketStream) -> None:
        raise AssertionError("nobody is forwarding any more")

    service = await start_service(fail)
    async with open_tunnel(server.control, name="app") as tunnel:
        await forward_for_a_moment(tunnel, service.address)
        async with await connect(server.public) as visitor:
            await visitor.send_all(request("/by/hand", "Connection: close"))
            with trio.fail_after(5):
                stream = await tunnel.accept()
            head, _ = await receive_head(stream)
            assert Asked.of(head).target == "/by/hand"
            await stream.send_all(response(b"by hand"))
            await stream.aclose()
            assert parse(await receive_all(visitor)).body == b"by hand"


async def forward_for_a_moment(tunnel: Tunnel, local) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tunnel.forward_to, local)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_who_comes_after_a_cancelled_forward_may_be_forwarded_elsewhere(
    server: RunningServer, start_service, nursery: trio.Nursery
) -> None:
    first, second = await start_service(answering(b"first")), await start_service(answering(b"second"))
    async with open_tunnel(server.control, name="app") as tunnel:
        await forward_for_a_moment(tunnel, first.address)
        async with trio.open_nursery() as forwarding:
            forwarding.start_soon(tunnel.forward_to, second.address)
            assert (await fetch(server.public)).body == b"second"
            forwarding.cancel_scope.cancel()


async def test_closing_the_tunnel_ends_a_forward(server: RunningServer) -> None:
    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        nursery.start_soon(tunnel.aclose)
        with pytest.raises(SessionClosed):
            await tunnel.forward("localhost", 3000)


async def test_leaving_the_tunnel_frees_its_name_at_once(server: RunningServer) -> None:
    for _ in range(10):
        async with open_tunnel(server.control, name="app") as tunnel:
            assert tunnel.name == "app"


async def test_a_second_forward_does_not_take_the_visitors_away_from_the_first(
    server: RunningServer, start_service
) -> None:
    service = await start_service(answering(b"served"))

    async def forward_too() -> None:
        with suppress(trio.BusyResourceError):  # It may be refused, or share the work.
            await tunnel.forward_to(service.address)

    async with open_tunnel(server.control, name="app") as tunnel, trio.open_nursery() as nursery:
        nursery.start_soon(tunnel.forward_to, service.address)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(forward_too)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            for _ in range(5):
                assert (await fetch(server.public)).body == b"served"
        nursery.cancel_scope.cancel()
