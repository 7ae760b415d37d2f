"""The server's own answers to visitors."""

import pytest
import trio

from otun import HttpTimeouts
from otun.control.resets import ResetCode

from .harness import RunningServer
from .raw_client import RawClient, registered_client, stream_count
from .services import answering, receive_all, receive_head
from .visitors import Answer, ask, connect, fetch, parse, receive_answer, request


def check_is_page(answer: Answer, status: int, *texts: str) -> None:
    assert answer.status == status
    assert answer.fields["Content-Type"].startswith("text/html")
    assert answer.fields["Connection"] == "close"
    assert all(text.lower() in answer.text.lower() for text in texts), answer.text


# 404


async def test_without_any_tunnel_a_404_page_says_so(server: RunningServer) -> None:
    check_is_page(await fetch(server.public), 404, "no tunnel")


async def test_a_name_without_a_tunnel_gets_a_404_page_that_names_the_host(server: RunningServer) -> None:
    async with registered_client(server.control, "app"):
        check_is_page(await fetch(server.public, host="nobody.localhost"), 404, "no tunnel", "nobody.localhost")


async def test_with_a_domain_the_same_page_is_shown(start_server) -> None:
    server = await start_server(domain="tunnel.example")
    async with registered_client(server.control, "app"):
        check_is_page(await fetch(server.public, host="x.evil.com"), 404, "no tunnel", "x.evil.com")


async def test_a_head_request_gets_the_page_without_its_body(server: RunningServer) -> None:
    answer = await fetch(server.public, method="HEAD")
    assert answer.status == 404
    assert answer.body == b""


@pytest.mark.parametrize("size", [100_000, 3_000_000])
async def test_the_page_arrives_although_a_large_body_was_on_its_way(server: RunningServer, size: int) -> None:
    check_is_page(await fetch(server.public, method="POST", body=bytes(size)), 404, "no tunnel")


async def test_the_host_is_escaped_in_the_page(server: RunningServer) -> None:
    async with registered_client(server.control, "app"):
        answer = await fetch(server.public, host="a&b'c.localhost")
        assert "a&b" not in answer.text


# 502: the tunnel's client has ended the stream without a byte


async def send_only_fin(client: RawClient) -> None:
    stream = await client.session.accept()
    await stream.send_eof()


async def close_at_once(client: RawClient) -> None:
    stream = await client.session.accept()
    await stream.aclose()


async def read_the_request_and_close(client: RawClient) -> None:
    async with await client.session.accept() as stream:
        await receive_head(stream)


async def close_the_session(client: RawClient) -> None:
    await receive_head(await client.session.accept())
    await client.session.aclose()


async def reset_the_connection(client: RawClient) -> None:
    await receive_head(await client.session.accept())
    await client.vanish()


async def reset_the_connection_unread(client: RawClient) -> None:
    await client.session.accept()
    await client.vanish()


async def break_the_control_protocol(client: RawClient) -> None:
    await receive_head(await client.session.accept())
    await client.say(b"nonsense")


ENDINGS = {
    send_only_fin: "empty_reply",
    close_at_once: "empty_reply",
    read_the_request_and_close: "empty_reply",
    close_the_session: "tunnel_closed",
    reset_the_connection: "tunnel_closed",
    reset_the_connection_unread: "tunnel_closed",
    break_the_control_protocol: "tunnel_closed",
}


