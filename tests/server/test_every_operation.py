"""Each tunnel, name, host name and port is asked for by somebody, who may have it or not: on the wire."""

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

from otun import RegistrationRefused, TunnelSettings, open_tunnel, open_tunnels
from otun.server import queries
from otun.server.database import open_database
from otun.server.records import TokenRecord

from .certificates import DOMAIN
from .edges import Edge, StartEdge
from .harness import TCP_PORTS
from .raw_client import RawClient, port_of, raw_client
from .stored_tokens import SOMEBODY, stored

FIRST_PORT: Final = TCP_PORTS[0]
HOSTS: Final = ("example.org", "*.example.org", "*.xn--bcher-kva.example", "shop.example.net")

StartWith = Callable[..., Awaitable[Edge]]


@pytest.fixture
def engine() -> None:
    """Any: who may do what does not depend on how bytes are moved."""


@pytest.fixture
def start_with(start_edge: StartEdge, tmp_path: Path) -> StartWith:
    """Start a server that allows host names and ports, with tokens: the secret of each is NAME-secret."""

    async def start(*tokens: TokenRecord, **names: str) -> Edge:
        async with open_database(tmp_path) as database:
            for token in (*tokens, *(stored(name, may=may) for name, may in names.items())):
                await database.write(queries.create_token, token, SOMEBODY)
        return await start_edge(state=tmp_path, allow_hostnames=HOSTS, tokens=frozenset({"a-plain-key"}))

    return start


async def ask(edge: Edge, token: str, name: str | None = None, **fields: object) -> dict[str, object]:
    """Ask for a tunnel on a session of its own, which ends with the answer."""
    async with raw_client(edge.control) as client:
        return await client.register(name, token=f"{token}-secret", **fields)


def check_refusal(answer: dict[str, object], code: str, *, retryable: bool = False) -> str:
    assert answer["type"] == "error", answer
    assert (answer["code"], answer.get("retryable", False)) == (code, retryable)
    message = answer["message"]
    assert isinstance(message, str)
    assert message.isprintable()
    assert "secret" not in message
    return message


# Names


@pytest.mark.parametrize(
    ("may", "allowed", "refused"),
    [
        ("http:app", ["app", "APP"], ["app1", "ap", "xapp", "app-1"]),
        ("http:app-*", ["app-1", "App-1-2"], ["app", "application", "xapp-1"]),
        ("HTTP:APP-*", ["app-1"], ["app"]),
        ("http:app*", ["app", "application", "app-1"], ["ap"]),
        ("http:*", ["app", "x"], []),
        ("tls:app,host:*,tcp:*", [], ["app"]),
    ],
)
async def test_a_token_has_the_names_that_it_was_given(
    start_with: StartWith, may: str, allowed: list[str], refused: list[str]
) -> None:
    edge = await start_with(ci=may)
    for name in allowed:
        answer = await ask(edge, "ci", name)
        assert (answer["type"], answer["subdomain"]) == ("registered", name.lower())
    for name in refused:
        message = check_refusal(await ask(edge, "ci", name), "name_not_allowed")
        assert repr(name.lower()) in message
        assert may.lower() in message or may.startswith("tls:")


@pytest.mark.parametrize("name", ["app-", "app-1.x", "app-*", "app-\n", "app-\u212a", "app-\U0001f600", "app-" * 16])
async def test_what_is_no_name_is_nobodys(start_with: StartWith, name: str) -> None:
    edge = await start_with(ci="http:app-*")
    check_refusal(await ask(edge, "ci", name), "name_invalid")


async def test_http_and_tls_are_granted_apart(start_with: StartWith) -> None:
    edge = await start_with(web="http:app", raw="tls:app-*")
    check_refusal(await ask(edge, "web", "app", kind="tls"), "name_not_allowed")
    check_refusal(await ask(edge, "raw", "app-1"), "name_not_allowed")
    assert (await ask(edge, "raw", "app-1", kind="tls"))["type"] == "registered"


@pytest.mark.parametrize(
    ("may", "kind", "begins"),
    [
        ("http:app-*", "http", "app-"),
        ("http:app", "http", "app"),
        ("tls:t-*,http:h-*", "tls", "t-"),
        (f"http:{'a' * 62}*", "http", "a" * 62),
    ],
)
async def test_a_name_that_the_server_makes_up_is_one_that_the_token_has(
    start_with: StartWith, may: str, kind: str, begins: str
) -> None:
    edge = await start_with(ci=may)
    answer = await ask(edge, "ci", kind=kind)
    assert str(answer["subdomain"]).startswith(begins)
    check_refusal(await ask(edge, "ci", kind="tls" if kind == "http" else "tcp"), _code_without(kind))


