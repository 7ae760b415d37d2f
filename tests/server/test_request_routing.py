"""Each request goes to the tunnel that it names: by its Host, by a host name of the tenant's own, by its path."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

from otun import ServerSettings

from .conversation import Tenant, answer_by_name, conversation, tenant
from .harness import RunningServer
from .raw_client import raw_client
from .services import response
from .visitors import ask, connect, fetch, parse, receive_until_reset, request

DOMAIN = "tunnel.example"


@pytest.fixture
async def domain_server(start_server) -> RunningServer:
    return await start_server(domain=DOMAIN, allow_hostnames=("*.example.org", "bücher.example", "exact.example"))


@asynccontextmanager
async def tenants(server: RunningServer, *names: str) -> AsyncIterator[list[Tenant]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(tenant(server.control, name)) for name in names]


async def refusal(server: RunningServer, name: str | None = None, **fields: object) -> str:
    """The code of the error that a registration is answered with; empty when it is not refused."""
    async with raw_client(server.control) as client:
        answer = await client.register(name, **fields)
        return str(answer["code"]) if answer["type"] == "error" else ""


async def reach(server: RunningServer, host: str, target: str = "/") -> str:
    """The name of the tunnel that a request reaches, or the status of the page that is shown instead."""
    answer = await fetch(server.public, target, host=host)
    return answer.text.split()[0] if answer.status == 200 else str(answer.status)


# One connection, several tunnels


async def test_each_request_of_a_connection_goes_to_the_tunnel_that_its_host_names(server: RunningServer) -> None:
    async with tenants(server, "app", "other"), conversation(server.public) as visitor:
        hosts = ["app", "other", "app", "app", "other", "other", "app"]
        for number, name in enumerate(hosts):
            answer = await visitor.ask(f"/{number}", host=f"{name}.localhost")
            assert answer.text == f"{name} 1 /{number}"


async def test_pipelined_requests_to_different_tunnels_are_answered_in_order(server: RunningServer) -> None:
    hosts = ["app", "other", "third", "other", "app", "app", "third"] * 5
    async with tenants(server, "app", "other", "third"), conversation(server.public) as visitor:
        requests = [request(f"/{number}", host=f"{name}.localhost") for number, name in enumerate(hosts)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.stream.send_all, b"".join(requests))
            for number, name in enumerate(hosts):
                assert (await visitor.receive()).text == f"{name} 1 /{number}"


async def test_a_quick_tunnel_does_not_overtake_a_slow_one(server: RunningServer) -> None:
    async def answer_slowly(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await may_answer.wait()
        await answer_by_name(one, stream, number, head)

    may_answer = trio.Event()
    async with (
        tenant(server.control, "slow", answer_slowly) as slow,
        tenant(server.control, "quick") as quick,
        conversation(server.public) as visitor,
    ):
        await visitor.stream.send_all(request("/1", host="slow.localhost") + request("/2", host="quick.localhost"))
        await slow.wait_for_requests(1)
        assert not quick.heads, "the second request waits for its turn"
        may_answer.set()
        assert (await visitor.receive()).text == "slow 1 /1"
        assert (await visitor.receive()).text == "quick 1 /2"


async def test_bodies_stay_with_their_requests(server: RunningServer) -> None:
    async with tenants(server, "app", "other") as (app, other), conversation(server.public) as visitor:
        await visitor.stream.send_all(
            request("/1", host="app.localhost", method="POST", body=b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
            + request("/2", host="other.localhost", method="PUT", body=b"second")
            + request("/3", host="app.localhost")
        )
        assert [(await visitor.receive()).text for _ in range(3)] == ["app 1 /1", "other 1 /2", "app 1 /3"]
    assert app.bodies == [b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n", b""]
    assert other.bodies == [b"second"]


async def test_a_connection_has_one_stream_for_each_tunnel_however_many_requests_it_makes(
    server: RunningServer,
) -> None:
    async with tenants(server, "app", "other") as (app, other):
        async with conversation(server.public) as visitor:
            for number in range(10):
                await visitor.ask(f"/{number}", host="app.localhost")
                await visitor.ask(f"/{number}", host="other.localhost", method="POST", body=b"x")
        assert (len(app.streams), len(other.streams)) == (1, 1)
        assert (len(app.heads), len(other.heads)) == (10, 10)


async def test_two_visitors_never_share_a_stream(server: RunningServer) -> None:
    async with tenants(server, "app") as (app,), conversation(server.public) as one, conversation(server.public) as two:
        texts = [(await visitor.ask("/")).text for visitor in (one, two, one, two)]
        assert texts == ["app 1 /", "app 2 /", "app 1 /", "app 2 /"]
        assert len(app.streams) == 2


async def test_the_streams_of_a_connection_end_with_it(server: RunningServer) -> None:
    async with tenants(server, "app", "other") as (app, other):
        async with conversation(server.public) as visitor:
            await visitor.ask("/", host="app.localhost")
            await visitor.ask("/", host="other.localhost")
        await app.client.see_no_streams_but_control()
        await other.client.see_no_streams_but_control()


async def test_an_absolute_target_leads_to_its_host_on_every_request(server: RunningServer) -> None:
    async with tenants(server, "app", "other"), conversation(server.public) as visitor:
        for name in ("app", "other", "app"):
            answer = await visitor.ask(f"http://{name}.localhost/x?y", host=f"{name}.localhost")
            assert answer.text == f"{name} 1 /x?y"


async def test_a_target_that_disagrees_with_host_is_refused_on_every_request(server: RunningServer) -> None:
    async with tenants(server, "app", "other") as (app, other), conversation(server.public) as visitor:
        await visitor.ask("/", host="app.localhost")
        answer = await visitor.ask("http://other.localhost/", host="app.localhost")
        assert (answer.status, answer.fields["Otun-Error"]) == (400, "bad_request")
        assert await visitor.receive_rest() == b""
        assert (len(app.heads), len(other.heads)) == (1, 0)


async def test_the_service_sees_the_target_in_origin_form(server: RunningServer) -> None:
    async with tenants(server, "app") as (app,), conversation(server.public) as visitor:
        await visitor.ask("http://app.localhost?q", host="app.localhost")
        assert app.heads[0].startswith(b"GET /?q HTTP/1.1\r\nHost: app.localhost\r\n")


async def test_an_unknown_host_in_the_middle_is_404_and_ends_the_connection(server: RunningServer) -> None:
    async with tenants(server, "app", "other") as (app, _), conversation(server.public) as visitor:
        await visitor.stream.send_all(request("/1") + request("/2", host="none.localhost") + request("/3"))
        assert (await visitor.receive()).text == "app 1 /1"
        assert (await visitor.receive()).status == 404
        assert await visitor.receive_rest() == b""
        assert len(app.heads) == 1


async def test_a_tunnel_that_goes_is_not_found_by_the_next_request_of_the_same_connection(
    server: RunningServer,
) -> None:
    async with tenants(server, "other"), conversation(server.public) as visitor:
        async with tenants(server, "app"):
            assert (await visitor.ask("/")).status == 200
        while await reach(server, "app.localhost") != "404":
            pass
        assert (await visitor.ask("/")).status == 404


async def test_a_tunnel_that_comes_back_is_found_by_the_next_request_of_the_same_connection(
    server: RunningServer,
) -> None:
    async with tenants(server, "other"), conversation(server.public) as visitor:
        async with tenants(server, "app"):
            assert (await visitor.ask("/1")).status == 200
        while await reach(server, "app.localhost") != "404":
            pass
        async with tenants(server, "app") as (app,):
            assert (await visitor.ask("/2")).text == "app 1 /2"
            assert len(app.streams) == 1


# Local services that close connections


async def test_a_service_that_closes_after_each_answer_gets_a_new_stream_for_the_next(server: RunningServer) -> None:
    async def close(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.send_all(response(f"{number}".encode(), "Connection: close"))
        await stream.aclose()

    async with tenant(server.control, "app", close) as app, conversation(server.public) as visitor:
        for number in range(1, 5):
            answer = await visitor.ask("/")
            assert answer.text == str(number)
            assert "Connection" not in answer.fields, "the visitor's connection stays"
        assert len(app.streams) == 4


async def test_an_idle_connection_that_the_service_has_closed_does_not_hurt_the_next_request(
    server: RunningServer,
) -> None:
    async with tenants(server, "app") as (app,), conversation(server.public) as visitor:
        for number, method in enumerate(("GET", "POST", "GET"), 1):
            body = b"x" if method == "POST" else b""
            assert (await visitor.ask("/", method=method, body=body)).text == f"app {number} /"
            await app.streams[-1].aclose()
            await app.client.see_no_streams_but_control()


def closing_at_the_second_request(*, with_reset: bool) -> object:
    """The first stream ends when its second request comes, without an answer to it, as idle connections do."""

    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if number > 1 or len(one.heads) == 1:
            await answer_by_name(one, stream, number, head)
        elif with_reset:
            stream.reset(1)  # type: ignore[attr-defined]  # otun.control.resets.ResetCode.SERVICE_RESET
        else:
            await stream.aclose()

    return answer


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_request_that_meets_the_end_of_an_idle_connection_is_repeated_on_a_new_stream(
    server: RunningServer, method: str, with_reset: bool
) -> None:
    async with (
        tenant(server.control, "app", closing_at_the_second_request(with_reset=with_reset)) as app,
        conversation(server.public) as visitor,
    ):
        await visitor.ask("/1")
        answer = await visitor.ask("/2", method=method)
        assert answer.status == 200
        assert len(app.streams) == 2
        assert [head.split(b" ")[1] for head in app.heads] == [b"/1", b"/2", b"/2"]
        assert (await visitor.ask("/3")).text == "app 2 /3"


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("body", [b"", b"x"], ids=["bodyless", "with a body"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_may_change_something_is_never_repeated(
    server: RunningServer, method: str, body: bytes, with_reset: bool
) -> None:
    async with (
        tenant(server.control, "app", closing_at_the_second_request(with_reset=with_reset)) as app,
        conversation(server.public) as visitor,
    ):
        await visitor.ask("/1")
        answer = await visitor.ask("/2", method=method, body=body)
        assert answer.status == 502
        assert answer.fields["Otun-Error"] == ("local_service_reset" if with_reset else "empty_reply")
        assert (len(app.streams), len(app.heads)) == (1, 2)


async def test_a_get_with_a_body_is_not_repeated(server: RunningServer) -> None:
    async with (
        tenant(server.control, "app", closing_at_the_second_request(with_reset=False)) as app,
        conversation(server.public) as visitor,
    ):
        await visitor.ask("/1")
        assert (await visitor.ask("/2", body=b"x")).status == 502
        assert len(app.heads) == 2


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
async def test_a_request_is_repeated_once_and_no_more(server: RunningServer, with_reset: bool) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if len(one.heads) == 1:
            await answer_by_name(one, stream, number, head)
        elif with_reset:
            stream.reset(1)  # type: ignore[attr-defined]
        else:
            await stream.aclose()

    async with tenant(server.control, "app", answer) as app, conversation(server.public) as visitor:
        await visitor.ask("/1")
        assert (await visitor.ask("/2")).status == 502
        assert [head.split(b" ")[1] for head in app.heads] == [b"/1", b"/2", b"/2"]


async def test_the_first_request_of_a_stream_is_never_repeated(server: RunningServer) -> None:
    async def close(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await stream.aclose()

    async with tenant(server.control, "app", close) as app:
        answer = await fetch(server.public)
        assert (answer.status, answer.fields["Otun-Error"]) == (502, "empty_reply")
        assert len(app.heads) == 1


async def test_an_answer_that_has_begun_is_cut_short_and_not_repeated(server: RunningServer) -> None:
    async def break_off(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if len(one.heads) == 1:
            await answer_by_name(one, stream, number, head)
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await stream.aclose()

    async with tenant(server.control, "app", break_off) as app, conversation(server.public) as visitor:
        await visitor.ask("/1")
        await visitor.send("/2")
        assert (await receive_until_reset(visitor.stream)).endswith(b"half")
        assert len(app.heads) == 2


# Answers that go on after their end


@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("GET", response(b"first")),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ],
    ids=["length", "204", "304", "chunked", "HEAD"],
)
@pytest.mark.parametrize("is_pipelined", [False, True])
async def test_bytes_behind_an_answer_are_nobodys_answer(
    server: RunningServer, method: str, first: bytes, is_pipelined: bool
) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        if len(one.heads) == 1:
            await stream.send_all(first + response(b"evil"))
        else:
            await answer_by_name(one, stream, number, head)

    async with tenant(server.control, "app", answer) as app, connect_to(server) as visitor:
        sent = request("/1", method=method), request("/2", "Connection: close")
        if is_pipelined:
            await visitor.send_all(b"".join(sent))
        else:
            await visitor.send_all(sent[0])
            await app.wait_for_requests(1)
            await app.client.see_no_streams_but_control()
            await visitor.send_all(sent[1])
        received = b"".join([bytes(piece) async for piece in visitor])
        assert b"evil" not in received
        assert received.endswith(b"app 2 /2")
        assert received.count(b"HTTP/1.1 ") == 2


@asynccontextmanager
async def connect_to(server: RunningServer) -> AsyncIterator[trio.SocketStream]:
    async with await connect(server.public) as visitor:
        yield visitor


async def test_unsolicited_bytes_on_an_idle_stream_are_nobodys_answer(server: RunningServer) -> None:
    async with tenants(server, "app") as (app,), conversation(server.public) as visitor:
        await visitor.ask("/1")
        await app.streams[0].send_all(response(b"evil"))
        await app.client.see_no_streams_but_control()
        assert (await visitor.ask("/2")).text == "app 2 /2"
        assert (await visitor.ask("/3", method="POST", body=b"x")).text == "app 2 /3"


async def test_unsolicited_bytes_of_one_tunnel_never_reach_a_request_to_another(server: RunningServer) -> None:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        await evil.streams[0].send_all(response(b"evil"))
        await evil.client.session.ping()
        await answer_by_name(one, stream, number, head)

    async with (
        tenant(server.control, "evil") as evil,
        tenant(server.control, "app", answer),
        conversation(server.public) as visitor,
    ):
        await visitor.ask("/1", host="evil.localhost")
        assert (await visitor.ask("/2", host="app.localhost")).text == "app 1 /2"
        assert (await visitor.ask("/3", host="evil.localhost")).text == "evil 2 /3"


# Host names of the tenant's own


async def test_a_host_name_that_nobody_has_allowed_is_refused(domain_server: RunningServer) -> None:
    for hostname in ("shop.example.com", "example.org", "*.example.com", "a.exact.example", "*.org"):
        assert await refusal(domain_server, "app", hostnames=[hostname]) == "hostname_not_allowed"


async def test_without_allowances_no_host_name_is_allowed(server: RunningServer) -> None:
    assert await refusal(server, "app", hostnames=["shop.example.org"]) == "hostname_not_allowed"


@pytest.mark.parametrize("hostname", ["a b", "", "*", "*.", "-a.example.org", "a..example.org", "http://example.org"])
async def test_what_is_no_host_name_is_refused(domain_server: RunningServer, hostname: str) -> None:
    assert await refusal(domain_server, "app", hostnames=[hostname]) == "hostname_invalid"


async def test_a_host_name_that_is_allowed_leads_to_the_tunnel_beside_its_name(domain_server: RunningServer) -> None:
    async with tenant(domain_server.control, "app", hostnames=["Shop.Example.ORG", "exact.example"]) as app:
        assert app.url == f"http://shop.example.org:{domain_server.public.port}"
        for host in ("shop.example.org", "SHOP.example.org:80", "exact.example", f"app.{DOMAIN}"):
            assert await reach(domain_server, host) == "app"
        assert await reach(domain_server, "other.example.org") == "404"
    while await reach(domain_server, "shop.example.org") != "404":
        pass


async def test_a_host_name_belongs_to_one_client(domain_server: RunningServer) -> None:
    async with tenant(domain_server.control, "app", hostnames=["shop.example.org"]):
        assert await refusal(domain_server, "other", hostnames=["SHOP.example.org."]) == "name_taken"
        assert await refusal(domain_server, "other", hostnames=["shop2.example.org"]) == ""


async def test_names_below_a_wildcard_belong_to_its_token(start_server) -> None:
    server = await start_server(tokens=frozenset(("one", "two")), allow_hostnames=("*.example.org",))
    async with tenant(server.control, "app", token="one", hostnames=["*.shop.example.org"]):
        for hostname in ("a.shop.example.org", "*.a.shop.example.org", "*.shop.example.org"):
            assert await refusal(server, "other", token="two", hostnames=[hostname]) == "name_taken", hostname
            is_free = hostname != "*.shop.example.org"
            assert (await refusal(server, "mine", token="one", hostnames=[hostname]) == "") == is_free
        for hostname in ("shop.example.org", "*.example.org"):
            assert await refusal(server, "other", token="two", hostnames=[hostname]) == ""


async def test_a_host_spelt_like_a_wildcard_leads_nowhere(domain_server: RunningServer) -> None:
    async with tenant(domain_server.control, "app", hostnames=["*.shop.example.org"]):
        assert await reach(domain_server, "x.shop.example.org") == "app"
        assert await reach(domain_server, "*.shop.example.org") == "404"


async def test_names_below_a_tunnels_own_are_its_owners(domain_server: RunningServer) -> None:
    hostnames = [f"*.app.{DOMAIN}", f"api.app.{DOMAIN}"]
    async with tenant(domain_server.control, "app", hostnames=hostnames):
        for host in (f"x.app.{DOMAIN}", f"a.b.app.{DOMAIN}", f"api.app.{DOMAIN}", f"app.{DOMAIN}"):
            assert await reach(domain_server, host) == "app"
        assert await reach(domain_server, f"x.other.{DOMAIN}") == "404"


@pytest.mark.parametrize(
    "hostname",
    [
        DOMAIN,
        f"*.{DOMAIN}",
        f"app.{DOMAIN}",
        f"*.app.{DOMAIN}",
        f"x.app.{DOMAIN}",
        f"nobody.{DOMAIN}",
        f"APP.{DOMAIN.upper()}.",
        f"x.evil-.{DOMAIN}".replace("evil-", "eviler"),
    ],
)
async def test_names_under_the_domain_that_are_not_the_owners_are_refused(start_server, hostname: str) -> None:
    server = await start_server(domain=DOMAIN, allow_hostnames=("*.example", DOMAIN, f"*.{DOMAIN}"))
    assert await refusal(server, "evil", hostnames=[hostname]) == "hostname_not_allowed"


async def test_a_wildcard_above_the_domain_does_not_reach_into_it(start_server) -> None:
    server = await start_server(domain="tunnel.example.org", allow_hostnames=("*.example.org",))
    async with tenant(server.control, "app", hostnames=["*.example.org"]):
        assert await reach(server, "shop.example.org") == "app"
        assert await reach(server, "bank.tunnel.example.org") == "404"
        assert await reach(server, "x.bank.tunnel.example.org") == "404"


async def test_the_exact_name_comes_first_and_then_the_longest_wildcard(domain_server: RunningServer) -> None:
    wanted = {
        "wide": ["*.example.org"],
        "narrow": ["*.shop.example.org"],
        "exact": ["a.shop.example.org"],
    }
    async with AsyncExitStack() as stack:
        for name, hostnames in wanted.items():
            await stack.enter_async_context(tenant(domain_server.control, name, hostnames=hostnames))
        for host, name in {
            "a.shop.example.org": "exact",
            "b.shop.example.org": "narrow",
            "x.a.shop.example.org": "narrow",
            "shop.example.org": "wide",
            "x.y.example.org": "wide",
            "example.org": "404",
            "xexample.org": "404",
            "xshop.example.org": "wide",
        }.items():
            assert await reach(domain_server, host) == name, host


@pytest.mark.parametrize("registered", ["bücher.example", "BÜCHER.example", "xn--bcher-kva.example"])
async def test_a_name_with_other_letters_is_the_one_that_browsers_ask_for(
    domain_server: RunningServer, registered: str
) -> None:
    async with tenant(domain_server.control, "app", hostnames=[registered]) as app:
        assert app.url.startswith("http://xn--bcher-kva.example")
        assert await reach(domain_server, "xn--bcher-kva.example") == "app"
        assert await reach(domain_server, "XN--Bcher-KVA.example:80") == "app"


def test_the_operator_may_write_a_name_in_either_way() -> None:
    assert ServerSettings(allow_hostnames=("bücher.example",)) == ServerSettings(
        allow_hostnames=("xn--bcher-kva.example",)
    )


async def test_more_host_names_than_a_tunnel_may_have_are_refused(domain_server: RunningServer) -> None:
    hostnames = [f"h{number}.example.org" for number in range(17)]
    assert await refusal(domain_server, "app", hostnames=hostnames) == "hostname_not_allowed"
    assert await refusal(domain_server, "app", hostnames=hostnames[:16]) == ""


# Paths


async def register_more(one: Tenant, **fields: object) -> dict[str, object]:
    """Register a further tunnel on the session of *one*."""
    return await one.client.register(**fields)


PATHS = {
    "/": "root",
    "/api": "api",
    "/api/": "api",
    "/api/x": "api",
    "/api?x": "api",
    "/api/?x=/other": "api",
    "/apix": "root",
    "/apix/api": "root",
    "/ap": "root",
    "/API": "root",
    "/x/api": "root",
    "/?/api": "root",
    "/api/v2": "v2",
    "/api/v2/x?y": "v2",
    "/api/v2x": "api",
    "/api/v20": "api",
    "//api": "root",
}


@pytest.mark.parametrize("has_root", [True, False])
async def test_the_longest_path_that_ends_with_a_segment_counts(start_server, has_root: bool) -> None:
    server = await start_server(tokens=frozenset(("t",)))
    paths = {"api": "/api", "v2": "/api/v2/"} | ({"root": ""} if has_root else {})
    async with AsyncExitStack() as stack:
        by_answer = {}
        for number, (name, path) in enumerate(paths.items()):
            one = await stack.enter_async_context(tenant(server.control, "app", path=path, token="t"))
            one.name = name
            by_answer[name] = one
            assert one.url.endswith(path.rstrip("/")), number
        for target, name in PATHS.items():
            expected = name if name in by_answer else "404"
            assert await reach(server, "app.localhost", target) == expected, target


async def test_requests_of_one_connection_are_told_apart_by_their_paths(start_server) -> None:
    server = await start_server(tokens=frozenset(("t",)))
    async with (
        tenant(server.control, "app", token="t") as root,
        tenant(server.control, "app", path="/api", token="t") as api,
        conversation(server.public) as visitor,
    ):
        root.name, api.name = "root", "api"
        for target, name in (("/1", "root"), ("/api/2", "api"), ("/3", "root"), ("/api", "api")):
            assert (await visitor.ask(target)).text == f"{name} 1 {target}"


async def test_without_a_token_a_host_is_shared_within_one_session_only(server: RunningServer) -> None:
    async with tenant(server.control, "app", path="/api") as app:
        for path in ("", "/other", "/api/v2", "/api"):
            assert await refusal(server, "app", path=path) == "name_taken"
        assert (await app.client.register("app", id="2", path="/other"))["type"] == "registered"
        assert (await app.client.register("app", id="3"))["type"] == "registered"


async def test_another_token_does_not_share_a_host(start_server) -> None:
    server = await start_server(tokens=frozenset(("one", "two")))
    async with tenant(server.control, "app", path="/api", token="one"):
        assert await refusal(server, "app", path="/other", token="two") == "name_taken"
        assert await refusal(server, "app", path="/other", token="one") == ""


async def test_another_token_does_not_share_a_host_name_of_its_own(start_server) -> None:
    server = await start_server(tokens=frozenset(("one", "two")), allow_hostnames=("*.example.org",))
    hostnames = ["shop.example.org"]
    async with tenant(server.control, "app", path="/api", hostnames=hostnames, token="one"):
        assert await refusal(server, "b", path="/other", hostnames=hostnames, token="two") == "name_taken"
        assert await refusal(server, "c", path="/other", hostnames=hostnames, token="one") == ""


async def test_the_same_path_of_the_same_host_is_taken_even_by_the_same_token(start_server) -> None:
    server = await start_server(tokens=frozenset(("one",)))
    async with tenant(server.control, "app", path="/api", token="one"):
        for path in ("/api", "/api/"):
            assert await refusal(server, "app", path=path, token="one") == "name_taken"


@pytest.mark.parametrize("path", ["api", "/a b", "/a?b", "/a#b", "//", "/a//b", "/a\r\nb", "/ü", "/" + "a" * 1100])
async def test_what_is_no_path_is_refused(server: RunningServer, path: str) -> None:
    assert await refusal(server, "app", path=path) == "path_invalid"


async def test_a_tunnel_that_goes_leaves_the_others_of_its_host(start_server) -> None:
    server = await start_server(tokens=frozenset(("t",)))
    async with tenant(server.control, "app", token="t") as root:
        root.name = "root"
        async with tenant(server.control, "app", path="/api", token="t"):
            assert await reach(server, "app.localhost", "/api") == "app"
        while await reach(server, "app.localhost", "/api") != "root":
            pass


async def test_a_path_that_nobody_has_is_404(server: RunningServer) -> None:
    async with tenant(server.control, "app", path="/api"):
        for host in ("app.localhost", "your-server"):
            answer = await fetch(server.public, "/other", host=host)
            assert (answer.status, answer.fields["Otun-Error"]) == (404, "tunnel_not_found")


# Pages


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/problem+json", "application/json"),
        ("text/html,application/json;q=0.9", "text/html; charset=utf-8"),
        ("text/html,*/*", "text/html; charset=utf-8"),
        ("*/*", "text/html; charset=utf-8"),
    ],
)
async def test_an_unknown_host_is_told_as_the_visitor_likes(server: RunningServer, accept: str, kind: str) -> None:
    async with tenants(server, "app", "other"):
        answer = await fetch(server.public, "/", f"Accept: {accept}", host="none.localhost")
    assert answer.status == 404
    assert answer.fields["Content-Type"] == kind
    assert answer.fields["Cache-Control"] == "no-store"
    assert answer.fields["Otun-Error"] == "tunnel_not_found"
    assert "none.localhost" in answer.text


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: app.localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: app.localhost:99999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: b\xc3\xbccher.example\r\n\r\n",
    ],
    ids=["none", "two", "space", "port", "raw letters"],
)
async def test_a_request_without_one_sound_host_is_400(server: RunningServer, head: bytes) -> None:
    async with tenants(server, "app") as (app,):
        answer = parse(await ask(server.public, head))
        assert answer.status == 400
        assert answer.fields["Cache-Control"] == "no-store"
        assert answer.fields["Otun-Error"] == "bad_request"
        assert not app.heads
