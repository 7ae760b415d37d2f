"""A server that is to end: who may still come, who may stay, and for how long."""

import socket

import pytest
import trio
import trio.testing

from otun import SessionClosed, Stream
from otun.server import http_port
from otun.server.http_port import HttpPort
from otun.server.reception import Phase
from otun.server.visitor import Visitor

from .harness import RunningServer
from .log_lines import LogLines
from .raw_client import RawClient, port_of, raw_client, registered_client
from .services import receive_all, receive_head, response
from .visitors import Responses, connect, fetch, receive_exactly, receive_until_reset, request

UPGRADE = ("Connection: Upgrade", "Upgrade: chat")


async def receive_request(client: RawClient) -> Stream:
    """The stream of the next visitor, whose head has come."""
    stream = await client.session.accept()
    await receive_head(stream)
    return stream


async def is_refused(server: RunningServer) -> bool:
    for address in (server.control, server.public):
        try:
            stream = await connect(address)
        except OSError:
            continue
        await stream.aclose()
        return False
    return True


async def see_end(visitor: trio.abc.ReceiveStream) -> None:
    """Wait for the server to close the connection, and do so, too: it would wait for that for a while."""
    assert await visitor.receive_some() == b""
    await visitor.aclose()


async def test_a_server_without_visitors_ends_at_once(server: RunningServer, server_log: LogLines) -> None:
    assert not server.server.is_draining
    server.server.drain()
    assert server.server.is_draining
    server.server.drain()  # Once is enough.
    await server.wait_ended()
    assert await is_refused(server)
    assert server_log.lines == [
        "draining: 0 clients, and 0 visitors, who may stay for 30 s",
        "drained: nobody was cut short",
    ]


