"""Visitors and the local service through the whole tunnel: HTTP, and bytes as they are."""

import hashlib
import random

import pytest
import trio

from otun import Session
from otun.client.opening import TunnelKind

from ..server.raw_client import see_no_streams_left
from ..server.services import answer_with_target, receive_all, receive_head, response
from ..server.visitors import Responses, ask, connect, fetch, parse, receive_answer, receive_exactly, request, reset
from .support import MIB, blocks, digest_of, kinds, receive_digest, session_of


async def test_the_service_gets_the_very_bytes_that_the_visitor_sent(tunnel_to) -> None:
    sent = request("/a?b=c", "X-Odd:   spaces\t", "x-UPPER: \xe4", "Connection: close", host="App.LocalHost:99")
    sent += bytes(range(256)) * 10

    async def keep(connection: trio.SocketStream) -> None:
        received.append(await receive_all(connection))
        await connection.send_all(response())

    received: list[bytes] = []
    place = await tunnel_to(keep, kind="tcp")
    async with await connect(place.public) as visitor:
        await visitor.send_all(sent)
        await visitor.send_eof()
        assert await receive_all(visitor) == response()
    assert received == [sent]


async def test_the_visitor_gets_the_very_bytes_that_the_service_sent(tunnel_to) -> None:
    sent = b"HTTP/1.1 299 Any  Thing\r\nx:y\r\nContent-Length: 99999\r\n\r\n" + bytes(range(256)) * 10

    async def answer(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(sent)

    place = await tunnel_to(answer, kind="tcp")
    assert await ask(place.public, request()) == sent


async def test_keep_alive_requests_use_one_connection(tunnel_to) -> None:
    place = await tunnel_to(answer_with_target)
    async with await connect(place.public) as visitor:
        for number in range(100, 150):
            await visitor.send_all(request(f"/{number}"))
            assert (await receive_answer(visitor)).text == f"/{number}"
    assert place.service.accepted == 1


async def test_pipelined_requests_are_answered_in_order(tunnel_to) -> None:
    place = await tunnel_to(answer_with_target)
    targets = [f"/{number}" for number in range(200)]
    async with await connect(place.public) as visitor:
        await visitor.send_all(b"".join([request(target) for target in targets]))
        await visitor.send_eof()
        await check_answers(visitor, targets)
    assert place.service.accepted == 1


async def test_pipelined_requests_may_be_cut_anywhere(tunnel_to) -> None:
    place = await tunnel_to(answer_with_target)
    targets = [f"/{number}" for number in range(50)]
    sent = b"".join([request(target) for target in targets])
    chance = random.Random(1)
    async with await connect(place.public) as visitor:
        while sent:
            size = chance.randint(1, 100)
            await visitor.send_all(sent[:size])
            sent = sent[size:]
        await visitor.send_eof()
        await check_answers(visitor, targets)


async def check_answers(visitor: trio.SocketStream, targets: list[str]) -> None:
    """Receive an answer with each of *targets*, in their order, and then the end."""
    responses = Responses(visitor)
    for target in targets:
        assert (await responses.next()).text == target
    responses.check_nothing_is_left()
    assert await visitor.receive_some() == b""


@kinds
async def test_a_visitor_who_has_finished_sending_reads_the_whole_answer(tunnel_to, kind: TunnelKind) -> None:
    async def count(connection: trio.SocketStream) -> None:
        _, start = await receive_head(connection)
        size = len(start) + len(await receive_all(connection))  # to the visitor's end
        await connection.send_all(response(b"x" * size))

    place = await tunnel_to(count, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request(method="POST", body=bytes(300_000)))
        await visitor.send_eof()
        assert parse(await receive_all(visitor)).body == b"x" * 300_000


@kinds
@pytest.mark.parametrize("size", [0, 1000, 300_000])
async def test_150_visitors_at_once_who_have_finished_sending_are_heard_to_the_end(
    tunnel_to, size: int, kind: TunnelKind
) -> None:
    """There are so many that the session cannot send for all of them at once."""

    async def digest(connection: trio.SocketStream) -> None:
        _, start = await receive_head(connection)
        received = start + await receive_all(connection)
        await connection.send_all(response(hashlib.sha256(received).hexdigest().encode()))

    async def visit(seed: int) -> None:
        async with await connect(place.public) as visitor:
            await visitor.send_all(request(method="POST", body=b"".join(blocks(size, seed))))
            await visitor.send_eof()
            assert parse(await receive_all(visitor)).text == digest_of(size, seed)

    place = await tunnel_to(digest, kind=kind)
    async with trio.open_nursery() as nursery:
        for number in range(150):
            nursery.start_soon(visit, number)


async def test_a_service_that_finishes_first_goes_on_receiving(tunnel_to) -> None:
    async def answer_and_listen(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(b"early"))
        await connection.send_eof()
        late.append(await receive_all(connection))
        finished.set()

    late: list[bytes] = []
    finished = trio.Event()
    place = await tunnel_to(answer_and_listen, kind="tcp")
    async with await connect(place.public) as visitor:
        await visitor.send_all(request())
        assert parse(await receive_all(visitor)).body == b"early"
        await visitor.send_all(b"more" * 100_000)
        await visitor.send_eof()
        await finished.wait()
    assert late == [b"more" * 100_000]


@kinds
async def test_a_service_that_closes_first_gives_the_visitor_a_whole_answer(
    tunnel_to, server_sessions: list[Session], kind: TunnelKind
) -> None:
    async def answer_and_close(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(response(bytes(2 * MIB)))

    place = await tunnel_to(answer_and_close, kind=kind)
    for _ in range(10):
        assert (await fetch(place.public)).body == bytes(2 * MIB)
    await see_no_streams_left(server_sessions[0])


@kinds
async def test_a_download_of_100_mib_arrives_whole(tunnel_to, kind: TunnelKind) -> None:
    size = 100 * MIB

    async def send(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for block in blocks(size):
            await connection.send_all(block)

    place = await tunnel_to(send, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/", "Connection: close"))
        _, start = await receive_head(visitor)
        assert await receive_digest(visitor, size, start) == digest_of(size)
        assert await visitor.receive_some() == b""


@kinds
async def test_an_upload_of_100_mib_arrives_whole(tunnel_to, kind: TunnelKind) -> None:
    size = 100 * MIB

    async def receive(connection: trio.SocketStream) -> None:
        _, start = await receive_head(connection)
        await connection.send_all(response((await receive_digest(connection, size, start)).encode()))

    place = await tunnel_to(receive, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: %d\r\n\r\n" % size)
        for block in blocks(size):
            await visitor.send_all(block)
        assert (await receive_answer(visitor)).text == digest_of(size)


async def test_both_directions_at_once_arrive_whole(tunnel_to) -> None:
    async def echo(connection: trio.SocketStream) -> None:
        async for piece in connection:
            await connection.send_all(piece)

    size = 20 * MIB
    head = request()
    place = await tunnel_to(echo, kind="tcp")
    async with await connect(place.public) as visitor, trio.open_nursery() as nursery:

        async def send() -> None:
            await visitor.send_all(head)
            for block in blocks(size):
                await visitor.send_all(block)
            await visitor.send_eof()

        nursery.start_soon(send)
        assert await receive_exactly(visitor, len(head)) == head
        assert await receive_digest(visitor, size) == digest_of(size)
        assert await visitor.receive_some() == b""


async def test_300_visitors_at_once_each_get_their_own_answer(tunnel_to, server_sessions: list[Session]) -> None:
    count = 300
    everybody_is_here = trio.Event()
    waiting = 0

    async def answer(connection: trio.SocketStream) -> None:
        nonlocal waiting
        head, _ = await receive_head(connection)
        waiting += 1
        if waiting == count:
            everybody_is_here.set()
        await everybody_is_here.wait()
        await connection.send_all(response(head.split(b" ")[1] * 3000))

    async def visit(number: int) -> None:
        answer = await fetch(place.public, f"/{number}")
        assert answer.body == f"/{number}".encode() * 3000

    place = await tunnel_to(answer)
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(visit, number)
    await see_no_streams_left(server_sessions[0])


@kinds
@pytest.mark.parametrize("is_polite", [True, False], ids=["closing", "resetting"])
async def test_visitors_who_leave_early_leave_no_stream_and_no_connection(
    tunnel_to, server_sessions: list[Session], is_polite: bool, kind: TunnelKind
) -> None:
    async def send_forever(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        while True:
            await connection.send_all(bytes(100_000))

    place = await tunnel_to(send_forever, kind=kind)
    for _ in range(10):
        visitor = await connect(place.public)
        await visitor.send_all(request())
        await receive_exactly(visitor, 1000)
        if is_polite:
            await visitor.aclose()
        else:
            reset(visitor)
    with trio.fail_after(10):
        await see_no_streams_left(server_sessions[0])
        while place.service.connections:
            await session_of(place.tunnel).ping()
