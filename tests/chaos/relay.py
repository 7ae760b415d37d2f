"""A link that does harm: TCP connections go through it, and are held up, cut, delayed, slowed down or damaged.

It takes no privileges.  What it cannot do is to lose packets: it shows what TCP makes of that, which is that bytes come
later.
"""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from otun.addresses import TcpAddress

from ..server.services import address_of

PIECE: Final = 64 * 1024
"""Bytes that are read at once."""

PIECES_UNDER_WAY: Final = 1024
"""Pieces in a delay line: 64 MiB, so that it does not slow anything down."""

PACKET: Final = 1448
RETRANSMISSION: Final = 0.2
"""What a packet carries, and seconds until TCP sends one again for the first time."""


@attrs.define(eq=False)
class Relay:
    """Passes connections on to *target*.  What is changed takes effect for all connections at once.

    *delay*: seconds for all bytes, each way.  *rate*: bytes a second, each way.  *loss*: the chance of a packet to be
    sent again.  *damage*: bytes of which one is damaged, on average.
    """

    target: TcpAddress
    address: TcpAddress
    chance: random.Random = attrs.field(factory=lambda: random.Random(0))
    delay: float = 0.0
    rate: float | None = None
    loss: float = 0.0
    damage: int | None = None
    damaged: int = 0
    _passes: trio.Event = attrs.field(factory=trio.Event)
    _connections: set["_Connection"] = attrs.field(factory=set)

    def stall(self) -> None:
        """Hold everything up, ends of connections too."""
        self._passes = trio.Event()

    def go_on(self) -> None:
        """End a stall."""
        self._passes.set()

    def forget(self) -> None:
        """Pass nothing on of the connections that are there, ever; neither end is told.  New ones work."""
        for connection in self._connections:
            connection.is_forgotten = True

    def cut(self, *, with_reset: bool) -> None:
        """End all connections, by an RST or a FIN."""
        for connection in list(self._connections):
            connection.cut(with_reset=with_reset)

    async def wait_until_it_passes(self) -> None:
        """Wait for the end of a stall."""
        await self._passes.wait()

    async def _serve(self, near: trio.SocketStream) -> None:
        await self.wait_until_it_passes()
        try:
            far = await trio.open_tcp_stream(self.target.host, self.target.port)
        except OSError:
            await trio.aclose_forcefully(near)
            return
        connection = _Connection(self, near, far)
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def damage_in(self, piece: bytes) -> bytes:
        """Return *piece* with some bits turned over."""
        if self.damage is None or not piece:
            return piece
        damaged = bytearray(piece)
        position = self.chance.randrange(self.damage)
        while position < len(damaged):
            damaged[position] ^= 1 << self.chance.randrange(8)
            self.damaged += 1
            position += 1 + self.chance.randrange(2 * self.damage)
        return bytes(damaged)

    def delay_of(self, piece: bytes) -> float:
        """Return how much later *piece* comes because packets of it are lost."""
        packets = -(-len(piece) // PACKET)
        lost = 1 - (1 - self.loss) ** packets
        wait, delay = RETRANSMISSION, 0.0
        while self.chance.random() < lost:
            delay += wait
            wait, lost = 2 * wait, self.loss
        return delay


@attrs.define(eq=False)
class _Connection:
    relay: Relay
    near: trio.SocketStream
    far: trio.SocketStream
    is_forgotten: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _has_reset: bool = False

    async def run(self) -> None:
        """Pass bytes on, each way, until both directions have ended or one end has broken off."""
        async with self.near, self.far:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for source, sink in ((self.near, self.far), (self.far, self.near)):
                        send, receive = trio.open_memory_channel[tuple[float, bytes]](PIECES_UNDER_WAY)
                        nursery.start_soon(self._take, source, send)
                        nursery.start_soon(self._deliver, receive, sink)
            if self._has_reset:
                for stream in (self.near, self.far):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    stream.socket.close()

    def cut(self, *, with_reset: bool) -> None:
        """End it now."""
        self._has_reset = with_reset
        self._scope.cancel()

    async def _take(self, source: trio.SocketStream, line: trio.MemorySendChannel[tuple[float, bytes]]) -> None:
        """Put what comes from *source* into the delay line; an empty piece is its end."""
        piece = b"-"
        while piece:
            try:
                piece = bytes(await source.receive_some(PIECE if self.relay.rate is None else PACKET))
            except trio.BrokenResourceError:
                await self._break()
            await line.send((trio.current_time() + self.relay.delay, piece))

    async def _deliver(self, line: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream) -> None:
        """Take it out again when it is due."""
        async for due, piece in line:
            await trio.sleep_until(due)
            await trio.sleep(self.relay.delay_of(piece))
            if self.relay.rate is not None:
                await trio.sleep(len(piece) / self.relay.rate)
            await self.relay.wait_until_it_passes()
            if self.is_forgotten:
                await trio.sleep_forever()
            try:
                if not piece:
                    await sink.send_eof()
                    return
                await sink.send_all(self.relay.damage_in(piece))
            except trio.BrokenResourceError:
                await self._break()

    async def _break(self) -> None:
        """One end has broken off: so does the other, as soon as anything passes."""
        await self.relay.wait_until_it_passes()
        if not self.is_forgotten:
            self.cut(with_reset=True)
        await trio.sleep_forever()


@asynccontextmanager
async def open_relay(target: TcpAddress) -> AsyncIterator[Relay]:
    """Give a relay to *target* on a free port of 127.0.0.1; it lets everything pass until it is told otherwise."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    relay = Relay(target, address_of(listener.socket))
    relay.go_on()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, relay._serve, [listener])
        try:
            yield relay
        finally:
            nursery.cancel_scope.cancel()
