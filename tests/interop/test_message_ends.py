"""Where messages end, whoever asks; and those that are cut short, which must look it."""

from contextlib import suppress
from typing import Final

import pytest
import trio

from ..server.services import response
from ..server.visitors import reset
from .http_peers import CHUNKED, LAST_CHUNK, CutShort, Origin, chunk, head
from .support import blocks
from .tenants import Tenants, ask, posting

pytestmark = pytest.mark.interop

PART: Final = b"the first part of it"


# Where a message ends

WITHOUT_BODY: Final = [
    ("HEAD", response(bytes(1000))[:-1000]),
    ("HEAD", head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")),
    ("HEAD", head("HTTP/1.1 200 OK")),
    ("HEAD", response(bytes(10), status="404 Not Found")[:-10]),
    ("GET", head("HTTP/1.1 204 No Content")),
    ("DELETE", head("HTTP/1.1 204 No Content")),
    ("GET", head("HTTP/1.1 304 Not Modified", 'ETag: "x"')),
    ("GET", head("HTTP/1.1 304 Not Modified", "Content-Length: 1000")),
    ("HEAD", head("HTTP/1.1 304 Not Modified", "Content-Length: 1000")),
    ("GET", response()),
    ("POST", head("HTTP/1.1 205 Reset Content", "Content-Length: 0")),
    ("GET", CHUNKED + LAST_CHUNK),
]


async def test_answers_without_a_body_end_rightly_and_the_connection_goes_on(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert await origin.receive_body() == b""
            number = asked.target.removeprefix("/")
            await origin.send(WITHOUT_BODY[int(number)][1] if number.isdigit() else response(number.encode()))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        for number, (method, sent) in enumerate(WITHOUT_BODY):
            answer, body = await visitor.ask(ask(f"/{number}", method=method), method=method)
            assert (answer.status, body) == (int(sent.split()[1]), b"")
            if method == "HEAD" and b"1000" in sent and answer.status == 200:
                assert answer.fields["content-length"] == "1000"
            answer, body = await visitor.ask(ask("/next"))
            assert (answer.status, body) == (200, b"next")


@pytest.mark.parametrize("visiting", ["1.0", "1.1"])
@pytest.mark.parametrize("start_line", ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK"])
@pytest.mark.parametrize("size", [0, 1, 300_000])
async def test_an_answer_may_end_with_its_connection(
    tenants: Tenants, start_line: str, visiting: str, size: int
) -> None:
    body = b"".join(blocks(size))

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(head(start_line, "Content-Type: text/plain"), body)

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        answer, received = await visitor.ask(ask(version=visiting))
        assert (answer.status, received) == (200, body)


async def test_a_body_may_be_in_single_bytes(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        assert await origin.receive_body() == b"up" * 100
        for byte in CHUNKED + chunk(b"down") * 50 + LAST_CHUNK:
            await origin.send(bytes([byte]))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        for byte in posting("Transfer-Encoding: chunked") + chunk(b"up") * 100 + LAST_CHUNK:
            await visitor.send(bytes([byte]))
        assert (await visitor.receive_response()).status == 200
        assert await visitor.receive_body() == b"down" * 50


# Cut short


async def until_closed(origin: Origin) -> None:
    await origin.stream.aclose()


async def until_reset(origin: Origin) -> None:
    reset(origin.stream)


CUTS: Final = {
    "a length, closed": (head("HTTP/1.1 200 OK", "Content-Length: 1000"), until_closed),
    "a length, reset": (head("HTTP/1.1 200 OK", "Content-Length: 1000"), until_reset),
    "a length in HTTP/1.0, closed": (head("HTTP/1.0 200 OK", "Content-Length: 1000"), until_closed),
    "within a chunk, closed": (CHUNKED + b"1000\r\n", until_closed),
    "within a chunk, reset": (CHUNKED + b"1000\r\n", until_reset),
    "between chunks, closed": (CHUNKED + b"14\r\n", until_closed),
    "between chunks, reset": (CHUNKED + b"14\r\n", until_reset),
    "until the end, reset": (head("HTTP/1.1 200 OK"), until_reset),
    "until the end in HTTP/1.0, reset": (head("HTTP/1.0 200 OK"), until_reset),
}


@pytest.mark.parametrize("visiting", ["1.0", "1.1"])
@pytest.mark.parametrize("cut", CUTS)
async def test_an_answer_that_is_cut_short_looks_cut_short(tenants: Tenants, cut: str, visiting: str) -> None:
    before, end = CUTS[cut]
    assert len(PART) == 0x14
    has_seen_part = trio.Event()

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(before, PART, b"\r\n" if cut.startswith("between") else b"")
        await has_seen_part.wait()
        await end(origin)

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(ask(version=visiting))
        answer = await visitor.receive_response()
        assert answer.status == 200
        if visiting == "1.0":
            assert "transfer-encoding" not in answer.fields
        assert await visitor.receive_body_exactly(len(PART)) == PART
        has_seen_part.set()
        with pytest.raises(CutShort):
            await visitor.receive_body()


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("framing", ["length", "within a chunk", "between chunks", "within the last chunk"])
async def test_a_request_that_is_cut_short_looks_cut_short(tenants: Tenants, framing: str, end: str) -> None:
    has_part, has_ended = trio.Event(), trio.Event()

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        assert await origin.receive_body_exactly(len(PART)) == PART
        has_part.set()
        with pytest.raises(CutShort):
            await origin.receive_body()
        has_ended.set()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        match framing:
            case "length":
                await visitor.send(posting("Content-Length: 1000"), PART)
            case "within a chunk":
                await visitor.send(posting("Transfer-Encoding: chunked"), b"1000\r\n", PART)
            case "between chunks":
                await visitor.send(posting("Transfer-Encoding: chunked"), chunk(PART))
            case _:
                await visitor.send(posting("Transfer-Encoding: chunked"), chunk(PART), LAST_CHUNK[:-2])
        await has_part.wait()
        if end == "reset":
            reset(visitor.stream)
        else:
            await visitor.stream.send_eof()
        await has_ended.wait()
        if end == "end":  # However the visitor is told, it is not left waiting.
            with suppress(CutShort):
                assert (await visitor.receive_response()).status >= 400


# HTTP/1.0


async def serve_as_asked(origin: Origin) -> None:
    """Answer each request as a server of the request's own version does."""
    while (asked := await origin.receive_request()) is not None:
        body = f"{asked.target} {(await origin.receive_body()).decode()}".encode()
        words = {word.strip().lower() for word in asked.fields.get("connection", "").split(",")}
        if "close" in words or (asked.version == "1.0" and "keep-alive" not in words):
            await origin.send(response(body, "Connection: close"))
            return
        await origin.send(response(body, *(["Connection: keep-alive"] if asked.version == "1.0" else [])))


async def test_an_http_1_0_visitor_s_connection_ends_with_the_answer(tenants: Tenants) -> None:
    await tenants.open("one", serve_as_asked)
    for fields in ((), ("Connection: close",)):
        async with tenants.visit() as visitor:
            answer, body = await visitor.ask(ask("/a", *fields, version="1.0"))
            assert (answer.status, body) == (200, b"/a ")
            await visitor.receive_end()


async def test_an_http_1_0_visitor_may_keep_its_connection(tenants: Tenants) -> None:
    await tenants.open("one", serve_as_asked)
    async with tenants.visit() as visitor:
        for turn in range(3):
            answer, body = await visitor.ask(
                ask(f"/{turn}", "Connection: Keep-Alive", method="POST", body=b"body", version="1.0")
            )
            assert (answer.status, body) == (200, f"/{turn} body".encode())
            assert answer.fields["connection"].lower() == "keep-alive"
        _, body = await visitor.ask(ask("/last", version="1.0"))
        assert body == b"/last "
        await visitor.receive_end()


@pytest.mark.parametrize("fields", [(), ("Connection: keep-alive",)], ids=["closing", "keep-alive"])
async def test_chunked_answers_are_dechunked_for_http_1_0_visitors(tenants: Tenants, fields: tuple[str, ...]) -> None:
    pieces = [b"x" * size for size in (1, 10_000, 100_000, 7)]
    seen = [trio.Event() for _ in pieces]

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum"))
        for piece, has_seen in zip(pieces, seen, strict=True):
            await origin.send(chunk(piece))
            await has_seen.wait()
        await origin.send(b"0\r\nX-Sum: 1\r\n\r\n")
        assert await origin.receive_request() is None

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(ask("/", *fields, version="1.0"))
        answer = await visitor.receive_response()
        assert answer.status == 200
        assert "transfer-encoding" not in answer.fields
        for piece, has_seen in zip(pieces, seen, strict=True):
            assert await visitor.receive_body_exactly(len(piece)) == piece
            has_seen.set()
        assert await visitor.receive_body() == b""
        await visitor.receive_end()


async def test_an_http_1_0_visitor_gets_no_1xx(tenants: Tenants) -> None:
    """RFC 9110, section 15.2: a server must not send a 1xx to an HTTP/1.0 client, and none knows what to do with it."""

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(head("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload"))
        await origin.send(response(b"page", "Connection: close"))

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        answer, body = await visitor.ask(ask(version="1.0"))
        assert (answer.status, body) == (200, b"page")