def _code_without(kind: str) -> str:
    return "name_not_allowed" if kind == "http" else "port_not_allowed"


async def test_a_path_of_a_host_is_granted_with_its_name(start_with: StartWith) -> None:
    edge = await start_with(ci="http:app")
    assert (await ask(edge, "ci", "app", path="/api"))["type"] == "registered"
    check_refusal(await ask(edge, "ci", "other", path="/api"), "name_not_allowed")


# Host names


@pytest.mark.parametrize(
    ("may", "allowed", "refused"),
    [
        (
            "host:*.example.org",
            ["shop.example.org", "a.b.example.org", "*.shop.example.org", "*.example.org", "SHOP.Example.ORG."],
            ["example.org", "shop.example.net"],
        ),
        ("host:example.org", ["example.org", "EXAMPLE.org."], ["shop.example.org", "*.example.org"]),
        ("host:shop.example.org", ["shop.example.org"], ["a.shop.example.org", "xshop.example.org"]),
        (
            "host:*.b\u00fccher.example",
            ["shop.xn--bcher-kva.example", "shop.B\u00dcCHER.example", "shop.bu\u0308cher.example"],
            ["shop.example.org"],
        ),
        ("host:*", ["example.org", "a.example.org", "shop.example.net"], ["shop.example.com", "example.net"]),
    ],
)
async def test_a_token_has_the_host_names_that_it_was_given_as_far_as_the_server_has_them(
    start_with: StartWith, may: str, allowed: list[str], refused: list[str]
) -> None:
    edge = await start_with(ci=f"http:app,{may}")
    for host in allowed:
        answer = await ask(edge, "ci", "app", hostnames=[host])
        assert answer["type"] == "registered", (host, answer)
    for host in refused:
        assert host in check_refusal(await ask(edge, "ci", "app", hostnames=[host]), "hostname_not_allowed")


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "*",
        "*.",
        "*.*.example.org",
        "a.*.example.org",
        "shop..example.org",
        "shop.example.org..",
        "\x00",
        "a b",
    ],
)
async def test_what_is_no_host_name_is_nobodys(start_with: StartWith, host: str) -> None:
    edge = await start_with(ci="http:*,host:*")
    answer = await ask(edge, "ci", "app", hostnames=[host])
    assert answer["code"] in ("hostname_invalid", "hostname_not_allowed", "bad_message")


async def test_host_names_below_a_tunnels_name_come_with_it_and_others_of_the_domain_with_nothing(
    start_with: StartWith,
) -> None:
    edge = await start_with(ci=f"http:app,host:*,host:*.{DOMAIN}")
    for host in (f"a.app.{DOMAIN}", f"*.app.{DOMAIN}"):
        assert (await ask(edge, "ci", "app", hostnames=[host]))["type"] == "registered"
    for host in (f"other.{DOMAIN}", f"*.{DOMAIN}", DOMAIN, f"xapp.{DOMAIN}", f"a.other.{DOMAIN}"):
        check_refusal(await ask(edge, "ci", "app", hostnames=[host]), "hostname_not_allowed")


async def test_host_names_are_looked_at_one_by_one_and_nothing_is_left_of_a_tunnel_that_is_refused(
    start_with: StartWith,
) -> None:
    edge = await start_with(ci="http:*,host:shop.example.org", other="http:*,host:*")
    hosts = ["shop.example.org", "a.example.org"]
    assert "'a.example.org'" in check_refusal(await ask(edge, "ci", "app", hostnames=hosts), "hostname_not_allowed")
    assert (await ask(edge, "other", "app", hostnames=hosts))["type"] == "registered"  # Not reserved either.


# Ports


