"""Tunnels that share a host, of which some ask who comes: no path leads around that."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from otun import TunnelSettings

from ..client.support import forward_until_end
from ..http.cases import CANARY_BYTES, REQUEST_CASES
from ..http.messages import Request
from ..http.origins import SYNC, Origin
from ..http.test_paths import TRICKS
from .checking import authorization, cheap_login
from .conversation import Tenant, conversation, tenant
from .harness import RunningServer
from .visitors import Answer, connect, fetch

ANN, BOB = cheap_login("ann", "s3cret"), cheap_login("bob", "0ther")
AS_ANN, AS_BOB = authorization("ann", "s3cret"), authorization("bob", "0ther")


@asynccontextmanager
async def site(server: RunningServer, **rules: dict[str, object]) -> AsyncIterator[dict[str, Tenant]]:
    """Tunnels on one host by their paths' first segments, which one client has; `root` is for the rest."""
    async with AsyncExitStack() as stack:
        tenants: dict[str, Tenant] = {}
        for name, fields in rules.items():
            path = "" if name == "root" else f"/{name}"
            one = tenant(server.control, "app", path=path, token="t", **fields)
            tenants[name] = await stack.enter_async_context(one)
        yield tenants


@pytest.fixture
async def server(start_server) -> RunningServer:
    """A server that knows whose tunnels are whose: those who share a host have shown the same token."""
    return await start_server(tokens=frozenset(["t"]), domain="test")


async def ask(server: RunningServer, path: str, *fields: str) -> Answer:
    return await fetch(server.public, path, *fields, host="app.test")


async def visit_in_vain(server: RunningServer, sent: bytes) -> None:
    """Send bytes and the end, and read until the server has ended the connection, however it does."""
    with trio.fail_after(10), suppress(trio.BrokenResourceError):
        async with await connect(server.public) as visitor:
            await visitor.send_all(sent)
            await visitor.send_eof()
            async for _ in visitor:
                pass


async def test_each_path_has_its_own_rules(server: RunningServer) -> None:
    async with site(server, root={}, admin={"basic_auth": [ANN]}, other={"basic_auth": [BOB]}) as tenants:
        assert (await ask(server, "/x")).status == 200
        for path in ("/admin", "/admin/", "/admin/x?y", "/admin?y"):
            assert (await ask(server, path)).status == 401
            assert (await ask(server, path, AS_BOB)).status == 401
            assert (await ask(server, path, AS_ANN)).status == 200
        assert (await ask(server, "/other")).status == 401
        assert (await ask(server, "/other", AS_BOB)).status == 200
        assert (await ask(server, "/administrator")).status == 200
        assert len(tenants["admin"].heads) == 4


@pytest.mark.parametrize("has_own_rules", [False, True])
async def test_no_trick_leads_through_the_open_tunnel(server: RunningServer, has_own_rules: bool) -> None:
    fields = {"basic_auth": [BOB]} if has_own_rules else {}
    async with site(server, root=fields, admin={"basic_auth": [ANN]}) as tenants:
        for path in TRICKS:
            answer = await ask(server, path, AS_BOB)
            assert answer.status in (400, 401), path
        assert not tenants["root"].heads
        assert not tenants["admin"].heads
        for path in ("/x", "/a%20b", "/A/B", "/x/./y", "/x//y", "/x;y"):
            assert (await ask(server, path, AS_BOB)).status == 200


async def test_an_absolute_target_is_routed_by_the_same_path(server: RunningServer) -> None:
    async with site(server, root={}, admin={"basic_auth": [ANN]}) as tenants:
        for target in ("http://app.test/admin", "HTTP://APP.test:80/admin/x", "http://app.test//admin"):
            assert (await fetch(server.public, target, host="app.test:80")).status in (400, 401)
        assert (await fetch(server.public, "http://app.test/x", host="app.test")).status == 200
        assert (await fetch(server.public, "http://app.test/admin", AS_ANN, host="app.test")).status == 200
        assert [head.split(b" ")[1] for head in tenants["admin"].heads] == [b"/admin"]


async def test_no_host_leads_around_either(server: RunningServer) -> None:
    async with site(server, root={}, admin={"basic_auth": [ANN]}):
        for host in ("APP.TEST", "app.test.", "app.test:8080", "App.Test.:80"):
            assert (await fetch(server.public, "/admin", host=host)).status == 401
            assert (await fetch(server.public, "//admin", host=host)).status == 400


