"""WebSockets through the tunnel: from the 101 on, every byte is the two ends' own business.

The cases are those of Autobahn's test suite in which somebody between the two ends could go wrong.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import pytest
import trio
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode

from ..server.visitors import receive_exactly, receive_until_reset, reset
from .http_peers import Origin
from .support import blocks
from .tenants import Tenants, host
from .websocket_peers import WebSocket, echo

pytestmark = pytest.mark.interop

MIB: Final = 1024 * 1024
LARGE: Final = 16 * MIB
LENGTHS: Final = (0, 1, 125, 126, 127, 128, 65534, 65535, 65536, 65537)
"""Of payloads: around the places where a frame's length is written in another way."""

EVERY_BYTE: Final = bytes(range(256))

OpenSocket = Callable[[], AbstractAsyncContextManager[WebSocket]]


@pytest.fixture
async def open_echo(tenants: Tenants) -> OpenSocket:
    """Open WebSockets to a service that echoes frame by frame."""

    async def serve(origin: Origin) -> None:
        await echo(await WebSocket.accept(origin.stream))

    await tenants.open("one", serve)

    @asynccontextmanager
    async def open_socket() -> AsyncIterator[WebSocket]:
        async with tenants.visit() as visitor:
            yield await WebSocket.connect(visitor.stream, host("one"))

    return open_socket


@asynccontextmanager
async def both_ends(tenants: Tenants) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """An open WebSocket: the visitor's end and the origin's.  The origin keeps its end open until the body is done."""
    accepted, is_done = trio.Event(), trio.Event()
    origins: list[WebSocket] = []

    async def serve(origin: Origin) -> None:
        origins.append(await WebSocket.accept(origin.stream))
        accepted.set()
        await is_done.wait()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        websocket = await WebSocket.connect(visitor.stream, host("one"))
        await accepted.wait()
        yield websocket, origins[0]
        is_done.set()


def told(frame: Frame | None) -> tuple[Opcode, bytes, bool]:
    """What a frame says."""
    assert frame is not None, "the connection has ended"
    return frame.opcode, bytes(frame.data), frame.fin


# Frames


@pytest.mark.parametrize("payload", [b"", b"x", bytes(125), EVERY_BYTE[-125:]], ids=["empty", "1", "zeros", "binary"])
async def test_pings_are_answered_with_their_payload_in_both_directions(tenants: Tenants, payload: bytes) -> None:
    async with both_ends(tenants) as (visitor, origin):
        for asking, answering in ((visitor, origin), (origin, visitor)):
            await asking.ping(payload)
            assert told(await answering.receive()) == (Opcode.PING, payload, True)
            assert told(await asking.receive()) == (Opcode.PONG, payload, True)


async def test_a_pong_that_nobody_asked_for_arrives(tenants: Tenants) -> None:
    async with both_ends(tenants) as (visitor, origin):
        for sending, receiving in ((visitor, origin), (origin, visitor)):
            sending.protocol.send_pong(b"unasked")
            await sending.flush()
            assert told(await receiving.receive()) == (Opcode.PONG, b"unasked", True)


async def test_ten_pings_at_once_are_answered_in_order(open_echo: OpenSocket) -> None:
    async with open_echo() as websocket:
        for number in range(10):
            websocket.protocol.send_ping(b"%d" % number)
        await websocket.flush()
        assert [told(await websocket.receive())[1] for _ in range(10)] == [b"%d" % number for number in range(10)]


async def test_payloads_of_every_way_to_write_a_length_arrive(open_echo: OpenSocket) -> None:
    async with open_echo() as websocket:
        for length in LENGTHS:
            payload = b"".join(blocks(length, seed=length))
            await websocket.send(payload)
            assert told(await websocket.receive()) == (Opcode.BINARY, payload, True)


