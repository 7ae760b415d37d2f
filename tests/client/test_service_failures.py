"""A local service that fails: what the visitor is told, and what the request log says."""

from functools import partial

import pytest
import trio

from otun import Exchange, HttpTimeouts, TcpAddress, UnixAddress
from otun.addresses import LocalAddress

from ..server.harness import RunningServer
from ..server.services import address_of, answering, receive_head, response, start_service
from ..server.visitors import Answer, ask, connect, fetch, parse, receive_until_reset, request, reset
from .support import ForwardTo, Names, forward_until_end


class Log:
    """Keeps the exchanges, and lets tests wait for them."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._news = trio.lowlevel.ParkingLot()

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._news.unpark_all()

    async def wait_for(self, count: int) -> list[tuple[str, int | None, str]]:
        """Wait for *count* exchanges: their targets, statuses and problems."""
        with trio.fail_after(10):
            while len(self.exchanges) < count:
                await self._news.park()
        return [(one.target, one.status, one.problem) for one in self.exchanges]


def check(answer: Answer, status: int, code: str, address: object) -> None:
    assert (answer.status, answer.fields["Otun-Error"]) == (status, code)
    assert str(address) in answer.text


# It cannot be reached


async def test_a_refused_connection_is_502(server, forward_to: ForwardTo, nobody_listens: TcpAddress) -> None:
    log = Log()
    await forward_to(nobody_listens, on_exchange=log)
    answer = await fetch(server.public, "/x")
    check(answer, 502, "local_service_unreachable", nobody_listens)
    assert "connection refused" in answer.text
    assert await log.wait_for(1) == [("/x", 502, "connection refused")]


async def test_a_name_that_nobody_knows_is_502(server, forward_to: ForwardTo) -> None:
    Names()
    log = Log()
    local = TcpAddress("printer.home", 9100)
    await forward_to(local, on_exchange=log)
    answer = await fetch(server.public, "/x")
    check(answer, 502, "local_service_unreachable", local)
    ((_, status, problem),) = await log.wait_for(1)
    assert status == 502
    assert "resolved" in problem
    assert problem in answer.text


async def test_a_socket_that_does_not_exist_is_502(server, forward_to: ForwardTo, tmp_path) -> None:
    log = Log()
    local: LocalAddress = UnixAddress(str(tmp_path / "none.sock"))
    await forward_to(local, on_exchange=log)
    check(await fetch(server.public, "/x"), 502, "local_service_unreachable", local)
    assert await log.wait_for(1) == [("/x", 502, "no such file or directory")]


async def test_a_connection_that_is_not_taken_in_time_is_504(
    server, forward_to: ForwardTo, full_port: TcpAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.forwarder.LOCAL_CONNECT_TIMEOUT", 0.2)
    log = Log()
    await forward_to(full_port, on_exchange=log)
    answer = await fetch(server.public, "/x", method="POST", body=b"body")
    check(answer, 504, "local_service_unreachable", full_port)
    ((target, status, problem),) = await log.wait_for(1)
    assert (target, status) == ("/x", 504)
    assert "no answer within 0.2 seconds" in problem
    assert problem in answer.text


@pytest.mark.parametrize(("accept", "kind"), [("application/json", "application/json"), ("text/html", "text/html")])
async def test_the_page_is_as_the_visitor_likes(
    server, forward_to: ForwardTo, nobody_listens: TcpAddress, accept: str, kind: str
) -> None:
    await forward_to(nobody_listens)
    answer = await fetch(server.public, "/", f"Accept: {accept}")
    assert answer.fields["Content-Type"].startswith(kind)
    assert answer.fields["Cache-Control"] == "no-store"


async def test_a_post_with_a_large_body_is_told_too(server, forward_to: ForwardTo, nobody_listens: TcpAddress) -> None:
    await forward_to(nobody_listens)
    answer = await fetch(server.public, "/", method="POST", body=bytes(3_000_000))
    check(answer, 502, "local_service_unreachable", nobody_listens)


async def test_a_service_that_comes_up_is_reached_by_the_next_request(
    server, forward_to: ForwardTo, nursery: trio.Nursery
) -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        await forward_to(address_of(sock))
        assert (await fetch(server.public)).status == 502
        sock.listen()
        await start_service(nursery, answering(b"up"), listener=trio.SocketListener(sock))
        assert (await fetch(server.public)).text == "up"


# It breaks off


async def reset_at_once(connection: trio.SocketStream) -> None:
    await receive_head(connection)
    reset(connection)


async def test_a_reset_before_the_answer_is_502_and_names_the_service(tunnel_to) -> None:
    log = Log()
    place = await tunnel_to(reset_at_once, on_exchange=log)
    check(await fetch(place.public, "/x"), 502, "local_service_reset", place.service.address)
    ((target, status, problem),) = await log.wait_for(1)
    assert (target, status) == ("/x", None)
    assert "reset" in problem


async def test_so_it_is_of_a_post_whose_body_is_still_on_its_way(tunnel_to) -> None:
    place = await tunnel_to(reset_at_once)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/", "Content-Length: 1000000", method="POST") + bytes(1000))
        answer = parse(b"".join([bytes(piece) async for piece in visitor]))
    check(answer, 502, "local_service_reset", place.service.address)


async def test_a_close_without_an_answer_is_502(tunnel_to) -> None:
    async def close(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_eof()

    place = await tunnel_to(close)
    check(await fetch(place.public), 502, "empty_reply", place.service.address)


@pytest.mark.parametrize("begun", [b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP"])
async def test_a_reset_within_the_answers_head_is_502(tunnel_to, begun: bytes) -> None:
    async def break_off(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(begun)
        reset(connection)

    place = await tunnel_to(break_off)
    assert (await fetch(place.public)).status == 502


async def test_a_reset_within_the_body_cuts_the_answer_short(tunnel_to) -> None:
    async def break_off(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(b"x" * 100)[:-50])
        await has_arrived.wait()
        reset(connection)

    log = Log()
    has_arrived = trio.Event()
    place = await tunnel_to(break_off, on_exchange=log)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/x"))
        await receive_head(visitor)
        has_arrived.set()
        await receive_until_reset(visitor)
    ((target, status, problem),) = await log.wait_for(1)
    assert (target, status) == ("/x", 200)
    assert "reset" in problem


@pytest.mark.parametrize(
    "sent",
    [b"220 mail.example ESMTP\r\n\r\n", b"\0\1\2\r\n\r\n", b"HTTP/3.0 200 OK\r\n\r\n", b"HTTP/1.1 099 No\r\n\r\n"],
    ids=["SMTP", "binary", "HTTP/3", "no status"],
)
async def test_what_is_no_http_is_502_and_names_the_service(tunnel_to, sent: bytes) -> None:
    async def answer(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(sent)

    place = await tunnel_to(answer)
    check(await fetch(place.public), 502, "bad_response", place.service.address)


async def test_a_service_that_does_not_answer_in_time_is_504_and_named(
    start_server, start_service, nursery: trio.Nursery
) -> None:
    async def wait(connection: trio.SocketStream) -> None:
        async for _ in connection:
            pass

    log = Log()
    server: RunningServer = await start_server(timeouts=HttpTimeouts(response=0.2))
    service = await start_service(wait)
    await nursery.start(partial(forward_until_end, server.control, service.address, name="app", on_exchange=log))
    check(await fetch(server.public, "/x"), 504, "local_service_timeout", service.address)
    ((target, status, problem),) = await log.wait_for(1)
    assert (target, status, problem) == ("/x", None, "no answer in time")


# What follows a failure


async def test_the_next_exchange_of_the_log_has_no_problem(tunnel_to) -> None:
    async def fail_first(connection: trio.SocketStream) -> None:
        head, _ = await receive_head(connection)
        if b"/bad" in head:
            reset(connection)
        else:
            await connection.send_all(response(b"fine"))

    log = Log()
    place = await tunnel_to(fail_first, on_exchange=log)
    assert (await fetch(place.public, "/bad")).status == 502
    assert (await fetch(place.public, "/good")).text == "fine"
    told = await log.wait_for(2)
    assert told[1] == ("/good", 200, "")


async def test_an_idle_connection_that_the_service_resets_is_no_problem_of_the_next_request(tunnel_to) -> None:
    async def answer_once(connection: trio.SocketStream) -> None:
        head, _ = await receive_head(connection)
        await connection.send_all(response(head.split(b" ")[1]))
        if place.service.accepted == 1:
            await may_reset.wait()
            reset(connection)
            has_reset.set()

    log = Log()
    may_reset, has_reset = trio.Event(), trio.Event()
    place = await tunnel_to(answer_once, on_exchange=log)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/1"))
        await receive_head(visitor)
        may_reset.set()
        await has_reset.wait()
        await visitor.send_all(request("/2", "Connection: close"))
        received = b"".join([bytes(piece) async for piece in visitor])
    assert received.endswith(b"/2")
    assert place.service.accepted == 2
    told = await log.wait_for(2)
    assert ("/1", 200, "") in told
    assert ("/2", 200, "") in told


async def test_visitors_of_a_dead_tunnel_are_told_so(server, start_service, nursery: trio.Nursery) -> None:
    async def wait(connection: trio.SocketStream) -> None:
        has_asked.set()
        async for _ in connection:
            pass

    has_asked = trio.Event()
    service = await start_service(wait)
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[object]) -> None:
        with scope:
            await forward_until_end(server.control, service.address, name="app", task_status=task_status)

    await nursery.start(run)
    answers: list[bytes] = []

    async def visit() -> None:
        answers.append(await ask(server.public, request()))

    async with trio.open_nursery() as inner:
        inner.start_soon(visit)
        await has_asked.wait()
        scope.cancel()
    answer = parse(answers[0])
    assert (answer.status, answer.fields["Otun-Error"]) == (502, "tunnel_closed")
    assert int(answer.fields["Retry-After"]) > 0
