"""Which tunnel a visitor reaches: the whole host decides, and never a part of it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from .harness import RunningServer
from .raw_client import registered_client
from .services import answer_with_target, answering
from .visitors import Responses, ask, connect, fetch, parse, request

DOMAIN = "tunnel.example"


@asynccontextmanager
async def tunnels(server: RunningServer, *names: str) -> AsyncIterator[None]:
    """Open a tunnel for each name; visitors are answered with its name."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for name in names:
            client = await stack.enter_async_context(registered_client(server.control, name))
            nursery.start_soon(client.serve, answering(name.encode()))
        yield


async def reach(server: RunningServer, host: str | None) -> str:
    """The tunnel that *host* leads to, or the status of the page that is shown instead."""
    answer = await fetch(server.public, host=host)
    return answer.text if answer.status == 200 else str(answer.status)


# With a domain


@pytest.mark.parametrize(
    "host",
    [
        "app.tunnel.example",
        "APP.Tunnel.EXAMPLE",
        "app.tunnel.example:80",
        "app.tunnel.example:65535",
        "app.tunnel.example:",
        "aPP.tunnel.examplE:8080",
    ],
)
async def test_with_a_domain_name_dot_domain_goes_to_name(start_server, host: str) -> None:
    server = await start_server(domain=DOMAIN)
    async with tunnels(server, "app", "other"):
        assert await reach(server, host) == "app"


STRANGE_HOSTS = [
    "x.evil.com",
    "app.evil.com",
    "app.tunnel.example.evil.com",
    "evilapp.tunnel.example",
    "app.eviltunnel.example",
    "app-tunnel.example",
    "appxtunnel.example",
    "a.app.tunnel.example",
    "app.app.tunnel.example",
    "app.b.tunnel.example",
    "ap.tunnel.example",
    "apps.tunnel.example",
    "app.tunnel.exampl",
    "app.tunnel.examples",
    "app.tunnel",
    "app",
    "tunnel.example",
    ".tunnel.example",
    "example",
    "localhost",
    "app.localhost",
    "127.0.0.1",
    "[::1]",
    "app.tunnel.example%2eevil.com",
    "app%2etunnel.example",
    "%61pp.tunnel.example",
    "xn--app.tunnel.example",
]


@pytest.mark.parametrize("host", STRANGE_HOSTS)
@pytest.mark.parametrize("names", [("app",), ("app", "x")], ids="-".join)
async def test_with_a_domain_any_other_host_reaches_nobody(start_server, names: tuple[str, ...], host: str) -> None:
    server = await start_server(domain=DOMAIN)
    async with tunnels(server, *names):
        assert await reach(server, host) == "404"


@pytest.mark.parametrize("host", ["app.tunnel.example.", "app.tunnel.example.:80", "APP.TUNNEL.EXAMPLE."])
async def test_a_trailing_dot_never_leads_to_another_tunnel(start_server, host: str) -> None:
    server = await start_server(domain=DOMAIN)
    async with tunnels(server, "app", "other"):
        assert await reach(server, host) in ("app", "404")


@pytest.mark.parametrize("host", ["app.tunnel.example..", "..", ".", "app..tunnel.example"])
async def test_empty_labels_lead_nowhere(start_server, host: str) -> None:
    server = await start_server(domain=DOMAIN)
    async with tunnels(server, "app"):
        assert await reach(server, host) in ("400", "404")


async def test_a_domain_is_written_in_any_case_and_with_a_trailing_dot(start_server) -> None:
    server = await start_server(domain="Tunnel.EXAMPLE.")
    async with tunnels(server, "app"):
        assert await reach(server, "app.tunnel.example") == "app"


async def test_with_a_domain_http_1_0_without_host_reaches_nobody(start_server) -> None:
    server = await start_server(domain=DOMAIN)
    async with tunnels(server, "app"):
        assert parse(await ask(server.public, b"GET / HTTP/1.0\r\n\r\n")).status == 404


# Without a domain


@pytest.mark.parametrize("host", ["app.localhost", "APP.LOCALHOST", "app.localhost:8080", "app.localhost:"])
async def test_without_a_domain_name_dot_localhost_goes_to_name(server: RunningServer, host: str) -> None:
    async with tunnels(server, "other", "app", "third"):
        assert await reach(server, host) == "app"


