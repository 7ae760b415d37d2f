"""Strict-Transport-Security: on request only, over TLS only, and once."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from .conversation import Conversation, Tenant, conversation, tenant
from .edges import NAME, Edge, StartEdge
from .services import response

OURS = b"Strict-Transport-Security: max-age=600"


def hsts_in(head: bytes) -> list[bytes]:
    return [line for line in head.split(b"\r\n") if line.lower().startswith(b"strict-transport-security")]


class Raw(Conversation):
    """A visitor who looks at the fields as they are."""

    async def ask_for_hsts(self, target: str = "/", **keywords: object) -> list[bytes]:
        await self.send(target, host=NAME, **keywords)
        method = str(keywords.get("method", "GET"))
        while b"\r\n\r\n" not in self._received:
            await self._receive_more()
        found = hsts_in(self._received.partition(b"\r\n\r\n")[0])
        await self.receive(method=method)
        return found


def answering_with(*fields: str) -> Callable[..., Awaitable[None]]:
    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
        body = b"" if head.startswith(b"HEAD") else b"x"
        await stream.send_all(response(b"x", *fields)[: None if body else -1])

    return answer


async def test_every_answer_has_it(start_edge: StartEdge) -> None:
    edge = await start_edge(hsts=600)
    async with tenant(edge.control, "app", answering_with()), edge.visiting() as visitor:
        raw = Raw(visitor)
        for keywords in ({}, {}, {"method": "HEAD"}, {"method": "POST", "body": b"abc"}, {}):
            assert await raw.ask_for_hsts(**keywords) == [OURS]


async def test_there_is_none_unless_it_was_asked_for(edge: Edge) -> None:
    async with tenant(edge.control, "app", answering_with()), edge.visiting() as visitor:
        assert await Raw(visitor).ask_for_hsts() == await Raw(visitor).ask_for_hsts() == []


async def test_zero_seconds_take_it_back(start_edge: StartEdge) -> None:
    edge = await start_edge(hsts=0)
    async with tenant(edge.control, "app", answering_with()), edge.visiting() as visitor:
        assert await Raw(visitor).ask_for_hsts() == [b"Strict-Transport-Security: max-age=0"]


@pytest.mark.parametrize("is_http_first", [True, False])
async def test_answers_by_http_have_none_whoever_came_before(start_edge: StartEdge, is_http_first: bool) -> None:
    """The answers are the same to the byte, and heads that have come before are not written anew."""
    edge = await start_edge(hsts=600, redirect=False)
    async with (
        tenant(edge.control, "app", answering_with(f"X-Case: {is_http_first}")),
        edge.visiting() as secure,
        conversation(edge.public) as plain,
    ):
        raw_secure, raw_plain = Raw(secure), Raw(plain.stream)
        for is_http in (is_http_first, not is_http_first) * 3:
            if is_http:
                assert await raw_plain.ask_for_hsts() == []
            else:
                assert await raw_secure.ask_for_hsts() == [OURS]


@pytest.mark.parametrize("given", ["strict-transport-security: max-age=1; includeSubDomains"])
async def test_the_local_services_own_stays_as_it_is(start_edge: StartEdge, given: str) -> None:
    edge = await start_edge(hsts=600)
    async with tenant(edge.control, "app", answering_with(given)), edge.visiting() as visitor:
        raw = Raw(visitor)
        assert await raw.ask_for_hsts() == await raw.ask_for_hsts() == [given.encode()]


async def test_what_the_tunnels_owner_sets_counts(start_edge: StartEdge) -> None:
    edge = await start_edge(hsts=600)
    given = "Strict-Transport-Security: max-age=7"
    async with (
        tenant(edge.control, "app", answering_with(), response_headers=[given]),
        edge.visiting() as visitor,
    ):
        assert await Raw(visitor).ask_for_hsts() == [given.encode()]


async def test_what_the_tunnels_owner_removes_is_the_services_not_the_servers(start_edge: StartEdge) -> None:
    edge = await start_edge(hsts=600)
    async with (
        tenant(
            edge.control,
            "app",
            answering_with("Strict-Transport-Security: max-age=1"),
            response_headers=["-Strict-Transport-Security"],
        ),
        edge.visiting() as visitor,
    ):
        assert await Raw(visitor).ask_for_hsts() == [OURS]
