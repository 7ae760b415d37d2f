"""Bodies that arrive as they are sent, both ways, small and large, and in little memory."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio

from ..server.services import response, start_service
from ..server.visitors import reset
from .conftest import Peer
from .http_peers import CHUNKED, CONTINUE, LAST_CHUNK, CutShort, Origin, chunk, head
from .support import Program, Start, blocks, digest_of
from .tenants import DOMAIN, Tenants, ask, curl, posting

pytestmark = pytest.mark.interop

MIB: Final = 1024 * 1024
SIZES: Final = {"100 MiB": 100 * MIB} | ({"1 GiB": 1024 * MIB} if "OTUN_LARGE_BODIES" in os.environ else {})
MAX_GROWTH: Final = 64 * 1024
"""KiB that a process may grow by while a body of 100 MiB passes: a stream's window may reach 16 MiB."""


# As it comes


@pytest.mark.parametrize("framing", ["chunked", "until close"])
async def test_each_event_reaches_the_visitor_before_the_next_one_is_sent(tenants: Tenants, framing: str) -> None:
    count = 20
    seen = [trio.Event() for _ in range(count + 1)]
    events = [f"id: {number}\ndata: {'x' * number * number}\n\n".encode() for number in range(count)]

    async def send_events(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        extra = ["Transfer-Encoding: chunked"] if framing == "chunked" else ["Connection: close"]
        await origin.send(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", *extra))
        await seen[count].wait()  # The head, too, comes at once.
        for number, event in enumerate(events):
            await origin.send(chunk(event) if framing == "chunked" else event)
            await seen[number].wait()
        if framing == "chunked":
            await origin.send(LAST_CHUNK)

    await tenants.open("one", send_events)
    async with tenants.visit() as visitor:
        await visitor.send(ask("/events", "Accept: text/event-stream"))
        answer = await visitor.receive_response()
        assert answer.fields["content-type"] == "text/event-stream"
        seen[count].set()
        for number, event in enumerate(events):
            assert await visitor.receive_body_exactly(len(event)) == event
            seen[number].set()
        assert await visitor.receive_body() == b""


@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_each_piece_of_an_upload_reaches_the_origin_before_the_next_one_is_sent(
    tenants: Tenants, framing: str
) -> None:
    pieces = [b"%d." % number * (1 + 50 * number) for number in range(20)]
    tell, arrived = trio.open_memory_channel[bytes](0)

    async def receive(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await tell.send(b"head")
        for piece in pieces:
            await tell.send(await origin.receive_body_exactly(len(piece)))
        assert await origin.receive_body() == b""
        await origin.send(response(b"all here"))

    await tenants.open("one", receive)
    async with tenants.visit() as visitor:
        is_chunked = framing == "chunked"
        length = sum(map(len, pieces))
        await visitor.send(posting("Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {length}"))
        assert await arrived.receive() == b"head"
        for piece in pieces:
            await visitor.send(chunk(piece) if is_chunked else piece)
            assert await arrived.receive() == piece
        assert (await visitor.ask(LAST_CHUNK if is_chunked else b""))[1] == b"all here"


async def test_an_answer_may_go_along_with_the_request(tenants: Tenants) -> None:
    async def echo(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.send(CHUNKED)
        while piece := await origin.receive_body_piece():
            await origin.send(chunk(piece))
        await origin.send(LAST_CHUNK)

    await tenants.open("one", echo)
    async with tenants.visit() as visitor:
        await visitor.send(posting("Transfer-Encoding: chunked"))
        assert (await visitor.receive_response()).status == 200
        for number in range(20):
            piece = b"%d " % number * (1 + 30 * number)
            await visitor.send(chunk(piece))
            assert await visitor.receive_body_exactly(len(piece)) == piece
        await visitor.send(LAST_CHUNK)
        assert await visitor.receive_body() == b""


@pytest.mark.parametrize("leaving", ["closing", "resetting"])
@pytest.mark.parametrize("has_begun", [True, False], ids=["within the answer", "before the answer"])
async def test_an_origin_that_has_nothing_to_say_learns_that_the_visitor_has_left(
    tenants: Tenants, leaving: str, has_begun: bool
) -> None:
    is_asked, is_told = trio.Event(), trio.Event()

    async def serve(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        assert await origin.receive_body() == b""
        if has_begun:
            await origin.send(head("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"))
        is_asked.set()
        assert await origin.receive_request() is None
        is_told.set()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        await visitor.send(ask("/events"))
        await is_asked.wait()
        if has_begun:
            assert (await visitor.receive_response()).status == 200
        if leaving == "resetting":
            reset(visitor.stream)
    await is_told.wait()


# Trailers


async def test_trailers_pass_both_ways(tenants: Tenants) -> None:
    pieces = [b"x" * size for size in (1, 10_000, 100_000, 7)]

    async def serve(origin: Origin) -> None:
        for _ in range(2):
            asked = await origin.receive_request()
            assert asked is not None
            assert await origin.receive_body() == b"".join(pieces)
            assert origin.trailers == {"x-checksum": "up", "x-more": "a, b"}
            await origin.send(
                head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Trailer: X-Checksum, Server-Timing")
            )
            await origin.send(*map(chunk, pieces), b"0\r\nX-Checksum: down\r\nServer-Timing: db;dur=5\r\n\r\n")

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        for _ in range(2):
            await visitor.send(
                posting("Transfer-Encoding: chunked", "Trailer: X-Checksum, X-More", "TE: trailers", "Connection: TE"),
                *map(chunk, pieces),
                b"0\r\nX-Checksum: up\r\nX-More: a\r\nX-More: b\r\n\r\n",
            )
            assert (await visitor.receive_response()).status == 200
            assert await visitor.receive_body() == b"".join(pieces)
            assert visitor.trailers == {"x-checksum": "down", "server-timing": "db;dur=5"}


# Early answers


@pytest.mark.parametrize("manner", ["waits", "half-closes", "closes", "reads on"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
async def test_an_early_413_reaches_a_visitor_who_is_uploading(tenants: Tenants, manner: str, framing: str) -> None:
    is_done = trio.Event()

    async def refuse(origin: Origin) -> None:
        assert await origin.receive_request() is not None
        await origin.receive_body_piece()  # The upload is under way.
        await origin.send(response(b"too large", "Connection: close", status="413 Content Too Large"))
        match manner:
            case "waits":
                await is_done.wait()
            case "half-closes":
                await origin.stream.send_eof()
                await is_done.wait()
            case "closes":  # With the upload unread: the kernel resets the connection behind the answer.
                await origin.stream.aclose()
            case _:
                with suppress(CutShort):
                    await origin.receive_body()

    await tenants.open("one", refuse)
    async with tenants.visit() as visitor, trio.open_nursery() as nursery:

        async def upload() -> None:
            is_chunked = framing == "chunked"
            block = bytes(64 * 1024)
            with suppress(trio.BrokenResourceError):
                await visitor.send(
                    posting("Transfer-Encoding: chunked" if is_chunked else "Content-Length: 1000000000000")
                )
                while True:
                    await visitor.send(chunk(block) if is_chunked else block)

        nursery.start_soon(upload)
        answer = await visitor.receive_response()
        assert (answer.status, await visitor.receive_body()) == (413, b"too large")
        nursery.cancel_scope.cancel()
        is_done.set()


# Large bodies


def peak_memory(program: Program) -> int:
    """KiB of the most memory that *program* has ever had."""
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


async def serve_large_bodies(origin: Origin, size: int) -> None:
    """`GET`: a body of *size* bytes.  Anything else: the SHA-256 of what came."""
    while (asked := await origin.receive_request()) is not None:
        is_chunked = asked.target == "/chunked"
        if asked.method == "GET":
            await origin.receive_body()
            await origin.send(CHUNKED if is_chunked else head("HTTP/1.1 200 OK", f"Content-Length: {size}"))
            for block in blocks(size):
                await origin.send(chunk(block) if is_chunked else block)
            await origin.send(LAST_CHUNK if is_chunked else b"")
        else:
            assert ("transfer-encoding" in asked.fields) == is_chunked
            await origin.send(CONTINUE if "expect" in asked.fields else b"")
            digest = hashlib.sha256()
            while piece := await origin.receive_body_piece():
                digest.update(piece)
            await origin.send(response(digest.hexdigest().encode()))


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("direction", ["up", "down"])
async def test_large_bodies_arrive_whole_and_take_little_memory(
    ours: Peer,
    start: Start,
    free_port: Callable[[], int],
    nursery: trio.Nursery,
    tmp_path: Path,
    direction: str,
    framing: str,
    size: int,
) -> None:
    async def serve(connection: trio.abc.HalfCloseableStream) -> None:
        assert isinstance(connection, trio.SocketStream)
        await serve_large_bodies(Origin(connection), size)

    service = await start_service(nursery, serve)
    control, public = free_port(), free_port()
    server = await ours.server(control, public, domain=DOMAIN)
    client = await ours.client(control, service.address.port, subdomain="one")
    await client.wait_for_output("http://")
    target = "/chunked" if framing == "chunked" else "/"
    file = tmp_path / "body"
    if direction == "up":
        with file.open("wb") as opened:
            opened.writelines(blocks(size))
        words: list[str | Path] = ["-T", file]
        if framing == "chunked":
            words += ["-H", "Transfer-Encoding: chunked"]
    else:
        words = ["-o", file]
    before = [peak_memory(program) for program in (server, client)]
    program = await curl(start, public, *words, target=target)
    after = [peak_memory(program) for program in (server, client)]
    assert program.process.returncode == 0, program.errors[-5:]
    if direction == "up":
        assert program.output == [f"{digest_of(size)}200"]
    else:
        assert program.output == ["200"]
        with file.open("rb") as opened:
            assert hashlib.file_digest(opened, "sha256").hexdigest() == digest_of(size)
    file.unlink()
    growth = [end - start for start, end in zip(before, after, strict=True)]
    assert max(growth) < MAX_GROWTH, f"server and client have grown by {growth} KiB"
