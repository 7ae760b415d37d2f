"""The relay does the harm that it is told to, and no other."""

import random
import socket

import pytest
import trio

from ..client.support import MIB, digest_of, receive_digest
from ..interop.support import blocks
from ..server.services import start_service
from ..server.visitors import receive_exactly
from .relay import PACKET, RETRANSMISSION, Relay, open_relay

# More than the sockets on the way hold, so that both ends wait for each other.
LARGE = 20 * MIB


async def echo(connection: trio.SocketStream) -> None:
    async for piece in connection:
        await connection.send_all(piece)
    await connection.send_eof()


@pytest.fixture
async def relay(nursery: trio.Nursery):
    service = await start_service(nursery, echo)
    async with open_relay(service.address) as relay:
        yield relay


async def connect(relay: Relay) -> trio.SocketStream:
    stream = await trio.open_tcp_stream(relay.address.host, relay.address.port)
    await exchange(stream)  # It is there from one end to the other.
    return stream


async def exchange(stream: trio.SocketStream, message: bytes = b"hello") -> None:
    await stream.send_all(message)
    assert await receive_exactly(stream, len(message)) == message


async def test_bytes_and_ends_pass(relay: Relay) -> None:
    async with await connect(relay) as stream:
        await stream.send_eof()
        assert await stream.receive_some() == b""


async def test_a_delay_is_for_each_byte_and_not_for_each_piece(relay: Relay) -> None:
    async with await connect(relay) as stream, trio.open_nursery() as nursery:
        relay.delay = 0.2

        async def send() -> None:
            for block in blocks(LARGE):
                await stream.send_all(block)

        began = trio.current_time()
        nursery.start_soon(send)
        assert await receive_digest(stream, LARGE) == digest_of(LARGE)
        took = trio.current_time() - began
    assert 0.4 <= took < 0.4 * LARGE / (64 * 1024)


async def test_nothing_passes_during_a_stall_and_nothing_is_lost_by_it(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.stall()
        await stream.send_all(b"later")
        with trio.move_on_after(0.2) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught
        relay.go_on()
        assert await receive_exactly(stream, 5) == b"later"


async def test_what_was_forgotten_stays_silent_and_what_is_new_works(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.forget()
        await stream.send_all(b"is anybody there?")
        async with await connect(relay) as other:
            await exchange(other)
        with trio.move_on_after(0.2) as waiting:
            await stream.receive_some()
        assert waiting.cancelled_caught


async def test_a_cut_with_a_reset(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.cut(with_reset=True)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_cut_without(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.cut(with_reset=False)
        assert await stream.receive_some() == b""


async def test_a_reset_by_one_end_is_one_for_the_other(relay: Relay, nursery: trio.Nursery) -> None:
    async with await connect(relay) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.socket.close()
    with trio.fail_after(10):
        while relay._connections:  # noqa: ASYNC110 -- the relay tells nobody
            await trio.sleep(0.01)


async def test_bytes_drip(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.rate = 10_000
        began = trio.current_time()
        await exchange(stream, bytes(2_000))
        assert trio.current_time() - began >= 0.2


async def test_damage_turns_some_bits_over_and_keeps_the_length(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.damage = 1_000
        await stream.send_all(bytes(100_000))
        received = await receive_exactly(stream, 100_000)
    wrong = sum(map(bool, received))
    assert 0 < wrong <= relay.damaged
    assert wrong < 1_000


class Dice(random.Random):
    """Chance that comes out as told."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self._numbers = list(numbers)

    def random(self) -> float:
        return self._numbers.pop(0)


async def test_a_packet_that_is_lost_twice_comes_so_much_later(relay: Relay) -> None:
    async with await connect(relay) as stream:
        relay.loss, relay.chance = 0.5, Dice(0.1, 0.1, 0.9, 0.9)
        began = trio.current_time()
        await exchange(stream)
        assert trio.current_time() - began >= RETRANSMISSION + 2 * RETRANSMISSION


async def test_many_packets_are_lost_more_often_than_one(relay: Relay) -> None:
    relay.loss = 0.1
    for size, delay in ((1, 0.0), (20 * PACKET, RETRANSMISSION)):
        relay.chance = Dice(0.5, 0.5)
        assert relay.delay_of(bytes(size)) == delay
