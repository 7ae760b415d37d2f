"""Each request on a connection goes where its own Host says, with its own body and nobody else's."""

from typing import Final

import pytest
import trio

from ..server.services import receive_head, response
from ..server.visitors import request
from .http_peers import LAST_CHUNK, Origin, Visitor, chunk, head
from .tenants import Serve, Tenants, host

pytestmark = pytest.mark.interop

NAMES: Final = ("one", "two")


def serve_as(name: str, *, is_chunking: bool = False) -> Serve:
    """A service that says its name, the Host that it was asked for, and all that it got."""

    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            said = f"{name}: {asked.method} {asked.target} of {asked.fields['host']}: ".encode()
            said += await origin.receive_body()
            if is_chunking:
                await origin.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), chunk(said), LAST_CHUNK)
            else:
                await origin.send(response(said))

    return serve


@pytest.fixture
async def both(tenants: Tenants) -> Tenants:
    """Two tenants who say who they are; one answers with a length, the other in chunks."""
    await tenants.open("one", serve_as("one"))
    await tenants.open("two", serve_as("two", is_chunking=True))
    return tenants


async def test_each_request_goes_to_its_own_host_and_an_unknown_one_to_nobody(both: Tenants) -> None:
    async with both.visit() as visitor:
        for target, name in (("/1", "one"), ("/2", "two")):
            answer, body = await visitor.ask(request(target, host=host(name)))
            assert (answer.status, body.decode()) == (200, f"{name}: GET {target} of {host(name)}: ")
        answer, body = await visitor.ask(request("/3", host=host("three")))
        assert answer.status == 404
        assert answer.fields["otun-error"] == "tunnel_not_found"


async def test_an_unknown_host_s_body_goes_to_nobody(both: Tenants) -> None:
    hidden = request("/hidden", host=host("one"))
    async with both.visit() as visitor:
        assert (await visitor.ask(request("/1", host=host("one"))))[0].status == 200
        answer, body = await visitor.ask(request("/", host=host("three"), method="POST", body=hidden))
        assert answer.status == 404
        assert b"hidden" not in body
        # Whether it goes on or not, what it says next is never an answer to the body.
        if answer.fields.get("connection", "").lower() == "close":
            await visitor.receive_end()
        else:
            assert (await visitor.ask(request("/2", host=host("two"))))[1].startswith(b"two: GET /2 ")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_looks_like_a_request_is_a_body(both: Tenants, framing: str) -> None:
    hidden = request("/hidden", host=host("two")) * 100
    async with both.visit() as visitor:
        for turn, name in enumerate(("one", "two", "one", "one", "two")):
            target = f"/{turn}"
            if framing == "length":
                sent = request(target, host=host(name), method="POST", body=hidden)
            else:
                sent = request(target, "Transfer-Encoding: chunked", host=host(name), method="POST")
                sent += chunk(hidden[:50]) + chunk(hidden[50:]) + LAST_CHUNK
            answer, body = await visitor.ask(sent)
            assert answer.status == 200
            assert body == f"{name}: POST {target} of {host(name)}: ".encode() + hidden


@pytest.mark.parametrize("size", [1, 7, 1000, 1_000_000], ids="{} bytes at a time".format)
async def test_pipelined_requests_are_answered_in_order_each_by_its_own_host(both: Tenants, size: int) -> None:
    names = [NAMES[number * number % 3 % 2] for number in range(30)]
    sent = b"".join(
        request(f"/{number}", host=host(name), method="POST", body=b"%d" % number * (number % 4))
        for number, name in enumerate(names)
    )
    async with both.visit() as visitor, trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, len(sent), size):
                await visitor.send(sent[start : start + size])

        nursery.start_soon(send)
        for number, name in enumerate(names):
            assert (await visitor.receive_response()).status == 200
            body = await visitor.receive_body()
            assert body.decode() == f"{name}: POST /{number} of {host(name)}: " + str(number) * (number % 4)


async def test_50_visitors_who_alternate_never_get_an_answer_of_the_other_tenant(both: Tenants) -> None:
    async def alternate(visiting: int) -> None:
        async with both.visit() as visitor:
            for turn in range(20):
                name = NAMES[(visiting + turn) % 2]
                target = f"/{visiting}/{turn}"
                said = b"%d " % visiting * (turn * 200)
                answer, body = await visitor.ask(request(target, host=host(name), method="PUT", body=said))
                assert answer.status == 200
                assert body == f"{name}: PUT {target} of {host(name)}: ".encode() + said

    async with trio.open_nursery() as nursery:
        for visiting in range(50):
            nursery.start_soon(alternate, visiting)