@pytest.mark.parametrize(
    ("may", "allowed", "refused"),
    [
        (f"tcp:{FIRST_PORT}-{FIRST_PORT + 10}", [FIRST_PORT, FIRST_PORT + 10], [FIRST_PORT + 11]),
        (f"tcp:{FIRST_PORT + 3}", [FIRST_PORT + 3], [FIRST_PORT + 2, FIRST_PORT + 4]),
        ("tcp:*", [FIRST_PORT, TCP_PORTS[-1]], [TCP_PORTS[-1] + 1, FIRST_PORT - 1, 1, 65535, 0]),
        ("http:*,tls:*,host:*", [], [FIRST_PORT, None]),
    ],
)
async def test_a_token_has_the_ports_that_it_was_given_as_far_as_the_server_has_them(
    start_with: StartWith, may: str, allowed: list[int], refused: list[int | None]
) -> None:
    edge = await start_with(ci=may)
    for port in allowed:
        answer = await ask(edge, "ci", kind="tcp", remote_port=port)
        assert str(answer["url"]).endswith(f":{port}"), answer
    for wanted in refused:
        check_refusal(await ask(edge, "ci", kind="tcp", remote_port=wanted), "port_not_allowed")


async def test_a_port_that_the_server_chooses_is_one_that_the_token_has(start_with: StartWith) -> None:
    granted = range(FIRST_PORT + 50, FIRST_PORT + 52)
    edge = await start_with(ci=f"tcp:{granted[0]}-{granted[-1]}")
    async with AsyncExitStack() as stack:
        ports = set()
        for _ in granted:
            client = await stack.enter_async_context(raw_client(edge.control))
            answer = await client.register(token="ci-secret", kind="tcp")
            ports.add(port_of(answer))
        assert ports == set(granted)
        check_refusal(await ask(edge, "ci", kind="tcp"), "no_port_free", retryable=True)


# Later on the same session


async def another(client: RawClient, number: int, name: str | None = None, **fields: object) -> dict[str, object]:
    answer = await client.register(name, token="ci-secret", id=str(number), **fields)
    assert answer["id"] == str(number)
    return answer


async def test_a_tunnel_that_is_added_later_is_asked_about_as_the_first(start_with: StartWith) -> None:
    edge = await start_with(ci=f"http:app-*,tcp:{FIRST_PORT + 20},host:shop.example.org")
    async with raw_client(edge.control) as client:
        assert (await client.register("app-1", token="ci-secret"))["type"] == "registered"
        check_refusal(await another(client, 1, "other"), "name_not_allowed")
        check_refusal(await another(client, 2, "app-2", hostnames=["a.example.org"]), "hostname_not_allowed")
        check_refusal(await another(client, 3, kind="tcp", remote_port=FIRST_PORT + 21), "port_not_allowed")
        check_refusal(await another(client, 4, "app-2", kind="tls"), "name_not_allowed")
        for number, fields in enumerate(
            ({"name": "app-2", "hostnames": ["shop.example.org"]}, {"kind": "tcp"}, {"name": "app-1", "path": "/api"})
        ):
            assert (await another(client, number + 5, **fields))["type"] == "registered"
        assert edge.tunnels  # The session lives.


@pytest.mark.parametrize("token", ["other-secret", "wrong", None, ""])
async def test_all_tunnels_of_a_session_belong_to_one_token(start_with: StartWith, token: str | None) -> None:
    edge = await start_with(stored("ci"), stored("other"))
    async with raw_client(edge.control) as client:
        await client.register("app", token="ci-secret")
        answer = await client.register("app-2", token=token, id="1")
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "bad_token", "1")
        assert (await another(client, 2, "app-2"))["type"] == "registered"


# As many as there may be


async def test_tunnels_are_counted_over_all_sessions_of_a_token_and_places_are_freed(start_with: StartWith) -> None:
    edge = await start_with(stored("ci", max_tunnels=3), stored("other", max_tunnels=1))
    async with raw_client(edge.control) as first:
        async with raw_client(edge.control) as second:
            await first.register("one", token="ci-secret")
            await second.register("two", token="ci-secret")
            check_refusal(await another(second, 1, "t.o.o"), "name_invalid")  # One that is refused does not count.
            assert (await another(second, 2, kind="tcp"))["type"] == "registered"
            assert "3 tunnels" in check_refusal(await ask(edge, "ci", "four"), "too_many_tunnels", retryable=True)
            check_refusal(await another(first, 3, "four"), "too_many_tunnels", retryable=True)
            check_refusal(await another(first, 3, kind="tcp"), "too_many_tunnels", retryable=True)
            assert (await ask(edge, "other", "five"))["type"] == "registered"  # Nobody else's business.
        while len(edge.tunnels) > 1:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert (await another(first, 3, "four"))["type"] == "registered"
        assert (await another(first, 4, "two"))["type"] == "registered"
        check_refusal(await another(first, 5, "six"), "too_many_tunnels", retryable=True)