async def test_a_path_out_of_an_open_tunnel_leads_nowhere(server: RunningServer) -> None:
    async with site(server, root={"basic_auth": [ANN]}, public={}) as tenants:
        assert (await ask(server, "/public/x")).status == 200
        for path in ("/public/../secret", "/public/%2e%2e/secret", "/public/..;/secret", "/public%2f..%2fsecret"):
            assert (await ask(server, path)).status in (400, 401), path
        assert len(tenants["public"].heads) == 1
        assert not tenants["root"].heads


async def test_nor_does_one_on_a_host_that_the_guarded_tunnel_does_not_have(server: RunningServer) -> None:
    hosts = ["shop.app.test"]
    async with (
        tenant(server.control, "app", token="t", hostnames=hosts, basic_auth=[ANN]) as guarded,
        tenant(server.control, "app", token="t", hostnames=[*hosts, "b.app.test"], path="/public") as public,
    ):
        for path in ("/public/../secret", "/public/%2e%2e/secret", "/public/..;/secret"):
            for host in ("shop.app.test", "b.app.test"):
                assert (await fetch(server.public, path, host=host)).status == 400, (path, host)
        assert (await fetch(server.public, "/public/x", host="b.app.test")).status == 200
        assert (await fetch(server.public, "/secret", host="b.app.test")).status == 404
        assert len(public.heads) == 1
        assert not guarded.heads


async def test_a_connection_that_is_logged_in_at_one_is_not_at_the_other(server: RunningServer) -> None:
    async with (
        site(server, root={"basic_auth": [BOB]}, admin={"basic_auth": [ANN]}),
        conversation(server.public) as visitor,
    ):
        for path in ("/x", "/x", "/y"):
            assert (await visitor.ask(path, AS_BOB, host="app.test")).status == 200
        assert (await visitor.ask("/admin", AS_BOB, host="app.test")).status == 401
    async with (
        site(server, root={"basic_auth": [BOB]}, admin={"basic_auth": [ANN]}) as tenants,
        conversation(server.public) as visitor,
    ):
        for _ in range(3):
            assert (await visitor.ask("/x", AS_BOB, host="app.test")).status == 200
        assert (await visitor.ask("//admin", AS_BOB, host="app.test")).status == 400
        assert not tenants["admin"].heads


async def test_rules_end_with_their_tunnel(server: RunningServer) -> None:
    async with site(server, root={}) as tenants:
        async with tenant(server.control, "app", path="/admin", token="t", basic_auth=[ANN]):
            assert (await ask(server, "//admin")).status == 400
        while (await ask(server, "//admin")).status != 200:
            pass
        assert b"//admin" in tenants["root"].heads[-1]


async def test_tunnels_without_rules_share_a_host_as_before(server: RunningServer) -> None:
    async with site(server, root={}, admin={}) as tenants:
        for path in TRICKS:
            await ask(server, path)
        assert len(tenants["root"].heads) + len(tenants["admin"].heads) == len(TRICKS)


async def test_nothing_in_the_smuggling_corpus_gets_past_a_log_in(server: RunningServer) -> None:
    """Whatever a visitor sends without a password, no service sees a byte of it."""
    async with (
        tenant(server.control, "app", token="t", basic_auth=[ANN]) as app,
        tenant(server.control, "other", token="t", basic_auth=[ANN]) as other,
    ):
        for case in REQUEST_CASES:
            await visit_in_vain(server, case.wire)
            assert not app.streams, case.name
            assert not other.streams, case.name


async def test_nothing_smuggled_behind_a_log_in_is_logged_in(
    server: RunningServer, nursery: trio.Nursery, start_service
) -> None:
    """What follows a request that is logged in has to log in itself: h11 behind the tunnel never sees two requests."""
    seen: list[Request] = []
    origin = Origin("app", seen)
    service = await start_service(origin.handle)
    settings = TunnelSettings(name="app", basic_auth=(ANN,))
    await nursery.start(partial(forward_until_end, server.control, service.address, settings=settings, token="t"))
    passed = 0
    for case in REQUEST_CASES:
        seen.clear()
        await visit_in_vain(server, _logged_in(case.sent) + CANARY_BYTES)
        assert (await fetch(server.public, SYNC, AS_ANN, host="app.test")).status == 200
        await origin.wait_idle()
        assert len(seen) <= 1, case.name
        assert not {"/canary", "/smuggled", "<malformed>"} & {request.target for request in seen}, case.name
        assert not any(name.lower() == "authorization" for request in seen for name, _ in request.fields), case.name
        passed += len(seen)
    assert passed > 10
    await server.stop()


def _logged_in(sent: bytes) -> bytes:
    """The first request with a password."""
    line, end, rest = sent.partition(b"\r\n")
    return line + end + AS_ANN.encode() + b"\r\n" + rest
