"""What the local service learns of its visitors: over real sockets, from the edge, from proxies, in a PROXY header."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network

import attrs
import pytest
import trio

from otun import HttpTimeouts, TcpAddress, TunnelSettings, forward
from otun.proxy_protocol import ProxyHeader, ProxyHeaderReader, encode_v2
from otun.server.listening import _has_ipv6 as has_ipv6

from .conversation import Tenant, conversation, receive_request, tenant
from .harness import LOOPBACK, RunningServer
from .raw_client import raw_client, registered_client
from .services import receive_all, receive_head, response
from .visitors import ask, fetch, parse, request

PROXY = "127.0.0.2"
"""The address of a proxy that servers here trust."""

TRUSTED = (ip_network(f"{PROXY}/32"),)

SOURCE, SOURCE_6 = TcpAddress("198.51.100.7", 4711), TcpAddress("2001:db8::7", 4712)


@pytest.fixture
async def trusting(start_server) -> RunningServer:
    """A server that trusts `PROXY` alone."""
    return await start_server(domain="tunnel.example", trusted_proxies=TRUSTED)


async def ask_as_proxy(server: RunningServer, sent: bytes) -> bytes:
    """Send *sent* from the proxy's address, and receive until the end."""
    stream = await trio.open_tcp_stream(server.public.host, server.public.port, local_address=PROXY)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, sent)
        return await receive_all(stream)


def fields_of(head: bytes, name: str) -> list[str]:
    lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")]
    return [value for given, _, value in lines if given.lower() == name.lower()]


def app_request(*fields: str, **keywords: object) -> bytes:
    return request("/", "Connection: close", *fields, host="app.tunnel.example", **keywords)  # type: ignore[arg-type]


LINE = b"PROXY TCP4 198.51.100.7 203.0.113.1 4711 80\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4712 80\r\n"
BINARY = encode_v2(ProxyHeader(SOURCE, TcpAddress("203.0.113.1", 80)))
BINARY_6 = encode_v2(ProxyHeader(SOURCE_6, TcpAddress("2001:db8::1", 80), ((0x02, b"authority"),)))
HEADERS = {"v1": LINE, "v1 IPv6": LINE_6, "v2": BINARY, "v2 IPv6": BINARY_6}


# Fields