async def test_twenty_sessions_at_once_have_no_more_tunnels_than_there_may_be(start_with: StartWith) -> None:
    edge = await start_with(stored("ci", max_tunnels=4))
    answers: list[dict[str, object]] = []
    is_over = trio.Event()

    async def run(number: int) -> None:
        async with raw_client(edge.control) as client:
            answers.append(await client.register(f"app-{number}", token="ci-secret"))
            await is_over.wait()

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(run, number)
        while len(answers) < 20:
            await trio.testing.wait_all_tasks_blocked(0.001)
        is_over.set()
    assert [answer["type"] for answer in answers].count("registered") == 4
    assert {answer["code"] for answer in answers if answer["type"] == "error"} == {"too_many_tunnels"}


# Who may not know


async def test_who_has_no_good_token_learns_nothing_of_what_there_is(start_with: StartWith) -> None:
    edge = await start_with(stored("ci"), stored("gone", revoked=2))
    fields = {"hostnames": ["shop.example.org"]}
    async with raw_client(edge.control) as owner:
        await owner.register("app", token="ci-secret", **fields)
        for token in ("gone", "ci-secre"):
            answers = [
                await ask(edge, token, "app"),
                await ask(edge, token, "free"),
                await ask(edge, token, "not-\n"),
                await ask(edge, token, "x", **fields),
                await ask(edge, token, kind="tcp", remote_port=FIRST_PORT),
                await ask(edge, token, kind="nonsense"),
                await ask(edge, token, "app", resume="guess"),
                await ask(edge, token, "app", basic_auth=["nonsense"]),
            ]
            assert {json.dumps(answer) for answer in answers} == {json.dumps(answers[0])}
            check_refusal(answers[0], "bad_token")


async def test_a_refusal_says_nothing_of_other_tokens(start_with: StartWith) -> None:
    edge = await start_with(stored("somebody-else"), ci="http:app-*,http:theirs")
    async with raw_client(edge.control) as owner:
        await owner.register("theirs", token="somebody-else-secret")
        for name in ("theirs", "other"):
            answer = await ask(edge, "ci", name)
            assert answer["type"] == "error"
            assert "somebody-else" not in str(answer)


async def test_who_may_not_have_a_name_does_not_learn_whether_it_is_taken(start_with: StartWith) -> None:
    edge = await start_with(stored("owner"), ci="http:app")
    port = FIRST_PORT + 30
    async with raw_client(edge.control) as owner:
        await owner.register("theirs", token="owner-secret", hostnames=["shop.example.org"])
        await owner.register(None, token="owner-secret", id="1", kind="tcp", remote_port=port)
        taken, free = await ask(edge, "ci", "theirs"), await ask(edge, "ci", "nobodys")
        assert str(taken).replace("theirs", "nobodys") == str(free)
        hosts = [await ask(edge, "ci", "app", hostnames=[f"{host}.example.org"]) for host in ("shop", "free")]
        assert str(hosts[0]).replace("shop.", "free.") == str(hosts[1])
        ports = [await ask(edge, "ci", kind="tcp", remote_port=wanted) for wanted in (port, port + 1)]
        assert str(ports[0]).replace(str(port), str(port + 1)) == str(ports[1])


# In the library


async def test_the_library_raises_what_the_server_has_said(start_with: StartWith) -> None:
    edge = await start_with(stored("ci", may="http:app-*", max_tunnels=1))
    for name, code in (("other", "name_not_allowed"), ("app-1", None)):
        if code is None:
            async with open_tunnel(edge.control, name=name, token="ci-secret") as tunnel:
                assert tunnel.name == name
            continue
        with pytest.raises(RegistrationRefused, match="'other'") as caught:
            async with open_tunnel(edge.control, name=name, token="ci-secret"):
                pass
        assert (caught.value.code, caught.value.is_retryable) == (code, False)
    two = [TunnelSettings(name="app-1"), TunnelSettings(name="app-2")]
    with pytest.raises(RegistrationRefused, match="1 tunnel") as caught:
        async with open_tunnels(edge.control, two, token="ci-secret"):
            pass
    assert (caught.value.code, caught.value.is_retryable) == ("too_many_tunnels", True)
