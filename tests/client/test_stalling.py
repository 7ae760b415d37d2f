"""One that stops reading is held back by flow control, and holds no more than a window; nobody else notices."""

import gc
from typing import Final

import trio

from otun.client.opening import TunnelKind
from otun.http.head import MAX_HEAD_SIZE
from otun.mux import Patch
from otun.server.upstream import Upstream
from otun.server.visitor import HEAD_READ_SIZE, Visitor

from ..server.services import receive_head, response
from ..server.visitors import connect, fetch, receive_answer, receive_exactly, request
from .support import MIB, blocks, digest_of, kinds, receive_digest, session_of

WINDOW: Final = MIB

PLENTY: Final = 200 * MIB
"""Far more than a window and everything that the kernel's sockets may hold on the way."""

KERNEL: Final = 4 * (4 + 32) * MIB
"""What four sockets may hold by this system's own limits; it is far less in practice."""


class Flood:
    """A service that sends or takes `PLENTY`, and counts; what asks for another path is answered as usual."""

    def __init__(self) -> None:
        self.sent = 0
        self.may_read = trio.Event()

    async def send(self, connection: trio.SocketStream) -> None:
        head, _ = await receive_head(connection)
        if b"/flood" not in head:
            await connection.send_all(response(head.split(b" ")[1]))
            return
        await connection.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PLENTY)
        for block in blocks(PLENTY):
            await connection.send_all(block)
            self.sent += len(block)

    async def take_later(self, connection: trio.SocketStream) -> None:
        head, start = await receive_head(connection)
        if b"/flood" in head:
            await self.may_read.wait()
            await connection.send_all(response((await receive_digest(connection, PLENTY, start)).encode()))
        else:
            await connection.send_all(response(head.split(b" ")[1]))


def check_stores() -> None:
    """Nobody in this process keeps more of what a socket or a stream does not take than a window, as it has grown.

    Beyond that there is a head at most, which is another one than that which came.
    """
    for thing in gc.get_objects():
        if isinstance(thing, Patch):
            assert len(thing.unsent or b"") <= thing._stream.window
        elif isinstance(thing, Visitor):
            window = sum(upstream.stream.window for upstream in thing._upstreams.values())
            assert len(thing.unsent or b"") <= window + MAX_HEAD_SIZE
            assert len(thing._unread) <= HEAD_READ_SIZE
        elif isinstance(thing, Upstream):
            assert len(thing._pending) <= MAX_HEAD_SIZE


async def fetch_often(place, count: int = 100) -> None:
    for number in range(count):
        answer = await fetch(place.public, f"/{number}")
        assert answer.text == f"/{number}", answer.text[-400:]


@kinds
async def test_a_visitor_who_stops_reading_holds_at_most_a_window(tunnel_to, kind: TunnelKind) -> None:
    flood = Flood()
    place = await tunnel_to(flood.send, kind=kind)
    async with await connect(place.public) as stalled:
        await stalled.send_all(request("/flood"))
        await receive_exactly(stalled, 100)
        await fetch_often(place)
        held = flood.sent
        assert WINDOW // 2 < held < PLENTY // 2
        check_stores()
        await fetch_often(place)
        assert flood.sent - held <= KERNEL
        assert flood.sent < PLENTY - MIB


@kinds
async def test_others_are_served_as_before_and_the_service_goes_on_sending_to_them(tunnel_to, kind: TunnelKind) -> None:
    flood = Flood()
    place = await tunnel_to(flood.send, kind=kind)
    async with await connect(place.public) as stalled, await connect(place.public) as reader:
        await stalled.send_all(request("/flood"))
        await receive_exactly(stalled, 100)
        await fetch_often(place, 20)
        await reader.send_all(request("/flood"))
        _, start = await receive_head(reader)
        assert await receive_digest(reader, PLENTY, start) == digest_of(PLENTY)
        check_stores()


@kinds
async def test_a_visitor_who_reads_on_gets_everything(tunnel_to, kind: TunnelKind) -> None:
    flood = Flood()
    place = await tunnel_to(flood.send, kind=kind)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/flood"))
        _, start = await receive_head(visitor)
        await fetch_often(place, 20)
        assert await receive_digest(visitor, PLENTY, start) == digest_of(PLENTY)


@kinds
async def test_a_service_that_stops_reading_holds_its_visitor_back(tunnel_to, kind: TunnelKind) -> None:
    flood = Flood()
    place = await tunnel_to(flood.take_later, kind=kind)
    sent = 0

    async def upload(visitor: trio.SocketStream) -> None:
        nonlocal sent
        await visitor.send_all(b"POST /flood HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % PLENTY)
        for block in blocks(PLENTY):
            await visitor.send_all(block)
            sent += len(block)

    async with await connect(place.public) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(upload, visitor)
        await fetch_often(place)
        assert WINDOW // 2 < sent < PLENTY // 2
        check_stores()
        flood.may_read.set()
        assert (await receive_answer(visitor)).text == digest_of(PLENTY)


@kinds
async def test_many_stalled_visitors_do_not_stop_the_others(tunnel_to, kind: TunnelKind) -> None:
    count = 30
    flood = Flood()
    place = await tunnel_to(flood.send, kind=kind)
    stalled = [await connect(place.public) for _ in range(count)]
    for visitor in stalled:
        await visitor.send_all(request("/flood"))
        await receive_exactly(visitor, 100)
    await fetch_often(place)
    assert flood.sent < count * PLENTY // 2
    check_stores()
    for visitor in stalled:
        await trio.aclose_forcefully(visitor)
    await fetch_often(place, 20)


@kinds
async def test_a_stalled_visitor_who_leaves_frees_what_he_held(tunnel_to, kind: TunnelKind) -> None:
    flood = Flood()
    place = await tunnel_to(flood.send, kind=kind)
    async with await connect(place.public) as stalled:
        await stalled.send_all(request("/flood"))
        await receive_exactly(stalled, 100)
        await fetch_often(place, 20)
    with trio.fail_after(10):
        while place.service.connections:
            await session_of(place.tunnel).ping()
    await fetch_often(place, 20)