async def test_nobody_comes_in_while_it_drains(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await receive_request(client)
        server.server.drain()
        assert await is_refused(server)
        await stream.send_all(response())
        await Responses(visitor).next()
        await see_end(visitor)
        await server.wait_ended()


async def test_a_request_that_is_under_way_is_answered_and_is_the_last_of_its_connection(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await receive_request(client)
        server.server.drain()
        await client.session.ping()
        await stream.send_all(response(b"late"))
        answer = await Responses(visitor).next()
        assert (answer.status, answer.body) == (200, b"late")
        assert answer.fields["Connection"] == "close"
        await see_end(visitor)
        await server.wait_ended()


async def test_an_answer_that_was_the_same_before_says_that_the_connection_ends(server: RunningServer) -> None:
    """Answers that come again are passed on as they were, which must not hide that this one is the last."""
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        responses = Responses(visitor)
        await visitor.send_all(request())
        stream = await receive_request(client)
        for is_last in (False, False, True):
            if is_last:
                server.server.drain()
            await stream.send_all(response(b"same"))
            answer = await responses.next()
            assert (answer.fields.get("Connection") == "close") == is_last
            if not is_last:
                await visitor.send_all(request())
                await receive_head(stream)


async def test_a_request_on_a_connection_that_was_idle_is_answered(server: RunningServer) -> None:
    """It was on its way, and the visitor could not know better."""
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        responses = Responses(visitor)
        await visitor.send_all(request())
        stream = await receive_request(client)
        await stream.send_all(response(b"first"))
        assert (await responses.next()).body == b"first"
        await stream.aclose()  # So that the next request needs a new stream, on a session that goes away.
        await client.session.ping()
        server.server.drain()
        await visitor.send_all(request())
        stream = await receive_request(client)
        await stream.send_all(response(b"second"))
        answer = await responses.next()
        assert (answer.body, answer.fields["Connection"]) == (b"second", "close")
        await see_end(visitor)
        await server.wait_ended()


async def test_a_first_request_on_a_connection_that_was_there_is_answered(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(b"GET / HT")
        await client.session.ping()
        server.server.drain()
        await visitor.send_all(request().removeprefix(b"GET / HT"))
        await (await receive_request(client)).send_all(response(b"hello"))
        answer = await Responses(visitor).next()
        assert (answer.body, answer.fields["Connection"]) == (b"hello", "close")


async def test_an_answer_that_has_begun_is_finished_and_its_connection_serves_one_more(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        responses = Responses(visitor)
        await visitor.send_all(request())
        stream = await receive_request(client)
        whole = response(b"x" * 10)
        await stream.send_all(whole[:-5])
        head = await receive_exactly(visitor, len(whole) - 5)
        assert b"Connection" not in head
        server.server.drain()
        await stream.send_all(whole[-5:])
        assert await receive_exactly(visitor, 5) == b"xxxxx"
        await visitor.send_all(request())
        await receive_head(stream)
        await stream.send_all(response(b"last"))
        answer = await responses.next()
        assert (answer.body, answer.fields["Connection"]) == (b"last", "close")


async def test_an_answer_that_is_on_its_way_out_is_not_the_last_of_its_connection(
    server: RunningServer, http_ports: list[HttpPort]
) -> None:
    """Nothing in it has said so: the visitor may have sent another request before it sees the end."""
    body = bytes(250_000)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((server.public.host, server.public.port))
        sock.setblocking(False)
        async with (
            registered_client(server.control) as client,
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as visitor,
        ):
            await visitor.send_all(request())
            stream = await receive_request(client)
            (there,) = (member for member in http_ports[-1].board if isinstance(member, Visitor))
            there.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await stream.send_all(response(body))
            while there._phase is not Phase.SENDING:
                await client.session.ping()
            server.server.drain()
            responses = Responses(visitor)
            answer = await responses.next()
            assert (answer.body, answer.fields.get("Connection")) == (body, None)
            await visitor.send_all(request())
            await receive_head(stream)
            await stream.send_all(response(b"last"))
            answer = await responses.next()
            assert (answer.body, answer.fields["Connection"]) == (b"last", "close")


@pytest.mark.parametrize("was_used", [True, False])
async def test_a_connection_that_stays_idle_is_closed_soon_and_holds_nobody_up(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, was_used: bool
) -> None:
    monkeypatch.setattr(http_port, "DRAINING_IDLE", 0.1)
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        if was_used:
            await visitor.send_all(request())
            stream = await receive_request(client)
            await stream.send_all(response())
            await Responses(visitor).next()
        else:
            await fetch_nothing(server, client)
        server.server.drain()
        await see_end(visitor)
        await server.wait_ended()


async def fetch_nothing(server: RunningServer, client: RawClient) -> None:
    """Be sure that connections which were made before have been accepted."""
    assert (await fetch(server.public, host="none.localhost")).status == 404


@pytest.mark.parametrize("kind", ["tcp", "upgraded"])
async def test_connections_that_are_relayed_as_bytes_go_on_until_the_time_is_over(
    start_server, http_ports: list[HttpPort], server_log: LogLines, kind: str
) -> None:
    server = await start_server(drain=0.5)
    async with raw_client(server.control) as client:
        if kind == "tcp":
            answer = await client.register(kind="tcp")
            visitor = await trio.open_tcp_stream("127.0.0.1", int(str(answer["url"]).rpartition(":")[2]))
            stream = await client.session.accept()
        else:
            await client.register("app")
            visitor = await connect(server.public)
            await visitor.send_all(request("/", *UPGRADE))
            stream = await receive_request(client)
            await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
            await receive_head(visitor)
        await visitor.send_all(b"before")
        assert await receive_exactly(stream, 6) == b"before"
        server.server.drain()
        await visitor.send_all(b"still")
        assert await receive_exactly(stream, 5) == b"still"
        await stream.send_all(b"here")
        assert await receive_exactly(visitor, 4) == b"here"
        await receive_until_reset(visitor)
        await visitor.aclose()
        await server.wait_ended()
    assert server_log.lines[-1] == "drained: 1 visitors were cut short"


async def test_no_visitor_of_a_tcp_tunnel_comes_in_while_it_drains(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        answer = await client.register(kind="tcp")
        port = int(str(answer["url"]).rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port):
            stream = await client.session.accept()
            server.server.drain()
            with pytest.raises(OSError, match=r"."):
                await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        await server.wait_ended()


async def test_what_has_not_ended_in_time_is_cut_short(start_server, server_log: LogLines) -> None:
    server = await start_server(drain=0)
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await receive_request(client)
        server.server.drain()
        answer = await Responses(visitor).next()
        assert answer.status == 502
        await server.wait_ended()
    assert server_log.lines[-1] == "drained: 1 visitors were cut short"


async def test_clients_hear_a_goaway_at_once_and_at_the_end_that_they_may_come_again(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        stream = await receive_request(client)
        server.server.drain()
        await client.session.ping()
        with pytest.raises(SessionClosed, match="going away"):
            await client.session.open_stream()
        await client.say({"type": "heartbeat"})
        assert (await client.hear())["type"] == "heartbeat_ack"
        await stream.send_all(response())
        await visitor.aclose()
        farewell = await client.hear_farewell()
        assert (farewell["code"], farewell["retryable"]) == ("server_ending", True)
        await server.wait_ended()


async def test_clients_that_come_too_late_are_told_so(server: RunningServer) -> None:
    async with registered_client(server.control) as client, raw_client(server.control) as late:
        visitor = await connect(server.public)
        await visitor.send_all(request())
        stream = await receive_request(client)
        await late.session.ping()
        server.server.drain()
        for one in (late, client):
            answer = await one.register("more", id="2")
            assert (answer["type"], answer["code"], answer["retryable"]) == ("error", "server_ending", True)
        await stream.send_all(response())
        await visitor.aclose()
        await server.wait_ended()


async def test_a_client_that_does_not_listen_holds_nobody_up_for_long(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.draining.FAREWELL_TIMEOUT", 0.1)
    async with await connect(server.control):  # It says nothing.
        assert (await fetch(server.public)).status == 404
        server.server.drain()
        await server.wait_ended()


async def test_cancelled_while_it_drains_it_ends_at_once(server: RunningServer) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await receive_request(client)
        server.server.drain()
        await server.stop()
        await receive_all(visitor)


async def test_who_waits_for_a_client_that_is_away_is_told_at_once(start_server, http_ports: list[HttpPort]) -> None:
    """It cannot come back: nobody is let in any more."""
    server = await start_server(hold=1000.0)
    async with raw_client(server.control) as client, await connect(server.public) as visitor:
        await client.register("app", id="1")
        port = port_of(await client.register(kind="tcp", id="2"))
        await visitor.send_all(request())
        await receive_request(client)
        async with await connect(server.public) as waiting:
            await client.vanish()
            assert (await Responses(visitor).next()).status == 502
            await visitor.aclose()
            await waiting.send_all(request())
            async with await trio.open_tcp_stream("127.0.0.1", port) as queued:
                while not any(isinstance(one, Visitor) and one._phase is Phase.HELD for one in http_ports[-1].board):
                    await trio.testing.wait_all_tasks_blocked(0.001)
                server.server.drain()
                answer = await Responses(waiting).next()
                assert (answer.status, answer.fields["Otun-Error"]) == (502, "tunnel_closed")
                await see_end(waiting)
                await receive_until_reset(queued)
        await server.wait_ended()