async def test_a_strangers_fields_are_dropped_and_the_truth_is_told(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        await ask(
            trusting.public,
            app_request(
                "X-Forwarded-For: 6.6.6.6", "x_forwarded_proto: https", "X-REAL-IP: 6.6.6.6", "forwarded: evil"
            ),
        )
        (head,) = app.heads
        assert fields_of(head, "X-Forwarded-For") == ["127.0.0.1"]
        assert fields_of(head, "X-Forwarded-Host") == ["app.tunnel.example"]
        assert fields_of(head, "X-Forwarded-Proto") == ["http"]
        assert fields_of(head, "Forwarded") == ['for=127.0.0.1;proto=http;host="app.tunnel.example"']
        assert b"6.6.6.6" not in head
        assert b"evil" not in head
        assert b"x_forwarded" not in head.lower()


async def test_a_trusted_proxys_fields_are_completed(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        await ask_as_proxy(trusting, app_request("X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https"))
        (head,) = app.heads
        assert fields_of(head, "X-Forwarded-For") == [f"198.51.100.7, {PROXY}"]
        assert fields_of(head, "X-Forwarded-Proto") == ["https"]


async def test_trailers_cannot_speak_for_the_edge(trusting: RunningServer) -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n%s\r\n"
    trailers = b"".join(
        b"%s: 6.6.6.6\r\n" % name
        for name in (b"X-Forwarded-For", b"x_forwarded_for", b"Forwarded", b"X-Real-IP", b"x_real_ip", b"Host")
    )
    received = b""

    async def answer(stream: trio.abc.HalfCloseableStream) -> None:
        nonlocal received
        while not (b"\r\n0\r\n" in received and received.endswith(b"\r\n\r\n")):
            piece = await stream.receive_some()
            assert piece
            received += piece
        await stream.send_all(response())

    async with registered_client(trusting.control) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.serve, answer)
        sent = b"POST / HTTP/1.1\r\nHost: app.tunnel.example\r\nConnection: close\r\n"
        assert parse(await ask(trusting.public, sent + body % (trailers + b"X-Kept: yes\r\n"))).status == 200
        nursery.cancel_scope.cancel()
    assert b"6.6.6.6" not in received
    assert b"X-Kept: yes" in received


async def test_hop_by_hop_fields_are_removed_in_both_directions(trusting: RunningServer) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        fields = "Connection: X-Inner", "X-Inner: 1", "Keep-Alive: timeout=1", "Proxy-Connection: x", "Kept: 1"
        await stream.send_all(response(b"hello", *fields))

    async with tenant(trusting.control, "app", answer) as app, conversation(trusting.public) as visitor:
        answered = await visitor.ask(
            "/", "Connection: keep-alive, X-Outer", "X-Outer: 1", "Keep-Alive: 1", "Kept: 2", host="app.tunnel.example"
        )
        (head,) = app.heads
        for name in ("Connection", "X-Outer", "Keep-Alive"):
            assert fields_of(head, name) == []
        assert fields_of(head, "Kept") == ["2"]
        assert set(answered.fields) == {"Content-Length", "Kept"}


@pytest.mark.parametrize("option", ["Host", "Content-Length", "transfer-encoding", "close, HOST"])
async def test_a_connection_field_that_names_what_routes_the_message_is_400(
    trusting: RunningServer, option: str
) -> None:
    async with tenant(trusting.control, "app") as app:
        sent = request("/", f"Connection: {option}", host="app.tunnel.example")
        assert parse(await ask(trusting.public, sent)).status == 400
        assert not app.heads


async def test_an_answer_whose_connection_field_names_its_length_is_502(trusting: RunningServer) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(response(b"hello", "Connection: Content-Length"))

    async with tenant(trusting.control, "app", answer):
        answered = parse(await ask(trusting.public, app_request()))
        assert (answered.status, answered.fields["Otun-Error"]) == (502, "bad_response")


# What the owner asked for


async def test_host_header_takes_the_place_of_host(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app", host_header="localhost:3000") as app:
        await ask(trusting.public, app_request())
        (head,) = app.heads
        assert fields_of(head, "Host") == ["localhost:3000"]
        assert fields_of(head, "X-Forwarded-Host") == ["app.tunnel.example"]


async def test_without_host_header_the_service_sees_the_visitors_host(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        await ask(trusting.public, request("/", "Connection: close", host="APP.tunnel.example:8080"))
        assert fields_of(app.heads[0], "Host") == ["APP.tunnel.example:8080"]


async def test_http_1_0_without_host_shows_the_service_the_tunnels_name(start_server) -> None:
    server = await start_server()
    async with tenant(server.control, "app") as app:
        await ask(server.public, b"GET / HTTP/1.0\r\n\r\n")
        assert fields_of(app.heads[0], "Host") == ["app.localhost"]


async def test_headers_are_edited_in_both_directions(trusting: RunningServer) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(response(b"", "Server: secret", "X-Powered-By: x"))

    edits = {
        "request_headers": ["X-Key: 1", "Accept: text/plain", "-Cookie", "X-Forwarded-Proto: https"],
        "response_headers": ["Server: otun", "-X-Powered-By", "Strict-Transport-Security: max-age=1"],
    }
    async with tenant(trusting.control, "app", answer, **edits) as app:
        answered = parse(await ask(trusting.public, app_request("Accept: */*", "Cookie: a=b")))
        (head,) = app.heads
        assert fields_of(head, "X-Key") == ["1"]
        assert fields_of(head, "Accept") == ["text/plain"]
        assert fields_of(head, "Cookie") == []
        assert fields_of(head, "X-Forwarded-Proto") == ["https"]
        assert answered.fields["Server"] == "otun"
        assert "X-Powered-By" not in answered.fields
        assert answered.fields["Strict-Transport-Security"] == "max-age=1"


@pytest.mark.parametrize(
    "fields",
    [
        {"host_header": "a b"},
        {"host_header": "a\r\nX: y"},
        {"request_headers": ["Host: evil"]},
        {"request_headers": ["X: y\r\nZ: 1"]},
        {"response_headers": ["Content-Length: 5"]},
        {"response_headers": ["-Transfer-Encoding"]},
        {"request_headers": [f"X-{number}: 1" for number in range(33)]},
    ],
    ids=repr,
)
async def test_edits_that_would_change_how_messages_are_read_are_refused(
    trusting: RunningServer, fields: dict[str, object]
) -> None:
    async with raw_client(trusting.control) as client:
        answer = await client.register("app", **fields)
        assert (answer["type"], answer["code"]) == ("error", "header_invalid")


async def test_a_cookie_is_not_set_for_other_tunnels(trusting: RunningServer) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(
            response(
                b"",
                "Set-Cookie: a=1; Domain=tunnel.example; Path=/",
                "Set-Cookie: b=2; Domain=app.tunnel.example",
                "Set-Cookie: c=3; domain=.EXAMPLE",
            )
        )

    async with tenant(trusting.control, "app", answer):
        received = await ask(trusting.public, app_request())
    head = received.partition(b"\r\n\r\n")[0]
    assert fields_of(head, "Set-Cookie") == ["a=1; Path=/", "b=2; Domain=app.tunnel.example", "c=3"]


async def test_an_edit_does_not_set_a_cookie_for_other_tunnels_either(trusting: RunningServer) -> None:
    edits = ["set-cookie: a=1; Domain=tunnel.example; Path=/", "Set-Cookie: b=2; Domain=app.tunnel.example"]
    async with tenant(trusting.control, "app", response_headers=edits):
        received = await ask(trusting.public, app_request())
    head = received.partition(b"\r\n\r\n")[0]
    assert fields_of(head, "Set-Cookie") == ["a=1; Path=/", "b=2; Domain=app.tunnel.example"]


async def test_an_upgrade_does_not_set_a_cookie_for_other_tunnels_either(trusting: RunningServer) -> None:
    async def upgrade(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd\r\n"
            b"Set-Cookie: a=1; Domain=tunnel.example\r\n\r\nhello"
        )
        await stream.send_eof()
        await receive_all(stream)

    async with tenant(trusting.control, "app", upgrade), conversation(trusting.public) as visitor:
        await visitor.send("/", "Connection: Upgrade", "Upgrade: odd", host="app.tunnel.example")
        head, rest = await receive_head(visitor.stream)
        assert fields_of(head, "Set-Cookie") == ["a=1"]
        assert rest + await receive_all(visitor.stream) == b"hello"


# The PROXY protocol, from proxies in front


@pytest.mark.parametrize("form", HEADERS)
async def test_a_trusted_proxy_may_say_whom_it_speaks_for(trusting: RunningServer, form: str) -> None:
    source = SOURCE_6 if "6" in form else SOURCE
    async with tenant(trusting.control, "app") as app:
        received = await ask_as_proxy(trusting, HEADERS[form] + app_request("X-Forwarded-For: 6.6.6.6"))
        assert parse(received).status == 200
        assert fields_of(app.heads[0], "X-Forwarded-For") == [source.host], "the visitor behind it is not trusted"


@pytest.mark.parametrize("form", HEADERS)
async def test_its_header_may_come_in_pieces(trusting: RunningServer, form: str) -> None:
    async with tenant(trusting.control, "app") as app:
        stream = await trio.open_tcp_stream(trusting.public.host, trusting.public.port, local_address=PROXY)
        async with stream:
            sent = HEADERS[form] + app_request()
            for piece in (sent[:1], sent[1:3], sent[3:15], sent[15:20], sent[20:-5], sent[-5:]):
                await stream.send_all(piece)
                await app.client.session.ping()
            assert parse(await receive_all(stream)).status == 200
        assert fields_of(app.heads[0], "X-Forwarded-For") == [(SOURCE_6 if "6" in form else SOURCE).host]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", encode_v2(ProxyHeader(None, None))], ids=["v1", "v2"])
async def test_a_proxy_that_speaks_for_itself_is_the_visitor(trusting: RunningServer, header: bytes) -> None:
    async with tenant(trusting.control, "app") as app:
        await ask_as_proxy(trusting, header + app_request("X-Forwarded-For: 198.51.100.7"))
        assert fields_of(app.heads[0], "X-Forwarded-For") == [f"198.51.100.7, {PROXY}"]


async def test_a_trusted_proxy_need_not_send_a_header(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        for method in ("GET", "POST", "PUT", "PATCH", "PROPFIND", "OPTIONS"):
            assert parse(await ask_as_proxy(trusting, app_request(method=method))).status == 200
        assert parse(await ask_as_proxy(trusting, b"\r\n" + app_request())).status == 200
        assert len(app.heads) == 7


async def test_a_keep_alive_connection_keeps_the_visitor_of_its_header(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        sent = LINE + request("/1", host="app.tunnel.example") + app_request()
        await ask_as_proxy(trusting, sent)
        assert [fields_of(head, "X-Forwarded-For") for head in app.heads] == [[SOURCE.host]] * 2


async def test_a_second_header_is_no_request(trusting: RunningServer) -> None:
    async with tenant(trusting.control, "app") as app:
        assert parse(await ask_as_proxy(trusting, LINE + LINE + app_request())).status == 400
        assert not app.heads


@pytest.mark.parametrize("form", HEADERS)
async def test_nobody_else_may(trusting: RunningServer, form: str) -> None:
    async with tenant(trusting.control, "app") as app:
        answer = parse(await ask(trusting.public, HEADERS[form] + app_request()))
        assert (answer.status, answer.fields["Otun-Error"]) == (400, "bad_request")
        assert not app.heads


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 198.51.100.300 203.0.113.1 1 2\r\n",
        b"PROXY TCP4 198.51.100.7\r\n",
        b"PROXY TCP9 a b 1 2\r\n",
        b"PROXY " + b"A" * 200,
        BINARY[:12] + b"\x31" + BINARY[13:],
        BINARY[:14] + b"\xff\xff" + BINARY[16:],
    ],
    ids=["address", "short", "family", "long", "version", "length"],
)
async def test_a_bad_header_of_a_trusted_proxy_is_400(trusting: RunningServer, header: bytes) -> None:
    async with tenant(trusting.control, "app") as app:
        assert parse(await ask_as_proxy(trusting, header + app_request())).status == 400
        assert not app.heads


@pytest.mark.parametrize("begun", [b"P", LINE[:20], BINARY[:13], LINE, BINARY, LINE + b"GET / HT"])
async def test_a_header_counts_in_the_heads_time_limit(start_server, begun: bytes) -> None:
    server = await start_server(trusted_proxies=TRUSTED, timeouts=HttpTimeouts(head=0.5))
    stream = await trio.open_tcp_stream(server.public.host, server.public.port, local_address=PROXY)
    async with stream:
        await stream.send_all(begun)
        received = await receive_all(stream)
    # A connection that has not begun a request is closed without a word, as one is that a browser does not need.
    assert not received if begun in (LINE, BINARY) else parse(received).status == 408


# The PROXY protocol, to the local service


@attrs.frozen
class Seen:
    """What a local service has received."""

    header: ProxyHeader
    head: bytes


@asynccontextmanager
async def service_behind(server: RunningServer, start_service, nursery: trio.Nursery) -> AsyncIterator[list[Seen]]:
    """A local service that reads a PROXY header before each connection's requests, and a tunnel to it."""

    async def serve(connection: trio.SocketStream) -> None:
        reader = ProxyHeaderReader(is_v1_allowed=False)
        header = None
        while header is None:
            piece = await connection.receive_some()
            assert piece
            header = reader.feed(piece)
        rest = reader.rest
        while True:
            head, _, rest = await receive_request(connection, rest)
            if not head:
                return
            seen.append(Seen(header, head))
            await connection.send_all(response(str(header.source).encode()))

    seen: list[Seen] = []
    service = await start_service(serve)
    async with trio.open_nursery() as inner:
        await inner.start(partial(forward, server.control, service.address, name="app", proxy_protocol=True))
        yield seen
        inner.cancel_scope.cancel()


async def test_the_local_service_is_told_the_visitors_address(
    trusting: RunningServer, start_service, nursery: trio.Nursery
) -> None:
    async with service_behind(trusting, start_service, nursery) as seen, conversation(trusting.public) as visitor:
        host, port = visitor.stream.socket.getsockname()
        for target in ("/1", "/2"):
            answer = await visitor.ask(target, host="app.tunnel.example")
            assert answer.text == f"{host}:{port}"
        assert [one.header for one in seen] == [ProxyHeader(TcpAddress(host, port), trusting.public)] * 2


@pytest.mark.parametrize("form", HEADERS)
async def test_so_it_is_of_a_visitor_behind_a_trusted_proxy(
    trusting: RunningServer, start_service, nursery: trio.Nursery, form: str
) -> None:
    async with service_behind(trusting, start_service, nursery) as seen:
        received = await ask_as_proxy(trusting, HEADERS[form] + app_request())
        assert parse(received).status == 200
        assert seen[0].header.source == (SOURCE_6 if "6" in form else SOURCE)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_so_it_is_of_a_visitor_over_ipv6(start_server, start_service, nursery: trio.Nursery) -> None:
    server = await start_server(control=LOOPBACK, public=TcpAddress("::1", 0))
    async with service_behind(server, start_service, nursery) as seen, conversation(server.public) as visitor:
        host, port = visitor.stream.socket.getsockname()[:2]
        assert host == "::1"
        await visitor.ask("/")
        assert seen[0].header == ProxyHeader(TcpAddress(host, port), server.public)
        assert fields_of(seen[0].head, "X-Forwarded-For") == ["::1"]
        assert fields_of(seen[0].head, "Forwarded") == ['for="[::1]";proto=http;host="app.localhost"']


async def test_the_request_log_does_not_see_the_header(
    trusting: RunningServer, start_service, nursery: trio.Nursery
) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(b"hello"))

    exchanges = []
    service = await start_service(serve)
    settings = TunnelSettings(name="app")
    start = partial(
        forward, trusting.control, service.address, settings, proxy_protocol=True, on_exchange=exchanges.append
    )
    async with trio.open_nursery() as inner:
        await inner.start(start)
        await fetch(trusting.public, "/x", host="app.tunnel.example")
        inner.cancel_scope.cancel()
    assert [(one.method, one.target, one.status) for one in exchanges] == [("GET", "/x", 200)]


def test_the_proxys_address_is_one_of_this_machine() -> None:
    with socket.socket() as sock:
        sock.bind((PROXY, 0))
