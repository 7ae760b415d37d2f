"""`on_exchange`: what was asked and answered, told to whoever forwards."""

import pytest
import trio

from otun import Exchange, SessionClosed, forward, open_session
from otun.addresses import LocalAddress

from ..server.services import answer_with_target, answering, receive_all, receive_head, response
from ..server.visitors import connect, fetch, receive_answer, receive_exactly, request
from .support import ForwardTo


class Log:
    """Keeps the exchanges, and lets tests wait for them."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._news = trio.lowlevel.ParkingLot()

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._news.unpark_all()

    async def wait_for(self, count: int) -> list[tuple[str, str, int | None]]:
        with trio.fail_after(10):
            while len(self.exchanges) < count:
                await self._news.park()
        return [(one.method, one.target, one.status) for one in self.exchanges]


async def test_an_exchange_is_told_with_method_target_status_and_duration(tunnel_to) -> None:
    log = Log()
    place = await tunnel_to(answering(b"hello"), on_exchange=log)
    began = trio.current_time()
    await fetch(place.public, "/a/b?c=%20d", method="POST", body=b"x")
    assert await log.wait_for(1) == [("POST", "/a/b?c=%20d", 200)]
    assert 0 <= log.exchanges[0].duration <= trio.current_time() - began


async def test_each_request_of_a_connection_is_told(tunnel_to) -> None:
    log = Log()
    place = await tunnel_to(answer_with_target, on_exchange=log)
    async with await connect(place.public) as visitor:
        for number in range(5):
            await visitor.send_all(request(f"/{number}"))
            await receive_answer(visitor)
        assert await log.wait_for(5) == [("GET", f"/{number}", 200) for number in range(5)]


async def test_pipelined_requests_are_told_one_by_one(tunnel_to) -> None:
    log = Log()
    place = await tunnel_to(answer_with_target, on_exchange=log)
    async with await connect(place.public) as visitor:
        await visitor.send_all(b"".join([request(f"/{number}") for number in range(20)]))
        assert await log.wait_for(20) == [("GET", f"/{number}", 200) for number in range(20)]


async def test_another_status_is_told(tunnel_to) -> None:
    async def miss(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(status="404 Not Found"))

    log = Log()
    place = await tunnel_to(miss, on_exchange=log)
    await fetch(place.public, "/missing")
    assert await log.wait_for(1) == [("GET", "/missing", 404)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_service_that_cannot_be_reached_is_told_as_502(
    server, forward_to: ForwardTo, unreachable: LocalAddress, method: str
) -> None:
    log = Log()
    await forward_to(unreachable, on_exchange=log)
    answer = await fetch(server.public, method=method, body=b"x" if method == "POST" else b"")
    assert answer.status == 502
    assert await log.wait_for(1) == [(method, "/", 502)]


async def ask_in_pieces(start_service, local: LocalAddress, *pieces: bytes, log: Log | None = None) -> bytes:
    """Send *pieces* as frames through a tunnel to *local*, and the end behind them; what comes back."""

    async def serve(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(b'{"type":"registered","url":"http://app.example","subdomain":"app"}\n')
            async with await session.open_stream() as visitor:
                for piece in pieces:
                    await visitor.send_all(piece)
                    await session.ping()
                await visitor.send_eof()
                received.append(await receive_all(visitor))

    received: list[bytes] = []
    service = await start_service(serve)
    with pytest.raises(SessionClosed):
        await forward(service.address, local, on_exchange=log, reconnect=False)
    return received[0]


async def test_so_it_is_when_the_head_comes_in_pieces(engine, start_service, unreachable: LocalAddress) -> None:
    pieces = b"HE", b"AD /pieces HTTP", b"/1.1\r\nHost: app.example\r\n\r", b"\n"
    log = Log()
    received = await ask_in_pieces(start_service, unreachable, *pieces, log=log)
    assert received.endswith(b"\r\n\r\n"), "the answer to HEAD has no body"
    assert await log.wait_for(1) == [("HEAD", "/pieces", 502)]


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"nonsense\r\n\r\n"], ids=repr)
async def test_what_is_no_request_is_answered_all_the_same(engine, start_service, unreachable, sent: bytes) -> None:
    assert (await ask_in_pieces(start_service, unreachable, sent)).startswith(b"HTTP/1.1 502 ")


async def test_a_visitor_who_leaves_before_the_answer_is_told_without_a_status(tunnel_to) -> None:
    async def wait(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        has_asked.set()
        async for _ in connection:
            pass

    log = Log()
    has_asked = trio.Event()
    place = await tunnel_to(wait, on_exchange=log)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/slow"))
        await has_asked.wait()
    assert await log.wait_for(1) == [("GET", "/slow", None)]


async def test_what_is_no_http_is_relayed_and_not_told(tunnel_to) -> None:
    async def upgrade(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: odd\r\nConnection: upgrade\r\n\r\n")
        async for piece in connection:
            await connection.send_all(piece[::-1])

    log = Log()
    place = await tunnel_to(upgrade, on_exchange=log)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/", "Upgrade: odd", "Connection: upgrade"))
        await receive_head(visitor)
        await visitor.send_all(b"\0\1\2\3")
        assert await receive_exactly(visitor, 4) == b"\3\2\1\0"
    assert await log.wait_for(1) == [("GET", "/", 101)]


async def test_an_on_exchange_that_raises_does_no_harm(tunnel_to, caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("the disk is full")

    place = await tunnel_to(answer_with_target, on_exchange=fail)
    async with await connect(place.public) as visitor:
        for target in ("/1", "/2", "/3"):
            await visitor.send_all(request(target))
            assert (await receive_answer(visitor)).text == target
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/4"))
        assert (await receive_answer(visitor)).text == "/4"
    assert any(record.exc_info for record in caplog.records), "it is told in the log"
    caplog.clear()
