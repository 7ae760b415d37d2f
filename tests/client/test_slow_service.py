"""A local service that takes its time, or whose system has no room for another connection."""

import pytest
import trio

from otun import TcpAddress

from ..server.harness import RunningServer
from ..server.services import receive_head, response
from ..server.visitors import connect, fetch, receive_answer, request
from .support import ForwardTo, session_of


async def test_a_service_that_does_not_accept_gives_a_504_page_in_the_end(
    server: RunningServer, forward_to: ForwardTo, full_port: TcpAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.forwarder.LOCAL_CONNECT_TIMEOUT", 0.2)
    await forward_to(full_port)
    with trio.fail_after(10):
        answer = await fetch(server.public)
    assert answer.status == 504
    assert str(full_port) in answer.text


async def test_a_visitor_who_leaves_while_the_service_does_not_accept_leaves_nothing(
    server: RunningServer, forward_to: ForwardTo, full_port: TcpAddress
) -> None:
    tunnel = await forward_to(full_port)
    async with await connect(server.public) as visitor:
        await visitor.send_all(request())
        await session_of(tunnel).ping()
    assert "open" in repr(tunnel)


async def test_a_slow_answer_is_waited_for(tunnel_to) -> None:
    async def answer(connection: trio.SocketStream) -> None:
        head, _ = await receive_head(connection)
        if b"/slow" in head:
            asked.set()
            await may_answer.wait()
        await connection.send_all(response(head.split(b" ")[1]))

    asked, may_answer = trio.Event(), trio.Event()
    place = await tunnel_to(answer)
    async with await connect(place.public) as slow:
        await slow.send_all(request("/slow"))
        await asked.wait()
        for _ in range(20):
            assert (await fetch(place.public, "/quick")).text == "/quick"
        may_answer.set()
        assert (await receive_answer(slow)).text == "/slow"