async def test_frames_keep_their_mask_and_their_shape(tenants: Tenants) -> None:
    """What a frame says could be kept in another frame.  Byte for byte, it is the same frame."""
    async with both_ends(tenants) as (visitor, origin):
        for length in LENGTHS:
            payload = b"".join(blocks(length, seed=length))
            for sending, receiving, is_masked in ((visitor, origin, True), (origin, visitor, False)):
                frame = Frame(Opcode.BINARY, payload).serialize(mask=is_masked)
                await sending.stream.send_all(frame)
                assert await receive_exactly(receiving.stream, len(frame)) == frame


async def test_frames_cut_into_single_bytes_arrive(open_echo: OpenSocket) -> None:
    async with open_echo() as websocket:
        websocket.protocol.send_text("grüße 🐟".encode(), fin=False)
        websocket.protocol.send_ping(b"between")
        websocket.protocol.send_continuation(bytes(200), fin=True)
        for data in b"".join(websocket.protocol.data_to_send()):
            await websocket.stream.send_all(bytes([data]))
        frames = [told(await websocket.receive()) for _ in range(3)]
        assert [frame for frame in frames if frame[0] is not Opcode.PONG] == [
            (Opcode.TEXT, "grüße 🐟".encode(), False),
            (Opcode.CONT, bytes(200), True),
        ]
        assert (Opcode.PONG, b"between", True) in frames


async def test_a_fragmented_message_keeps_its_fragments_and_the_control_frames_between_them(tenants: Tenants) -> None:
    pieces = ["grüße 🐟".encode()[:9], "grüße 🐟".encode()[9:], b"", bytes(126), b"end"]  # The fish is cut in two.
    async with both_ends(tenants) as (visitor, origin):
        for sending, receiving in ((visitor, origin), (origin, visitor)):
            await sending.send_fragments(*pieces, is_text=True, ping=b"still there?")
            message, frames = await receiving.receive_message()
            assert message == b"".join(pieces)
            expected = [(Opcode.TEXT, pieces[0], False)]
            for piece in pieces[1:]:
                expected += [(Opcode.PING, b"still there?", True), (Opcode.CONT, piece, piece == b"end")]
            assert [told(frame) for frame in frames] == expected
            for _ in pieces[1:]:
                assert told(await sending.receive()) == (Opcode.PONG, b"still there?", True)


async def test_frames_against_the_rules_are_for_the_ends_to_refuse(tenants: Tenants) -> None:
    async with both_ends(tenants) as (visitor, origin):
        await visitor.stream.send_all(b"\xa1\x80mask")  # A reserved bit, and no payload.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(origin.receive)  # It says good-bye, and waits for the end.
            async for _ in visitor:
                pass
        assert visitor.protocol.close_rcvd is not None
        assert visitor.protocol.close_rcvd.code == 1002


# Sizes and numbers


