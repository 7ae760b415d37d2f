import pytest
import trio

import otun.cli.demo
from otun.addresses import TcpAddress
from otun.cli import main
from otun.cli.demo import DemoFailed, Reply, fetch
from otun.cli.sample_service import describe_request, serve_sample


async def test_sample_service_shows_the_request_that_it_got() -> None:
    async with trio.open_nursery() as nursery:
        address: TcpAddress = await nursery.start(serve_sample)
        reply = await fetch(address, host="app.example", path="/<x>")
        nursery.cancel_scope.cancel()
    assert reply.lines[0] == "HTTP/1.1 200 OK"
    assert b"Host: app.example\r\n" in reply.data
    assert b"GET /&lt;x&gt; HTTP/1.1" in reply.data


async def test_a_visitor_who_leaves_half_way_does_not_end_the_sample_service() -> None:
    async with trio.open_nursery() as nursery:
        address: TcpAddress = await nursery.start(serve_sample)
        async with await trio.open_tcp_stream(address.host, address.port) as visitor:
            await visitor.send_all(b"GET / HT")
        assert (await fetch(address, host="h", path="/a")).is_right("/a")
        nursery.cancel_scope.cancel()


def test_a_reply_is_right_when_it_answers_this_very_request() -> None:
    reply = Reply(describe_request(b"GET /hello-1 HTTP/1.1"))
    assert reply.is_right("/hello-1")
    assert not reply.is_right("/hello-2")
    assert not Reply(reply.data.replace(b" 200 ", b" 502 ")).is_right("/hello-1")
    assert not Reply(b"").is_right("/hello-1")


async def test_no_reply_in_time_is_a_failed_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otun.cli.demo, "_PATIENCE", 0.01)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = TcpAddress("127.0.0.1", listeners[0].socket.getsockname()[1])
    async with listeners[0]:
        with pytest.raises(DemoFailed, match="no reply within"):
            await fetch(address, host="h", path="/")


async def test_a_refused_connection_is_a_failed_demo() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = TcpAddress("127.0.0.1", listener.socket.getsockname()[1])
    await listener.aclose()
    with pytest.raises(DemoFailed, match="the request failed"):
        await fetch(address, host="h", path="/")


def test_a_wrong_reply_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def fetch_something_else(address: TcpAddress, *, host: str, path: str) -> Reply:
        await trio.lowlevel.checkpoint()
        return Reply(b"HTTP/1.1 502 Bad Gateway\r\n\r\n\x1b[31mnothing")

    monkeypatch.setattr(otun.cli.demo, "fetch", fetch_something_else)
    assert main(["demo", "--once", "--log-level", "error"]) == 1
    out, err = capfd.readouterr()
    assert err == "otun: the reply is not the one that the sample service gives\n"
    assert "\\x1b[31mnothing" in out