@pytest.mark.parametrize(("end", "code"), ENDINGS.items(), ids=[way.__name__ for way in ENDINGS])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_stream_that_ends_without_a_byte_gets_a_502_page(
    server: RunningServer, nursery: trio.Nursery, end, code: str, method: str
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(end, client)
        body = bytes(1000) if method == "POST" else b""
        answer = await fetch(server.public, method=method, body=body)
        assert answer.fields["Otun-Error"] == code
        if method == "HEAD":
            assert (answer.status, answer.body) == (502, b"")
        else:
            check_is_page(answer, 502)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", [send_only_fin, close_at_once, close_the_session], ids=lambda way: way.__name__)
async def test_the_502_page_arrives_although_a_large_body_was_on_its_way(
    server: RunningServer, nursery: trio.Nursery, end
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(end, client)
        with trio.fail_after(10):
            check_is_page(await fetch(server.public, method="POST", body=bytes(3_000_000)), 502)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", [send_only_fin, read_the_request_and_close], ids=lambda way: way.__name__)
async def test_a_visitor_who_has_finished_gets_the_502_page_too(
    server: RunningServer, nursery: trio.Nursery, end
) -> None:
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await visitor.send_eof()
        nursery.start_soon(end, client)
        check_is_page(parse(await receive_all(visitor)), 502)
        nursery.cancel_scope.cancel()


async def test_a_client_that_is_going_away_is_not_called_crowded(server: RunningServer) -> None:
    async with registered_client(server.control) as client:
        client.session.go_away()
        await client.session.ping()
        answer = await fetch(server.public)
        assert answer.status in (404, 502)
        assert "too many" not in answer.text.lower()


async def test_a_client_that_takes_no_more_visitors_does_not_keep_them_waiting_for_ever(
    start_server, nursery: trio.Nursery
) -> None:
    server = await start_server(timeouts=HttpTimeouts(head=0.5))
    async with registered_client(server.control) as client:
        waiting = []
        for _ in range(256):
            waiting.append(await connect(server.public))
            await waiting[-1].send_all(request())
        while stream_count(client.session) < 257:
            await client.session.ping()
        check_is_page(await fetch(server.public), 503)
        nursery.start_soon(client.serve, answering(b"served"))
        assert (await fetch(server.public)).body == b"served"
        for visitor in waiting:
            async with visitor:
                assert (await receive_answer(visitor)).body == b"served"


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("size", [1, 4, 12, 13, 17, len(WHOLE) - 1])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_stream_that_ends_within_the_head_of_the_response_gets_a_502_page(
    server: RunningServer, nursery: trio.Nursery, size: int, method: str
) -> None:
    async def send_a_part(stream) -> None:
        await receive_head(stream)
        await stream.send_all(WHOLE[:size])

    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, send_a_part)
        answer = await fetch(server.public, method=method, body=b"x" if method == "POST" else b"")
        assert (answer.status, answer.fields["Otun-Error"]) == (502, "bad_response")
        if method != "HEAD":
            check_is_page(answer, 502, "cut short")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (ResetCode.UNKNOWN, "tunnel_closed"),
        (7, "tunnel_closed"),
        (ResetCode.SERVICE_RESET, "local_service_reset"),
    ],
)
@pytest.mark.parametrize("sent", [b"", WHOLE[:20]], ids=["without a byte", "within the head"])
async def test_a_stream_that_is_reset_before_the_response_has_begun_gets_a_502_page(
    server: RunningServer, nursery: trio.Nursery, sent: bytes, code: int, told: str
) -> None:
    async def reset(stream) -> None:
        await receive_head(stream)
        if sent:
            await stream.send_all(sent)
        stream.reset(code)

    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, reset)
        answer = await fetch(server.public)
        check_is_page(answer, 502)
        assert answer.fields["Otun-Error"] == told


# Slow and early-leaving visitors


async def test_a_head_that_comes_byte_by_byte_is_read(server: RunningServer, nursery: trio.Nursery) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"at last"))
        async with await connect(server.public) as visitor:
            for byte in request("/a/long/path", "X-Filler: " + "x" * 200, "Connection: close"):
                await visitor.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            assert parse(await receive_all(visitor)).body == b"at last"


async def test_a_head_that_does_not_come_gets_408(start_server) -> None:
    server = await start_server(timeouts=HttpTimeouts(head=0.1))
    async with await connect(server.public) as visitor:
        await visitor.send_all(b"GET / HTTP/1.1\r\nHost:")
        check_is_page(parse(await receive_all(visitor)), 408)


async def test_a_head_that_trickles_in_has_no_longer(start_server) -> None:
    server = await start_server(timeouts=HttpTimeouts(head=0.1))
    async with await connect(server.public) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(trickle, visitor)
        assert parse(await receive_all(visitor)).status == 408
        nursery.cancel_scope.cancel()


async def trickle(visitor: trio.abc.SendStream) -> None:
    await visitor.send_all(b"GET / HTTP/1.1\r\nX: ")
    while True:
        await visitor.send_all(b"x")
        await trio.sleep(0.01)


async def test_a_head_that_is_too_large_gets_431(server: RunningServer) -> None:
    answer = await fetch(server.public, "/", f"X-Large: {'x' * 100_000}")
    check_is_page(answer, 431)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: app.localhost\r\n"], ids=repr)
async def test_a_visitor_who_leaves_before_his_head_is_whole_disturbs_nobody(
    server: RunningServer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level("WARNING", "otun")
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        assert await ask_and_leave(server, sent) == b""
        assert (await fetch(server.public)).body == b"served"
        await client.see_no_streams_but_control()
    assert not caplog.records


async def ask_and_leave(server: RunningServer, sent: bytes) -> bytes:
    async with await connect(server.public) as visitor:
        await visitor.send_all(sent)
        await visitor.send_eof()
        return await receive_all(visitor)


@pytest.mark.parametrize(
    "fields",
    ["", "Host: a\r\nHost: b\r\n", "Host: [\r\n"],
    ids=["no Host", "two Hosts", "no such Host"],
)
async def test_requests_without_a_proper_host_are_answered_as_they_prefer(server, fields: str) -> None:
    for method in ("GET", "HEAD"):
        sent = f"{method} / HTTP/1.1\r\n{fields}Accept: application/json\r\n\r\n"
        received = await ask(server.public, sent.encode())
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"Content-Type: application/json" in head
        assert b"Otun-Error: bad_request" in head
        assert bool(body) == (method == "GET")
