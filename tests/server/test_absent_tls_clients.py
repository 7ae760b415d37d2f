"""Visitors by TLS, and clients that are lost: where TLS passes through, it is the ClientHello that waits."""

import trio
import trio.testing

from otun.server import absence
from otun.server.arrival import Arrival

from ..tls.hello_wire import hello, sni
from .certificates import DOMAIN, fetch_tls
from .conversation import tenant
from .edges import Edge, StartEdge
from .raw_client import RawClient, raw_client
from .services import receive_all
from .visitors import connect, receive_exactly, reset

OWN = f"own.{DOMAIN}"
HELLO = hello(sni(OWN.encode()))
ALERT = 21


async def register(client: RawClient, kind: str = "tls") -> None:
    assert (await client.register("own", kind=kind))["type"] == "registered"


async def lose(edge: Edge, kind: str = "tls") -> None:
    """Open a tunnel, and lose its client."""
    async with raw_client(edge.control) as client:
        await register(client, kind)
        await client.vanish()
        while edge.tunnels:
            await trio.testing.wait_all_tasks_blocked(0.001)


async def test_the_hello_waits_for_the_client_to_come_back(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=1000.0)
    await lose(edge)
    async with await connect(edge.https) as visitor, raw_client(edge.control) as client:
        await visitor.send_all(HELLO)
        await edge.see_visitors(1)
        await register(client)
        stream = await client.session.accept()
        assert await receive_exactly(stream, len(HELLO)) == HELLO
    await edge.see_nobody()


async def test_it_is_looked_at_anew_when_a_tunnel_of_another_kind_has_come(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=1000.0)
    await lose(edge)
    answers = []

    async def visit() -> None:
        answers.append(await fetch_tls(edge.https, edge.context, "/x", name=OWN, host=OWN))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(visit)
        await edge.see_visitors(1)
        async with tenant(edge.control, "own"):
            while not answers:
                await trio.testing.wait_all_tasks_blocked(0.001)
    assert answers[0].status == 200
    await edge.see_nobody()


async def test_who_waits_in_vain_gets_an_alert_and_leaves_nothing(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=0.2)
    await lose(edge)
    async with await connect(edge.https) as visitor:
        await visitor.send_all(HELLO)
        assert (await receive_all(visitor))[0] == ALERT
    await edge.see_nobody()
    assert edge.reports == ["no TLS connection: its tunnel's client is away"]


async def test_who_leaves_meanwhile_is_forgotten(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=2.0)  # Without epoll, it shows then only.
    await lose(edge)
    async with await connect(edge.https) as visitor:
        await visitor.send_all(HELLO)
        await edge.see_visitors(1)
        reset(visitor)
    await edge.see_nobody()


async def test_who_is_cut_off_meanwhile_takes_nobodys_place(start_edge: StartEdge, monkeypatch) -> None:
    monkeypatch.setattr(absence, "MAX_WAITING", 1)
    edge = await start_edge(hold=1000.0)
    await lose(edge)
    async with await connect(edge.https) as first:
        await first.send_all(HELLO)
        await edge.see_visitors(1)
        await trio.testing.wait_all_tasks_blocked()
        edge._http_port.board.abort_those(lambda member: isinstance(member, Arrival))
        await edge.see_nobody()
    async with await connect(edge.https) as second, raw_client(edge.control) as client:
        await second.send_all(HELLO)
        await edge.see_visitors(1)
        await register(client)
        assert await receive_exactly(await client.session.accept(), len(HELLO)) == HELLO
    await edge.see_nobody()


async def test_where_tls_ends_here_the_request_waits(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=0.2)
    await lose(edge, "http")
    answer = await fetch_tls(edge.https, edge.context, "/x", name=OWN, host=OWN)
    assert (answer.status, answer.fields["Otun-Error"]) == (502, "tunnel_closed")
    await edge.see_nobody()


async def test_before_it_is_known_who_ends_tls_the_hello_waits(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=1000.0)
    edge._registry.expect(OWN, keeper="token ann")
    async with await connect(edge.https) as visitor, raw_client(edge.control) as client:
        await visitor.send_all(HELLO)
        await edge.see_visitors(1)
        await register(client)
        stream = await client.session.accept()
        assert await receive_exactly(stream, len(HELLO)) == HELLO
    await edge.see_nobody()


async def test_a_group_answers_as_long_as_one_of_it_is_there(start_edge: StartEdge) -> None:
    edge = await start_edge(hold=1000.0)
    async with raw_client(edge.control) as first, raw_client(edge.control) as second:
        for client in (first, second):
            assert (await client.register("own", kind="tls", group=True))["type"] == "registered"
        async with await connect(edge.https) as one, await connect(edge.https) as other:
            for visitor in (one, other):
                await visitor.send_all(HELLO)
            for client in (first, second):
                assert await receive_exactly(await client.session.accept(), len(HELLO)) == HELLO
        await first.vanish()
        while len(edge.tunnels) > 1:
            await trio.testing.wait_all_tasks_blocked(0.001)
        for _ in range(2):
            async with await connect(edge.https) as visitor:
                await visitor.send_all(HELLO)
                assert await receive_exactly(await second.session.accept(), len(HELLO)) == HELLO
    await edge.see_nobody()