OTHER_HOSTS = [
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "[2001:DB8::7]:80",
    "your-server",
    "localhost",
    "app.localhost.example",
]


@pytest.mark.parametrize("host", [*OTHER_HOSTS, "your-server.example.:8080", "app", "app.tunnel.example"])
async def test_any_other_host_goes_to_the_only_tunnel(server: RunningServer, host: str) -> None:
    async with tunnels(server, "app"):
        assert await reach(server, host) == "app"


@pytest.mark.parametrize("host", OTHER_HOSTS)
async def test_any_other_host_goes_nowhere_when_there_are_two_tunnels(server: RunningServer, host: str) -> None:
    async with tunnels(server, "app", "other"):
        assert await reach(server, host) == "404"


async def test_any_other_host_goes_to_the_one_that_is_left(server: RunningServer) -> None:
    async with tunnels(server, "app"):
        async with tunnels(server, "other"):
            assert await reach(server, "your-server") == "404"
        async with registered_client(server.control, "other"):
            pass  # The server has seen it go before it answers the next one.
        while await reach(server, "other.localhost") != "404":
            pass
        assert await reach(server, "your-server") == "app"


async def test_another_name_dot_localhost_does_not_go_to_the_only_tunnel(server: RunningServer) -> None:
    async with tunnels(server, "app"):
        assert await reach(server, "other.localhost") == "404"
        assert await reach(server, "evilapp.localhost") == "404"


async def test_http_1_0_without_host_goes_to_the_only_tunnel(server: RunningServer) -> None:
    async with tunnels(server, "app"):
        assert parse(await ask(server.public, b"GET / HTTP/1.0\r\n\r\n")).text == "app"


async def test_an_absolute_target_is_as_good_as_a_host(server: RunningServer) -> None:
    async with tunnels(server, "app", "other"):
        sent = request("http://app.localhost/", "Connection: close", host="app.localhost")
        assert parse(await ask(server.public, sent)).text == "app"


# What is refused


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: app.localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: other.localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost, other.localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@app.localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost:port\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost/x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET http://other.localhost/ HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        b"\0\1\2\3\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=repr,
)
async def test_a_request_that_does_not_say_whom_it_is_for_gets_400(server: RunningServer, head: bytes) -> None:
    async with tunnels(server, "app", "other"):
        assert parse(await ask(server.public, head)).status == 400


# On one connection


@pytest.mark.parametrize("is_pipelined", [False, True], ids=["one by one", "pipelined"])
async def test_each_request_of_a_connection_goes_to_the_tunnel_that_it_names(
    server: RunningServer, nursery: trio.Nursery, is_pipelined: bool
) -> None:
    ways = [
        ("/1", "app.localhost", "/1"),
        ("/2", "other.localhost", "other"),
        ("/3", "app.localhost", "/3"),
        ("/4", "other.localhost", "other"),
        ("/5", "APP.localhost:8080", "/5"),
    ]
    async with registered_client(server.control, "app") as client, tunnels(server, "other"):
        nursery.start_soon(client.serve, answer_with_target)
        async with await connect(server.public) as visitor:
            responses = Responses(visitor)
            if is_pipelined:
                await visitor.send_all(b"".join([request(target, host=host) for target, host, _ in ways]))
            for target, host, text in ways:
                if not is_pipelined:
                    await visitor.send_all(request(target, host=host))
                assert (await responses.next()).text == text


async def test_a_request_that_names_no_tunnel_ends_a_connection_that_has_been_of_use(
    server: RunningServer, nursery: trio.Nursery
) -> None:
    async with registered_client(server.control, "app") as client, await connect(server.public) as visitor:
        nursery.start_soon(client.serve, answer_with_target)
        responses = Responses(visitor)
        await visitor.send_all(request("/1") + request("/2", host="nobody.localhost") + request("/3"))
        assert (await responses.next()).text == "/1"
        page = await responses.next()
        assert (page.status, page.fields["Connection"]) == (404, "close")
        responses.check_nothing_is_left()
        assert await visitor.receive_some() == b""
