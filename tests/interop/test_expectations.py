"""What comes before an answer: 100 for who waits for it, early hints, and refusals for who asked first."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio

from ..server.services import response
from .http_peers import CONTINUE, LAST_CHUNK, CutShort, Origin, chunk, head
from .support import Start
from .tenants import Tenants, ask, curl, posting

pytestmark = pytest.mark.interop

MIB: Final = 1024 * 1024


async def test_100_continue_is_the_origin_s_to_say(tenants: Tenants) -> None:
    has_continued = trio.Event()

    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            if "expect" in asked.fields:
                assert asked.fields["expect"].lower() == "100-continue"
                has_continued.set()
                await origin.send(CONTINUE)
            await origin.send(response(await origin.receive_body()))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(posting("Content-Length: 5", "Expect: 100-continue"))
        assert (await visitor.receive_response()).status == 100
        assert has_continued.is_set()
        assert (await visitor.ask(b"first"))[1] == b"first"
        assert (await visitor.ask(posting("Content-Length: 6"), b"second"))[1] == b"second"  # without asking
        await visitor.send(posting("Transfer-Encoding: chunked", "Expect: 100-continue"))
        assert (await visitor.receive_response()).status == 100
        assert (await visitor.ask(chunk(b"third"), LAST_CHUNK))[1] == b"third"


async def test_an_origin_may_answer_without_100(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        body = await origin.receive_body()
        await origin.send(response(body))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:  # The visitor is tired of waiting.
        assert (await visitor.ask(posting("Content-Length: 4", "Expect: 100-continue"), b"body"))[1] == b"body"


@pytest.mark.parametrize("status", ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"])
async def test_an_origin_that_does_not_want_the_body_says_so_at_once(tenants: Tenants, status: str) -> None:
    async def refuse(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(response(b"no", status=status))
        with suppress(CutShort):
            assert await origin.receive_body() == b""

    await tenants.open("one", refuse)
    async with tenants.visit() as visitor:
        answer, body = await visitor.ask(posting("Content-Length: 1000000", "Expect: 100-continue"))
        assert (f"{answer.status} {answer.reason}", body) == (status, b"no")


async def test_early_hints_come_before_the_answer(tenants: Tenants) -> None:
    has_seen_hints = trio.Event()

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(head("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload"))
        await has_seen_hints.wait()
        await origin.send(head("HTTP/1.1 103 Early Hints", "Link: </more.css>; rel=preload"), response(b"page"))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(ask())
        hints = await visitor.receive_response()
        assert (hints.status, hints.fields["link"]) == (103, "</style.css>; rel=preload")
        has_seen_hints.set()
        assert (await visitor.receive_response()).status == 103
        assert (await visitor.receive_response()).status == 200
        assert await visitor.receive_body() == b"page"


@pytest.mark.parametrize("status", ["200 OK", "413 Content Too Large", "417 Expectation Failed"])
async def test_curl_waits_for_100(tenants: Tenants, start: Start, tmp_path: Path, status: str) -> None:
    """A refusal must say that the connection closes: curl would take the next request for one that is welcome on it."""
    body = tmp_path / "body"
    body.write_bytes(b"x" * 3 * MIB)  # From 1 MiB on, it asks.
    received: list[int] = []

    async def serve(origin: Origin) -> None:
        asked = await origin.receive_request()
        assert asked is not None
        assert asked.fields["expect"] == "100-continue"
        if status == "200 OK":
            await origin.send(CONTINUE)
            received.append(len(await origin.receive_body()))
            await origin.send(response())
        else:
            await origin.send(response(b"no", "Connection: close", status=status))

    await tenants.open("one", serve)
    program = await curl(start, tenants.port, "--expect100-timeout", "1000", "-T", body, "-o", os.devnull)
    assert program.output == [status[:3]], program.errors
    assert received == ([3 * MIB] if status == "200 OK" else [])
