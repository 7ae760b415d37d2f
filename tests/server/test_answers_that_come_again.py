"""Answers whose head has come before take a shorter way through the edge: visitors must not notice."""

from collections.abc import Callable

import pytest
import trio

from otun.http.head import RequestHeadReader, ResponseHeadReader
from otun.http.head_reader import KnownHeads

from .conversation import Tenant, conversation, tenant
from .harness import RunningServer
from .services import END_OF_HEAD, response
from .visitors import ask, parse, request

ANSWER = response(b"hello", "Server: a", "Connection: keep-alive", "X-B: c")


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in (RequestHeadReader, ResponseHeadReader):
        monkeypatch.setattr(reader, "known", KnownHeads())


def answering(*pieces: bytes) -> Callable[..., object]:
    """Send the same bytes each time, in pieces that arrive one by one; a HEAD gets the head alone."""

    async def answer(one: Tenant, stream: trio.abc.HalfCloseableStream, _number: int, head: bytes) -> None:
        if head.startswith(b"HEAD"):
            await stream.send_all(b"".join(pieces).partition(END_OF_HEAD)[0] + END_OF_HEAD)
            return
        for piece in pieces:
            await stream.send_all(piece)
            await one.client.session.ping()

    return answer


@pytest.mark.parametrize("cut", [len(ANSWER), 10, len(ANSWER) - 5, len(ANSWER) - 2])
async def test_every_answer_is_like_the_first_however_it_arrives(server: RunningServer, cut: int) -> None:
    async with (
        tenant(server.control, "app", answering(ANSWER[:cut], ANSWER[cut:])),
        conversation(server.public) as visitor,
    ):
        first = await visitor.ask("/")
        assert (first.status, first.text) == (200, "hello")
        assert dict(first.fields) == {"Content-Length": "5", "Server": "a", "X-B": "c"}
        for number in range(5):
            assert await visitor.ask(f"/{number}") == first


async def test_answers_that_need_another_form_get_it(server: RunningServer) -> None:
    async with tenant(server.control, "app", answering(ANSWER)), conversation(server.public) as visitor:
        for _ in range(4):
            first = await visitor.ask("/")
        head = await visitor.ask("/", method="HEAD")
        assert (head.fields, head.text) == (first.fields, "")
        assert await visitor.ask("/") == first
        last = parse(await ask(server.public, request("/", "Connection: close")))
        assert (last.fields["Connection"], last.text) == ("close", "hello")
        assert await visitor.ask("/") == first
        old = await ask(server.public, b"GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n")
        assert parse(old).fields["Connection"] == "close"
        assert await visitor.ask("/") == first
        kept = b"GET / HTTP/1.0\r\nHost: app.localhost\r\nConnection: keep-alive\r\n\r\n"
        async with conversation(server.public) as other:
            for _ in range(2):
                await other.stream.send_all(kept)
                assert (await other.receive()).fields["Connection"] == "keep-alive"


async def test_an_empty_answer_to_head_may_have_a_length(server: RunningServer) -> None:
    async with tenant(server.control, "app", answering(response())), conversation(server.public) as visitor:
        for _ in range(4):
            assert (await visitor.ask("/")).fields == {"Content-Length": "0"}
            assert (await visitor.ask("/", method="HEAD")).fields == {"Content-Length": "0"}


async def test_a_tunnel_that_edits_its_answers_gets_none_of_anothers(server: RunningServer) -> None:
    edited = {"response_headers": ["X-B: other", "-Server"]}
    async with (
        tenant(server.control, "app", answering(ANSWER)),
        tenant(server.control, "edited", answering(ANSWER), **edited),
        conversation(server.public) as visitor,
    ):
        for _ in range(4):
            assert (await visitor.ask("/")).fields["X-B"] == "c"
            fields = (await visitor.ask("/", host="edited.localhost")).fields
            assert (fields["X-B"], "Server" in fields) == ("other", False)


async def test_bytes_behind_a_known_answer_reach_nobody(server: RunningServer) -> None:
    async with tenant(server.control, "app", answering(ANSWER)) as app, conversation(server.public) as visitor:
        for _ in range(4):
            first = await visitor.ask("/")
        app.on_request = answering(ANSWER + ANSWER)  # type: ignore[assignment]  # the same kind of function
        assert await visitor.ask("/") == first
        app.on_request = answering(response(b"new"))  # type: ignore[assignment]
        assert (await visitor.ask("/")).text == "new"
        assert len(app.streams) == 2, "the stream with the surplus was used again"
