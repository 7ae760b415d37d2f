"""HTTP over TLS that ends at the server: what works without TLS works with it, and nothing looks whole that is not."""

import hashlib
from ipaddress import ip_network

import pytest
import trio

from otun import HttpTimeouts, Stream, TcpAddress
from otun.proxy_protocol import ProxyHeader, encode_v2

from .certificates import DOMAIN, TlsVisitor, send_in_pieces
from .conversation import Conversation, Tenant, conversation, tenant
from .edges import NAME, Edge, StartEdge
from .raw_client import registered_client, see_no_streams_left
from .services import Asked, receive_all, receive_head, response
from .visitors import Responses, connect, fetch, receive_exactly, request

LARGE = 5_000_000


async def answer_with_digest(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    """Answer with a large body, and say in a field which one has come."""
    digest = hashlib.sha256(one.bodies[-1]).hexdigest()
    await stream.send_all(response(body_of(number), f"X-Received: {digest}"))


def body_of(number: int) -> bytes:
    """A large body, each *number* another one."""
    return b"".join(hashlib.sha512(b"%d %d" % (number, block)).digest() for block in range(LARGE // 64))


# Requests and answers


async def test_the_local_service_is_told_that_the_visitor_came_by_https(edge: Edge) -> None:
    async with tenant(edge.control, "app") as app:
        answer = await edge.fetch("/x", "X-Forwarded-Proto: gopher", "X-Forwarded-For: 192.0.2.1")
        assert (answer.status, answer.text) == (200, "app 1 /x")
        asked = Asked.of(app.heads[0])
        assert asked.fields["x-forwarded-proto"] == "https"
        assert asked.fields["x-forwarded-for"] == "127.0.0.1"
        assert asked.fields["forwarded"] == f'for=127.0.0.1;proto=https;host="{NAME}"'
    await edge.see_nobody()


async def test_requests_follow_each_other_on_a_connection(edge: Edge) -> None:
    async with tenant(edge.control, "app"), tenant(edge.control, "other"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        for number in range(10):
            name = ("app", "other")[number % 2]
            answer = await talk.ask(f"/{number}", host=f"{name}.{DOMAIN}")
            assert answer.text == f"{name} 1 /{number}"


async def test_requests_that_are_sent_ahead_are_answered_in_order(edge: Edge) -> None:
    async with tenant(edge.control, "app"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        await visitor.send_all(b"".join(request(f"/{number}", host=NAME) for number in range(30)))
        assert [(await talk.receive()).text for _ in range(30)] == [f"app 1 /{number}" for number in range(30)]


async def test_large_bodies_go_both_ways(edge: Edge) -> None:
    async with tenant(edge.control, "app", answer_with_digest), edge.visiting() as visitor:
        responses = Responses(visitor)
        for number in (1, 1):
            sent = body_of(number + 100)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(visitor.send_all, request("/", host=NAME, method="POST", body=sent))
                answer = await responses.next(method="POST")
            assert answer.fields["X-Received"] == hashlib.sha256(sent).hexdigest()
            assert answer.body == body_of(number)


async def test_many_visitors_at_once_get_each_their_own(edge: Edge) -> None:
    async with tenant(edge.control, "app"), trio.open_nursery() as nursery:

        async def visit(number: int) -> None:
            async with edge.visiting() as visitor:
                talk = Conversation(visitor)
                for turn in range(3):
                    assert (await talk.ask(f"/{number}/{turn}", host=NAME)).text.endswith(f" /{number}/{turn}")

        for number in range(40):
            nursery.start_soon(visit, number)
    await edge.see_nobody()


async def test_head_has_no_body_and_the_connection_goes_on(edge: Edge) -> None:
    async with tenant(edge.control, "app"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        answer = await talk.ask("/1", host=NAME, method="HEAD")
        assert (answer.fields["Content-Length"], answer.body) == ("8", b"")
        assert (await talk.ask("/2", host=NAME)).text == "app 1 /2"


async def test_chunks_go_both_ways(edge: Edge) -> None:
    async with registered_client(edge.control) as client, edge.visiting() as visitor:
        head = request("/", "Transfer-Encoding: chunked", host=NAME, method="POST")
        await visitor.send_all(head + b"5\r\nhello\r\n")
        stream = await client.session.accept()
        _, rest = await receive_head(stream)
        assert rest + await receive_exactly(stream, len(b"5\r\nhello\r\n") - len(rest)) == b"5\r\nhello\r\n"
        await visitor.send_all(b"0\r\n\r\n")
        assert await receive_exactly(stream, 5) == b"0\r\n\r\n"
        answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        await stream.send_all(answer)
        assert await receive_exactly(visitor, len(answer)) == answer


@pytest.mark.parametrize("field", ["", "Connection: keep-alive\r\n"])
async def test_http_1_0_ends_unless_it_asks_to_go_on(edge: Edge, field: str) -> None:
    sent = f"GET /old HTTP/1.0\r\nHost: {NAME}\r\n{field}\r\n".encode()
    async with tenant(edge.control, "app"), edge.visiting() as visitor:
        talk = Conversation(visitor)
        for _ in range(2 if field else 1):
            await visitor.send_all(sent)
            assert (await talk.receive()).text == "app 1 /old"
        if not field:
            assert await talk.receive_rest() == b""


async def test_an_answer_may_come_while_the_visitor_still_sends(edge: Edge) -> None:
    refusal = response(b"too much", "Connection: close", status="413 Content Too Large")

    async def refuse(stream: Stream) -> None:
        await receive_head(stream)
        await stream.send_all(refusal)
        await stream.send_eof()
        await receive_all(stream)

    async with registered_client(edge.control) as client, edge.visiting() as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(client.serve, refuse)

        async def upload() -> None:
            await visitor.send_all(request("/", "Content-Length: 1000000000", host=NAME, method="POST"))
            while True:
                await visitor.send_all(bytes(64 * 1024))

        nursery.start_soon(upload)
        answer = await Responses(visitor).next(method="POST")
        assert (answer.status, answer.body) == (413, b"too much")
        nursery.cancel_scope.cancel()
    await edge.see_nobody()


async def test_a_visitor_who_reads_slowly_gets_everything(edge: Edge) -> None:
    async with tenant(edge.control, "app", answer_with_digest), edge.visiting() as slow, edge.visiting() as other:
        await slow.send_all(request("/", host=NAME))
        digest = hashlib.sha256()
        head, start = await receive_head(slow)
        digest.update(start)
        missing = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) - len(start)
        await Conversation(other).ask("/", host=NAME)  # Somebody else is served in the meantime.
        while missing:
            piece = await slow.receive_some(min(missing, 10_000))
            digest.update(piece)
            missing -= len(piece)
        assert digest.digest() == hashlib.sha256(body_of(1)).digest()


# Upgrades


async def test_after_an_upgrade_bytes_go_both_ways(edge: Edge) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    async with registered_client(edge.control) as client, edge.visiting() as visitor:
        asking = request("/", "Connection: Upgrade", "Upgrade: echo", host=NAME)
        await visitor.send_all(asking + b"early")
        stream = await client.session.accept()
        _, rest = await receive_head(stream)
        await stream.send_all(switch + b"first")
        assert await receive_exactly(visitor, len(switch) + 5) == switch + b"first"
        assert rest + await receive_exactly(stream, 5 - len(rest)) == b"early"
        data = body_of(7)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.send_all, data)
            nursery.start_soon(stream.send_all, data)
            assert await receive_exactly(stream, len(data)) == data
            assert await receive_exactly(visitor, len(data)) == data
        await visitor.send_eof()
        assert await receive_all(stream) == b""
        await stream.send_all(b"last")
        await stream.send_eof()
        assert await receive_all(visitor) == b"last"
        await see_no_streams_left(client.session)
        await edge.see_nobody()


# Ends


async def test_a_visitor_who_has_finished_sending_still_gets_the_answer(edge: Edge) -> None:
    async with registered_client(edge.control) as client, edge.visiting() as visitor:
        await visitor.send_all(request("/", host=NAME))
        await visitor.send_eof()
        stream = await client.session.accept()
        await receive_head(stream)
        assert await receive_all(stream) == b""
        data = body_of(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, response(data))
            assert (await receive_all(visitor)).endswith(b"\r\n\r\n" + data)
    await edge.see_nobody()


@pytest.mark.parametrize("has_goodbye", [True, False], ids=["with close_notify", "without a goodbye"])
async def test_a_request_that_ends_within_its_body_does_not_look_whole(edge: Edge, has_goodbye: bool) -> None:
    async with registered_client(edge.control) as client:
        async with edge.visiting() as visitor:
            await visitor.send_all(request("/", host=NAME, method="POST", body=bytes(1000))[:-1])
            stream = await client.session.accept()
            await receive_head(stream)
            if has_goodbye:
                await visitor.send_eof()
            else:
                await visitor.sock.send_eof()
            with pytest.raises(trio.BrokenResourceError):
                await receive_all(stream)
        await edge.see_nobody()


async def test_an_answer_that_is_cut_short_does_not_end_with_close_notify(edge: Edge) -> None:
    async with registered_client(edge.control) as client, edge.visiting() as visitor:
        await visitor.send_all(request("/", host=NAME))
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(response(bytes(1000))[:-1])
        await receive_head(visitor)
        stream.reset()
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(visitor)
    await edge.see_nobody()


async def test_an_answer_that_the_end_delimits_ends_with_close_notify(edge: Edge) -> None:
    """For HTTP/1.0 there is nothing else that tells a whole answer from one that was cut short."""
    async with registered_client(edge.control) as client, edge.visiting() as visitor:
        await visitor.send_all(f"GET / HTTP/1.0\r\nHost: {NAME}\r\n\r\n".encode())
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await stream.send_eof()
        assert (await receive_all(visitor)).endswith(b"\r\n\r\nall of it")
    await edge.see_nobody()


async def test_a_visitor_who_leaves_without_a_goodbye_between_requests_is_no_news(edge: Edge) -> None:
    async with tenant(edge.control, "app") as app:
        async with edge.visiting() as visitor:
            await Conversation(visitor).ask("/", host=NAME)
        await edge.see_nobody()
        await app.client.see_no_streams_but_control()
    assert edge.reports == []


async def test_a_visitor_who_asks_for_nothing_is_said_goodbye_to(start_edge: StartEdge) -> None:
    edge = await start_edge(timeouts=HttpTimeouts(head=0.3))
    async with edge.visiting() as visitor:
        assert await receive_all(visitor) == b""
    await edge.see_nobody()
    assert edge.reports == []


# Whom the server believes


SOURCE = TcpAddress("192.0.2.7", 50_000)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
V2 = encode_v2(ProxyHeader(SOURCE, TcpAddress("198.51.100.1", 443)))
TRUSTED = (ip_network("127.0.0.0/8"),)
versions = pytest.mark.parametrize("header", [V1, V2], ids=["version 1", "version 2"])


@versions
async def test_a_trusted_proxy_says_before_tls_who_the_visitor_is(start_edge: StartEdge, header: bytes) -> None:
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with tenant(edge.control, "app") as app, edge.visiting(before=header) as visitor:
        await Conversation(visitor).ask("/", "X-Forwarded-For: 203.0.113.1", host=NAME)
        asked = Asked.of(app.heads[0])
        assert asked.fields["x-forwarded-for"] == SOURCE.host  # Who comes through the proxy is not trusted itself.
        assert asked.fields["x-forwarded-proto"] == "https"
    await edge.see_nobody()


@versions
async def test_the_header_and_the_hello_may_come_in_any_pieces(start_edge: StartEdge, header: bytes) -> None:
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with tenant(edge.control, "app") as app, await connect(edge.https) as sock:
        visitor = TlsVisitor(sock, edge.context, NAME)
        data = header + visitor.hello()
        await send_in_pieces(sock, (data[start : start + 1] for start in range(len(data))))
        await visitor.shake_hands()
        await Conversation(visitor).ask("/", host=NAME)
        assert Asked.of(app.heads[0]).fields["x-forwarded-for"] == SOURCE.host


async def test_a_trusted_proxy_that_sends_no_header_is_believed_by_its_fields(start_edge: StartEdge) -> None:
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with tenant(edge.control, "app") as app:
        await edge.fetch("/", "X-Forwarded-For: 203.0.113.1")
        assert Asked.of(app.heads[0]).fields["x-forwarded-for"] == "203.0.113.1, 127.0.0.1"


@versions
async def test_a_header_from_anybody_else_is_refused(edge: Edge, header: bytes) -> None:
    async with await connect(edge.https) as visitor:
        await visitor.send_all(header + bytes(100))
        await receive_all(visitor)
    assert "which is no TLS" in await edge.see_report()
    await edge.see_nobody()


async def test_a_header_of_a_trusted_proxy_that_is_malformed_is_reported(start_edge: StartEdge) -> None:
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with await connect(edge.https) as visitor:
        await visitor.send_all(b"PROXY TCP4 nonsense\r\n")
        assert await receive_all(visitor) == b""
    assert "PROXY header" in await edge.see_report()
    await edge.see_nobody()


# The log, and the plain port beside it


async def test_http_works_beside_https(start_edge: StartEdge) -> None:
    edge = await start_edge(redirect=False)
    async with tenant(edge.control, "app") as app, conversation(edge.public) as visitor:
        assert (await visitor.ask("/", host=NAME)).status == 200
        assert Asked.of(app.heads[0]).fields["x-forwarded-proto"] == "http"
    assert (await fetch(edge.public, host=f"none.{DOMAIN}")).status == 404


async def test_a_server_may_have_the_https_port_alone(start_edge: StartEdge) -> None:
    edge = await start_edge(public=None)
    async with tenant(edge.control, "app") as app:
        assert app.url == f"https://{NAME}:{edge.https.port}"
        assert (await edge.fetch()).status == 200


async def test_pages_of_the_servers_own_come_by_https_too(edge: Edge) -> None:
    answer = await edge.fetch(host=f"none.{DOMAIN}")
    assert (answer.status, answer.fields["Otun-Error"]) == (404, "no_tunnel_yet")
    async with edge.visiting() as visitor:
        await visitor.send_all(b"GET / HTTP/1.1\r\nHost: \x01\r\n\r\n")
        assert (await receive_all(visitor)).startswith(b"HTTP/1.1 400 ")
    await edge.see_nobody()