async def test_a_visitor_who_has_finished_sending_gets_all_its_answers(both: Tenants) -> None:
    for method, body in (("GET", b""), ("POST", b"x" * 300_000)):
        async with both.visit() as visitor, trio.open_nursery() as nursery:

            async def send(visitor: Visitor = visitor, method: str = method, body: bytes = body) -> None:
                for name in NAMES:
                    await visitor.send(request("/", host=host(name), method=method, body=body))
                await visitor.stream.send_eof()

            nursery.start_soon(send)
            for name in NAMES:
                assert (await visitor.receive_response()).status == 200
                assert await visitor.receive_body() == f"{name}: {method} / of {host(name)}: ".encode() + body
            await visitor.receive_end()


async def test_a_visitor_who_says_close_gets_the_answer_and_the_end(both: Tenants) -> None:
    async with both.visit() as visitor:
        assert (await visitor.ask(request("/1", host=host("two"))))[0].status == 200
        _, body = await visitor.ask(request("/2", "Connection: close", host=host("one")))
        assert body.decode() == f"one: GET /2 of {host('one')}: "
        await visitor.receive_end()


@pytest.mark.parametrize("is_announced", [True, False], ids=["saying so", "silently"])
async def test_an_origin_that_closes_after_each_answer_does_not_end_the_visitor_s_connection(
    tenants: Tenants, is_announced: bool
) -> None:
    def serve_once_as(name: str) -> Serve:
        async def serve(origin: Origin) -> None:
            asked = await origin.receive_request()
            if asked is not None:
                await origin.receive_body()
                fields = ["Connection: close"] if is_announced else []
                await origin.send(response(f"{name} {asked.target}".encode(), *fields))

        return serve

    for name in NAMES:
        await tenants.open(name, serve_once_as(name))
    async with tenants.visit() as visitor:
        for number in range(30):
            name = NAMES[number // 3 % 2]
            answer, body = await visitor.ask(request(f"/{number}", host=host(name)))
            assert (answer.status, body.decode()) == (200, f"{name} /{number}")


async def test_the_ends_fields_are_passed_on_one_by_one_in_their_order(tenants: Tenants) -> None:
    asking = [
        f"Host: {host('one')}:8080",
        "Cookie: a=1; b=2",
        "X-Twice: first",
        "Accept: */*",
        "X-Twice: second",
        "X-Empty:",
        "X-Bytes: \xfc\xff",
    ]
    answering = ["Set-Cookie: a=1; Path=/", "X-Empty:", "Set-Cookie: b=2; Path=/", "X-Bytes: \xfc\xff", "Vary: a, b"]

    def lines_of(received: bytes) -> list[str]:
        lines = received.decode("latin-1").split("\r\n")
        return [f"{name}: {value.strip()}".strip() for name, _, value in (line.partition(":") for line in lines)]

    async def serve(origin: Origin) -> None:
        received, _ = await receive_head(origin.stream)
        if received:
            lines = lines_of(received)
            assert [line for line in lines if line in asking] == asking
            await origin.send(head("HTTP/1.1 200 OK", *answering, "Content-Length: 0"))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(head("GET / HTTP/1.1", *asking))
        received, _ = await receive_head(visitor.stream)
        assert [line for line in lines_of(received) if line in answering] == answering


async def test_a_connection_that_the_origin_gives_up_as_the_next_request_comes_is_replaced(tenants: Tenants) -> None:
    """Who keeps connections meets this race; what is safe to ask twice is asked again (RFC 9112, section 9.3.1)."""
    asked: list[str] = []

    async def serve_once(origin: Origin) -> None:
        for turn in range(2):
            request = await origin.receive_request()
            if request is None:
                return
            body = await origin.receive_body()
            asked.append(f"{request.method} {request.target}")
            if turn == 0:
                await origin.send(response(request.target.encode() + body))

    await tenants.open("one", serve_once)
    async with tenants.visit() as visitor:
        assert (await visitor.ask(request("/1", host=host("one"))))[1] == b"/1"
        assert (await visitor.ask(request("/2", host=host("one"))))[1] == b"/2"
        answer, _ = await visitor.ask(request("/3", host=host("one"), method="POST", body=b"once only"), method="POST")
        assert answer.status == 502
    assert asked == ["GET /1", "GET /2", "GET /2", "POST /3"]