@pytest.mark.parametrize("fragments", [1, 256, 1000], ids="{} frames".format)
async def test_16_mib_go_both_ways_at_once(tenants: Tenants, fragments: int) -> None:
    size = -(-LARGE // fragments)

    async def send(websocket: WebSocket, data: bytes) -> None:
        await websocket.send_fragments(*[data[start : start + size] for start in range(0, LARGE, size)])

    async def receive(websocket: WebSocket, data: bytes) -> None:
        message, frames = await websocket.receive_message()
        assert message == data
        assert len(frames) == fragments

    upwards, downwards = (b"".join(blocks(LARGE, seed)) for seed in (1, 2))
    async with both_ends(tenants) as (visitor, origin), trio.open_nursery() as nursery:
        nursery.start_soon(send, visitor, upwards)
        nursery.start_soon(send, origin, downwards)
        nursery.start_soon(receive, visitor, downwards)
        nursery.start_soon(receive, origin, upwards)


async def test_100_sockets_at_once_each_have_their_own_conversation(open_echo: OpenSocket) -> None:
    count = 100
    opened = 0
    all_are_open = trio.Event()

    async def converse(number: int) -> None:
        nonlocal opened
        async with open_echo() as websocket:
            opened += 1
            if opened == count:
                all_are_open.set()
            await all_are_open.wait()
            for turn in range(5):
                message = b"%d:%d " % (number, turn) * (1 + 100 * turn)
                await websocket.send(message, is_text=True)
                assert told(await websocket.receive()) == (Opcode.TEXT, message, True)
            assert await websocket.close(1000, f"{number}") == Close(1000, f"{number}")

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(converse, number)


async def test_deflate_is_for_the_two_ends_to_agree_on(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        websocket = await WebSocket.accept(origin.stream, extensions=[ServerPerMessageDeflateFactory()])
        received.append(websocket)
        await echo(websocket)

    received: list[WebSocket] = []
    await tenants.open("one", serve)
    text = b"all work and no play " * 50_000
    async with tenants.visit() as visitor:
        websocket = await WebSocket.connect(
            visitor.stream, host("one"), extensions=[ClientPerMessageDeflateFactory(client_max_window_bits=12)]
        )
        assert [extension.name for extension in websocket.protocol.extensions] == ["permessage-deflate"]
        for _ in range(3):  # The later ones refer to the earlier.
            await websocket.send(text, is_text=True)
            assert (await websocket.receive_message())[0] == text
            await websocket.send_fragments(text[:1000], text[1000:5000], text[5000:], is_text=True, ping=b"?")
            assert (await websocket.receive_message())[0] == text
        assert await websocket.close(1000) == Close(1000, "")
    assert max(websocket.bytes_received, received[0].bytes_received) < len(text)


# The end


CODES: Final = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
REASONS: Final = ("", "bye", "ü" * 60 + "123")
"""The last one is as long as a reason may be."""


@pytest.mark.parametrize("closing", ["visitor", "origin"])
async def test_close_codes_and_reasons_arrive(tenants: Tenants, closing: str) -> None:
    tell, heard_by_origin = trio.open_memory_channel[Close | None](1)

    async def listen(websocket: WebSocket) -> Close | None:
        async for _ in websocket:
            pass
        return websocket.protocol.close_rcvd

    async def serve(origin: Origin) -> None:
        websocket = await WebSocket.accept(origin.stream)
        tell.send_nowait(await (listen(websocket) if closing == "visitor" else websocket.close(*saying)))

    await tenants.open("one", serve)
    for saying in [(), *[(code, REASONS[number % 3]) for number, code in enumerate(CODES)]]:
        expected = Close(*saying) if saying else Close(1005, "")
        async with tenants.visit() as visitor:
            websocket = await WebSocket.connect(visitor.stream, host("one"))
            heard = await (websocket.close(*saying) if closing == "visitor" else listen(websocket))
        assert (heard, await heard_by_origin.receive()) == (expected, expected)


async def test_what_is_sent_before_the_close_arrives_first(tenants: Tenants) -> None:
    async with both_ends(tenants) as (visitor, origin):
        data = b"".join(blocks(2 * MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.send, data)
            assert (await origin.receive_message())[0] == data
        origin.protocol.send_binary(data)
        origin.protocol.send_close(1001, "that was all")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(origin.flush)
            assert (await visitor.receive_message())[0] == data
            assert told(await visitor.receive())[0] is Opcode.CLOSE
        assert await origin.receive() is not None
        assert origin.protocol.close_rcvd == Close(1001, "that was all")


@pytest.mark.parametrize("leaving", ["visitor", "origin"])
async def test_a_reset_is_no_orderly_end(tenants: Tenants, leaving: str) -> None:
    async with both_ends(tenants) as (visitor, origin):
        leaver, other = (visitor, origin) if leaving == "visitor" else (origin, visitor)
        await leaver.send(b"first")
        assert told(await other.receive())[1] == b"first"
        reset(leaver.stream)
        assert await receive_until_reset(other.stream) == b""
