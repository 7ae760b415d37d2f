"""The way to the server through a proxy: whole tunnels, and proxies that refuse, break off or talk nonsense."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from otun import AddressError, ServerUnreachable, TcpAddress, open_tunnel
from otun.client.connecting import connect
from otun.client.proxies import parse_proxy
from otun.client.through_proxy import MAX_INTERIM_RESPONSES

from ..server.harness import RunningServer, open_descriptors
from ..server.services import Handler, answer_with_target, receive_all, receive_head, start_service
from ..server.visitors import fetch, receive_exactly, reset
from .proxy_servers import GRANTED, SOCKS_GRANTED, SOCKS_REFUSED, Proxy
from .support import Names

SERVER: Final = TcpAddress("tunnel.example.org", 4443)
SCHEMES: Final = ("http", "socks5", "socks5h")
CREDENTIALS: Final = "user:hunter2"

StartProxy = Callable[..., Awaitable[Proxy]]


@pytest.fixture
def start_proxy(nursery: trio.Nursery) -> StartProxy:
    """Start a proxy of the kind that a scheme stands for; it leads to *leads_to*."""

    async def start(scheme: str, leads_to: TcpAddress, *, credentials: str | None = None) -> Proxy:
        proxy = Proxy(leads_to, credentials)
        await proxy.start(nursery, proxy.serve_http if scheme == "http" else proxy.serve_socks)
        return proxy

    return start


async def fail(
    handler: Handler | TcpAddress, *, scheme: str = "http", credentials: str = CREDENTIALS, timeout: float = 10
) -> str:
    """Fail to connect through a proxy, *handler* or nobody; what is said behind "the proxy at ADDRESS "."""
    async with trio.open_nursery() as nursery:
        address = handler if isinstance(handler, TcpAddress) else (await start_service(nursery, handler)).address
        before = open_descriptors()
        with pytest.raises(ServerUnreachable) as caught:
            await connect(SERVER, proxy=parse_proxy(f"{scheme}://{credentials}@{address}"), timeout=timeout)
        nursery.cancel_scope.cancel()
        if isinstance(handler, TcpAddress):
            assert open_descriptors() == before
    text = str(caught.value)
    assert text.isprintable()
    assert "hunter2" not in text
    start = f"cannot reach the server at {SERVER}: the proxy at {address} "
    assert text.startswith(start)
    return text.removeprefix(start)


def answering(*pieces: bytes) -> Handler:
    """Read a bit and send a piece, in turn, and close."""

    async def answer(client: trio.SocketStream) -> None:
        for piece in pieces:
            await client.receive_some()
            await client.send_all(piece)
        await client.send_eof()
        await receive_all(client)

    return answer


# Whole tunnels


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("credentials", [None, CREDENTIALS], ids=["open", "closed"])
async def test_a_tunnel_through_a_proxy(
    server: RunningServer, start_proxy: StartProxy, nursery: trio.Nursery, scheme: str, credentials: str | None
) -> None:
    proxy = await start_proxy(scheme, server.control, credentials=credentials)
    service = await start_service(nursery, answer_with_target)
    shown = f"{credentials}@" if credentials else ""
    async with open_tunnel(
        server.control, name="app", plaintext=True, proxy=f"{scheme}://{shown}{proxy.address}"
    ) as tunnel:
        nursery.start_soon(tunnel.forward_to, service.address)
        answer = await fetch(server.public, "/x")
        assert (answer.status, answer.text) == (200, "/x")
        nursery.cancel_scope.cancel()
    assert proxy.asked == [str(server.control)]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_nothing_is_said_in_plain_text_behind_a_proxy_though_it_is_on_this_machine(
    server: RunningServer, start_proxy: StartProxy, scheme: str
) -> None:
    """What it calls 127.0.0.1 may be at the other end of the world."""
    proxy = await start_proxy(scheme, server.control)
    with pytest.raises(ServerUnreachable, match="TLS failed"):
        async with open_tunnel(server.control, name="app", token="secret", proxy=f"{scheme}://{proxy.address}"):
            pass


async def test_credentials_that_nobody_asks_for_do_no_harm(server: RunningServer, start_proxy: StartProxy) -> None:
    proxy = await start_proxy("socks5", server.control)
    async with open_tunnel(server.control, name="app", plaintext=True, proxy=f"socks5://{CREDENTIALS}@{proxy.address}"):
        pass


async def test_a_tunnel_is_opened_without_a_proxy_whatever_the_environment_says(
    server: RunningServer, nobody_listens: TcpAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{nobody_listens}")
    Names(otun=["127.0.0.1"])
    async with open_tunnel(TcpAddress("otun", server.control.port), name="app", plaintext=True):
        pass


async def test_text_that_is_no_proxy_is_an_address_error(engine) -> None:
    with pytest.raises(AddressError):
        async with open_tunnel("h", proxy=""):
            pass


# Whom the proxy is asked for


@pytest.mark.parametrize(
    ("scheme", "server", "asked"),
    [
        ("http", SERVER, "tunnel.example.org:4443"),
        ("http", TcpAddress("bücher.example", 1), "xn--bcher-kva.example:1"),
        ("http", TcpAddress("2001:db8::1", 1), "[2001:db8::1]:1"),
        ("http", TcpAddress("192.0.2.1", 65535), "192.0.2.1:65535"),
        ("socks5h", SERVER, "tunnel.example.org:4443"),
        ("socks5h", TcpAddress("bücher.example", 1), "xn--bcher-kva.example:1"),
        ("socks5h", TcpAddress("2001:db8::1", 1), "[2001:db8::1]:1"),
        ("socks5h", TcpAddress("192.0.2.1", 65535), "192.0.2.1:65535"),
        ("socks5", SERVER, "192.0.2.9:4443"),
        ("socks5", TcpAddress("2001:db8::1", 1), "[2001:db8::1]:1"),
    ],
)
async def test_socks5_alone_resolves_the_servers_name_here(
    start_service, start_proxy: StartProxy, scheme: str, server: TcpAddress, asked: str
) -> None:
    Names(**{"tunnel.example.org": ["192.0.2.9"]})
    service = await start_service(answering(b"hello"))
    proxy = await start_proxy(scheme, service.address)
    stream = await connect(server, proxy=parse_proxy(f"{scheme}://{proxy.address}"), timeout=10)
    async with stream:
        await stream.send_all(b"?")
        assert await receive_exactly(stream, 5) == b"hello"
    assert proxy.asked == [asked]


async def test_all_addresses_of_a_proxy_are_tried(start_service, start_proxy: StartProxy) -> None:
    Names(proxy=["::1", "127.0.0.2", "127.0.0.1"])
    service = await start_service(answering(b"hello"))
    for scheme in ("http", "socks5h"):
        proxy = await start_proxy(scheme, service.address)
        async with await connect(SERVER, proxy=parse_proxy(f"{scheme}://proxy:{proxy.address.port}"), timeout=10):
            pass
        assert len(proxy.asked) == 1


async def test_a_name_that_socks5_cannot_resolve_here_is_the_servers(start_service) -> None:
    Names()
    proxy = await start_service(answering(b"\x05\x00"))
    with pytest.raises(ServerUnreachable) as caught:
        await connect(SERVER, proxy=parse_proxy(f"socks5://{proxy.address}"), timeout=10)
    assert str(caught.value) == f"cannot reach the server at {SERVER}: the host name cannot be resolved"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["a\r\nX: y", "a b", "", "a..b", "x" * 64, "ü" * 64, "["])
async def test_a_host_that_can_be_none_is_never_sent(nobody_listens: TcpAddress, scheme: str, host: str) -> None:
    with pytest.raises((AddressError, ServerUnreachable)) as caught:
        await connect(TcpAddress(host, 4443), proxy=parse_proxy(f"{scheme}://{nobody_listens}"), timeout=10)
    assert "proxy" not in str(caught.value)


# What follows the proxy's answer is the server's


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_the_servers_bytes_in_the_same_segment_are_not_lost(start_service, scheme: str) -> None:
    greeting = b"HTTP/1.1 what the server says\r\n\r\n" + bytes(range(256)) * 100
    pieces = (GRANTED + greeting,) if scheme == "http" else (b"\x05\x00", SOCKS_GRANTED + greeting)
    proxy = await start_service(answering(*pieces))
    async with await connect(SERVER, proxy=parse_proxy(f"{scheme}://{proxy.address}"), timeout=10) as stream:
        await stream.send_eof()
        assert await receive_all(stream) == greeting


ANSWERS: Final = {
    "usual": GRANTED,
    "short": b"HTTP/1.1 200\r\n\r\n",
    "old": b"HTTP/1.0 200 Connection established\r\nProxy-Agent: x\r\n\r\n",
    "any 2xx": b"HTTP/1.1 204 No Content\r\n\r\n",
    "with lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "with chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INTERIM_RESPONSES + GRANTED,
    "large": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 30_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_answers_that_grant(start_service, answer: bytes) -> None:
    proxy = await start_service(answering(answer + b"hello"))
    async with await connect(SERVER, proxy=parse_proxy(f"http://{proxy.address}"), timeout=10) as stream:
        await stream.send_eof()
        assert await receive_all(stream) == b"hello"


@pytest.mark.parametrize("size", [1, 2, 3, 5, len(GRANTED) - 1, len(GRANTED) + 1])
async def test_an_answer_may_come_in_pieces(start_service, size: int) -> None:
    sent = GRANTED + b"hello"

    async def answer(client: trio.SocketStream) -> None:
        await receive_head(client)
        for start in range(0, len(sent), size):
            await client.send_all(sent[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        await client.send_eof()
        await receive_all(client)

    proxy = await start_service(answer)
    async with await connect(SERVER, proxy=parse_proxy(f"http://{proxy.address}"), timeout=10) as stream:
        await stream.send_eof()
        assert await receive_all(stream) == b"hello"


# Proxies that are no help


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_cannot_be_reached_is_named(nobody_listens: TcpAddress, scheme: str) -> None:
    assert await fail(nobody_listens, scheme=scheme) == "cannot be reached: connection refused"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_is_not_known_is_named(scheme: str) -> None:
    Names(**{"tunnel.example.org": ["192.0.2.9"]})
    assert await fail(TcpAddress("proxy.example", 1080), scheme=scheme) == (
        "cannot be reached: the host name cannot be resolved"
    )


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_wrong_password_is_refused(start_proxy: StartProxy, scheme: str) -> None:
    expected = {
        "http": "refused: 407 Proxy Authentication Required",
        "socks5h": "refused: Username and password authentication failure",
    }
    proxy = await start_proxy(scheme, SERVER, credentials="user:other")
    assert await fail(proxy.address, scheme=scheme) == expected[scheme]


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_wants_a_password_and_gets_none_refuses(start_proxy: StartProxy, scheme: str) -> None:
    expected = {
        "http": "refused: 407 Proxy Authentication Required",
        "socks5h": "refused: No acceptable authentication methods were offered",
    }
    proxy = await start_proxy(scheme, SERVER, credentials="user:other")
    with pytest.raises(ServerUnreachable) as caught:
        await connect(SERVER, proxy=parse_proxy(f"{scheme}://{proxy.address}"), timeout=10)
    assert str(caught.value).endswith(f"the proxy at {proxy.address} {expected[scheme]}")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nbody", "refused: 403 Forbidden"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", "refused: 502 Bad Gateway"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login.example\r\n\r\n", "refused: 302 Found"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "refused: 101 Switching Protocols"),
        (b"HTTP/1.1 503\r\n\r\n", "refused: 503"),
        (b"HTTP/1.1 403 h\xe4\x9b\r\n\r\n", r"refused: '403 h\xe4\x9b'"),
        (b"HTTP/1.1 403 " + b"x" * 500 + b"\r\n\r\n", f"refused: '403 {'x' * 52}..."),
        (b"HTTP/1.1 403 \x1b[31mno\r\n\r\n", "sent an answer that cannot be used: it"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "sent an answer that cannot be used: it is malformed: "),
        (b"\x05\xff", "sent an answer that cannot be used: it is malformed: "),
        (b"hello 200", "sent an answer that cannot be used: it is malformed: "),
        (b"HTTP/1.1 200 OK\n\nhello", "sent an answer that cannot be used: it is malformed: "),
        (b"HTTP/2.0 200 OK\r\n\r\n", "sent an answer that cannot be used: "),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n" * (1 + MAX_INTERIM_RESPONSES) + GRANTED,
            "sent an answer that cannot be used: more than 8 interim responses came before it",
        ),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection"),
        (b"", "closed the connection"),
    ],
)
async def test_an_http_proxy_that_does_not_grant_is_quoted(answer: bytes, problem: str) -> None:
    said = await fail(answering(answer))
    assert said == problem if problem.startswith(("refused", "closed")) else said.startswith(problem)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 "])
async def test_an_endless_answer_is_not_read_to_its_end(start: bytes) -> None:
    async def answer(client: trio.SocketStream) -> None:
        await client.send_all(start)
        while True:
            await client.send_all(b"A: b\r\n" * 1000 if start.endswith(b"\n") else b"H" * 5000)

    assert (await fail(answer)).startswith("sent an answer that cannot be used: ")


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([b"\x05\x00", SOCKS_REFUSED], "refused: Connection not allowed by ruleset"),
        ([b"\x05\x00", b"\x05\x05\x00\x01"], "refused: Connection refused by destination host"),
        ([b"\x05\x00", b"\x05\x99\x00\x01"], "refused: Invalid reply code: 0X99"),
        ([b"\x05\xff"], "refused: No acceptable authentication methods were offered"),
        ([b"\x05\x01"], "refused: "),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "refused: Unexpected SOCKS version number: 72"),
        ([b"\x05\x00", b"\x05\x00\x00\x03\x02\xff\xff\x00\x00"], "sent an answer that cannot be read"),
        ([b"\x05\x00", b"\x05\x00\x00\x09"], "refused: Invalid address type: 0X9"),
        ([b"\x05\x00", b"\x05\x00"], "refused: Connection closed unexpectedly"),
        ([b"\x05"], "refused: Connection closed unexpectedly"),
        ([], "refused: Connection closed unexpectedly"),
    ],
)
async def test_a_socks_proxy_that_does_not_grant_is_quoted(pieces: list[bytes], problem: str) -> None:
    assert (await fail(answering(*pieces), scheme="socks5h")).startswith(problem)


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_proxy_that_resets_the_connection_is_named(scheme: str) -> None:
    async def answer(client: trio.SocketStream) -> None:
        await client.receive_some()
        reset(client)

    assert (await fail(answer, scheme=scheme)).startswith("broke the connection off")


@pytest.mark.parametrize(
    ("scheme", "start"), [("http", b""), ("http", b"HTTP/1.1 2"), ("socks5h", b""), ("socks5h", b"\x05")]
)
async def test_a_silent_proxy_is_given_up(scheme: str, start: bytes) -> None:
    async def fall_silent(client: trio.SocketStream) -> None:
        await client.send_all(start)
        await receive_all(client)

    assert await fail(fall_silent, scheme=scheme, timeout=0.1) == "did not answer within 0 seconds"


async def test_reaching_a_proxy_takes_10_seconds_at_most(autojump_clock) -> None:
    class Silent(Names):
        async def getaddrinfo(self, *_arguments: object, **_keywords: object) -> list:
            await trio.sleep_forever()
            raise AssertionError

    Silent()
    for scheme in SCHEMES:
        began = trio.current_time()
        said = await fail(TcpAddress("proxy.example", 1080), scheme=scheme)
        assert said == "did not answer within 10 seconds"
        assert trio.current_time() - began == pytest.approx(10)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 407 no\r\n\r\n"], ids=["cancelled", "failed"])
async def test_nothing_is_left_open(nursery: trio.Nursery, scheme: str, answer: bytes) -> None:
    was_asked, has_ended = trio.Event(), trio.Event()

    async def handle(client: trio.SocketStream) -> None:
        await client.receive_some()
        was_asked.set()
        try:
            await client.send_all(answer)
            await receive_all(client)
        finally:
            has_ended.set()

    async def connect_in_vain() -> None:
        with pytest.raises(ServerUnreachable):
            await connect(TcpAddress("192.0.2.1", 1), proxy=parse_proxy(f"{scheme}://{service.address}"), timeout=10)

    service = await start_service(nursery, handle)
    async with trio.open_nursery() as inner:
        inner.start_soon(connect_in_vain)
        await was_asked.wait()
        if not answer:
            inner.cancel_scope.cancel()
    await has_ended.wait()


# Whatever a proxy sends


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_any_bytes_from_a_proxy_are_an_error_of_one_line_or_a_connection(scheme: str) -> None:
    starts = [b"", GRANTED, GRANTED[:-2], b"HTTP/1.1 403 ", b"HTTP/1.1 "] if scheme == "http" else SOCKS_STARTS

    @given(start=st.sampled_from(starts), rest=st.binary(max_size=300))
    @settings(max_examples=150, deadline=None)
    def check(start: bytes, rest: bytes) -> None:
        trio.run(check_answer, scheme, start + rest)

    check()


SOCKS_STARTS: Final = [b"", b"\x05", b"\x05\x00", *(b"\x05\x00\x05\x00\x00" + bytes([kind]) for kind in (1, 3, 4))]


async def check_answer(scheme: str, answer: bytes) -> None:
    async def send(client: trio.SocketStream) -> None:
        await client.send_all(answer)
        await client.send_eof()
        await receive_all(client)

    async with trio.open_nursery() as nursery:
        proxy = parse_proxy(f"{scheme}://{CREDENTIALS}@{(await start_service(nursery, send)).address}")
        try:
            stream = await connect(SERVER, proxy=proxy, timeout=10)
        except ServerUnreachable as error:
            text = str(error)
            assert text.isascii()
            assert text.isprintable()
            assert f"the proxy at {proxy.address} " in text
            assert "hunter2" not in text
            assert len(text) < 300
        else:
            async with stream:
                await stream.send_eof()
                assert answer.endswith(await receive_all(stream))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_a_password_is_in_no_log(
    start_proxy: StartProxy, server: RunningServer, caplog: pytest.LogCaptureFixture, scheme: str
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = await start_proxy(scheme, server.control, credentials=CREDENTIALS)
    async with open_tunnel(
        server.control, name="app", plaintext=True, proxy=f"{scheme}://{CREDENTIALS}@{proxy.address}"
    ):
        pass
    assert "hunter2" not in caplog.text
