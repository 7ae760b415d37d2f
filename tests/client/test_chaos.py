"""Many visitors who do all kinds of things at once: each gets his own bytes, and nothing is left behind."""

import gc
import hashlib
import logging
import random

import pytest
import trio

from otun import Session, TcpAddress
from otun.client.opening import TunnelKind

from ..server.harness import open_descriptors
from ..server.raw_client import see_no_streams_left
from ..server.services import receive_head, response
from ..server.visitors import Responses, connect, parse, request, reset
from .support import blocks, kinds, session_of

COUNT = 150


class Service:
    """Does what the target says, which is the name of a method and its arguments."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    async def __call__(self, connection: trio.SocketStream) -> None:
        head, start = await receive_head(connection)
        if not head:
            return
        _, verb, *arguments = head.split(b" ")[1].decode().split("/")
        await getattr(self, verb)(connection, start, *map(int, arguments))

    async def echo(self, connection: trio.SocketStream, start: bytes) -> None:
        await connection.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + start)
        async for piece in connection:
            await connection.send_all(piece)
        await connection.send_eof()

    async def digest(self, connection: trio.SocketStream, start: bytes) -> None:
        digest = hashlib.sha256(start)
        async for piece in connection:
            digest.update(piece)
        await connection.send_all(response(digest.hexdigest().encode()))

    async def download(self, connection: trio.SocketStream, _start: bytes, size: int, seed: int) -> None:
        await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for block in blocks(size, seed):
            cut = self._chance.randrange(len(block))
            await connection.send_all(block[:cut])
            await connection.send_all(block[cut:])
        await connection.send_eof()
        async for _ in connection:
            pass

    async def hang(self, connection: trio.SocketStream, _start: bytes) -> None:
        async for _ in connection:
            pass

    async def close(self, connection: trio.SocketStream, _start: bytes) -> None:
        pass

    async def reset(self, connection: trio.SocketStream, _start: bytes) -> None:
        reset(connection)

    async def half(self, connection: trio.SocketStream, _start: bytes, size: int) -> None:
        await connection.send_all(response(bytes(size))[: size // 2])
        reset(connection)


VERBS = {
    "http": ["echo", "digest", "download", "chain", "leave", "hang", "close", "reset", "half"],
    "tcp": ["echo", "digest", "download", "leave", "hang", "close", "reset", "half"],
}


class Visitor:
    """Chooses what to do by chance."""

    def __init__(self, public: TcpAddress, kind: TunnelKind, chance: random.Random) -> None:
        self._public = public
        self._is_http = kind == "http"
        self._verbs = VERBS[kind]
        self._chance = chance

    async def visit(self) -> None:
        size = self._chance.choice([0, 1, 1000, 70_000, 300_000, 1_500_000])
        verb = self._chance.choice(self._verbs)
        async with await connect(self._public) as connection:
            await getattr(self, verb)(connection, size)

    async def _ask(self, connection: trio.SocketStream, target: str, body: bytes = b"") -> None:
        await self._send(connection, request(target, "Connection: close", method="POST", body=body))

    async def _send(self, connection: trio.SocketStream, sent: bytes) -> None:
        while sent:
            size = self._chance.choice([1, 50, 10_000, 200_000, len(sent)])
            await connection.send_all(sent[:size])
            sent = sent[size:]

    async def _receive(self, connection: trio.SocketStream) -> bytes:
        received = bytearray()
        while piece := await connection.receive_some(self._chance.choice([10, 5000, 100_000])):
            received += piece
        return bytes(received)

    async def echo(self, connection: trio.SocketStream, size: int) -> None:
        body = b"".join(blocks(size, size))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await self._ask(connection, "/echo", body)
                await connection.send_eof()

            nursery.start_soon(send)
            assert parse(await self._receive(connection)).body == body

    async def digest(self, connection: trio.SocketStream, size: int) -> None:
        body = b"".join(blocks(size, size))
        await self._ask(connection, "/digest", body)
        await connection.send_eof()
        answer = parse(await self._receive(connection))
        assert answer.text == hashlib.sha256(body).hexdigest()

    async def download(self, connection: trio.SocketStream, size: int) -> None:
        seed = self._chance.randrange(1000)
        await self._ask(connection, f"/download/{size}/{seed}")
        assert parse(await self._receive(connection)).body == b"".join(blocks(size, seed))

    async def chain(self, connection: trio.SocketStream, size: int) -> None:
        """One download after the other; the service ends its connection after each."""
        responses = Responses(connection)
        for _ in range(self._chance.randint(2, 4)):
            seed = self._chance.randrange(1000)
            await self._send(connection, request(f"/download/{size}/{seed}"))
            assert (await responses.next()).body == b"".join(blocks(size, seed))
        responses.check_nothing_is_left()

    async def leave(self, connection: trio.SocketStream, size: int) -> None:
        await self._ask(connection, "/echo", bytes(min(size, 300_000)))  # More does not fit while nobody reads.
        if self._chance.random() < 0.5:
            reset(connection)

    async def hang(self, connection: trio.SocketStream, size: int) -> None:
        await self._ask(connection, "/hang", bytes(size))
        await connection.send_eof()
        await self._see_no_answer(connection, "empty_reply")

    async def close(self, connection: trio.SocketStream, _size: int) -> None:
        await self._ask(connection, "/close")
        await self._see_no_answer(connection, "empty_reply")

    async def reset(self, connection: trio.SocketStream, _size: int) -> None:
        await self._ask(connection, "/reset")
        await self._see_a_reset(connection, has_begun=False)

    async def half(self, connection: trio.SocketStream, size: int) -> None:
        await self._ask(connection, f"/half/{size}")
        await self._see_a_reset(connection, has_begun=size > 1)

    async def _see_no_answer(self, connection: trio.SocketStream, code: str) -> None:
        received = await self._receive(connection)
        if self._is_http:
            answer = parse(received)
            assert (answer.status, answer.fields["Otun-Error"]) == (502, code)
        else:
            assert received == b""

    async def _see_a_reset(self, connection: trio.SocketStream, *, has_begun: bool) -> None:
        if self._is_http and not has_begun:
            await self._see_no_answer(connection, "local_service_reset")
        else:
            with pytest.raises(trio.BrokenResourceError):
                await self._receive(connection)


@kinds
@pytest.mark.parametrize("seed", range(3))
async def test_all_kinds_of_visitors_at_once(
    tunnel_to, server_sessions: list[Session], caplog: pytest.LogCaptureFixture, seed: int, kind: TunnelKind
) -> None:
    caplog.set_level(logging.WARNING, "otun")
    chance = random.Random(seed)
    place = await tunnel_to(Service(seed), kind=kind)
    before = open_descriptors()
    async with trio.open_nursery() as nursery:
        for _ in range(COUNT):
            nursery.start_soon(Visitor(place.public, kind, random.Random(chance.random())).visit)
    with trio.fail_after(10):
        await see_no_streams_left(server_sessions[0])
        while len(open_descriptors()) > len(before):
            await session_of(place.tunnel).ping()
    gc.collect()
    assert not [record.getMessage() for record in caplog.records]
