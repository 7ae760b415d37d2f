"""The whole path, for the smuggling tests: a server, the tunnels ``app.test`` and ``other.test``, an origin at each.

It runs in a thread of its own, so that many tests can play on one stage.  They play one after the other.
"""

import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from otun import Exchange, SessionClosed, TcpAddress, forward

from ..server.harness import loopback_settings, run_server
from ..server.services import start_service
from ..server.visitors import connect, fetch
from .cases import CANARY_BYTES, RequestCase, ResponseCase
from .lax_reading import Laxness
from .messages import Ending, Request
from .origins import SYNC, LaxReader, Origin, StrictReader, send_dripping

P = ParamSpec("P")
T = TypeVar("T")

TUNNELS: Final = ("app", "other")

PLAY_LIMIT: Final = 5.0
"""Seconds without an end after which a visitor has been left hanging."""


@attrs.frozen
class Played:
    """What came of it: the visitor's view, the origins', and the client's.

    *seen* are the requests in the order in which some origin had read them, *wires* the bytes of each connection to an
    origin, with its tunnel; *exchanges* are what the clients reported for their request logs.
    """

    received: bytes
    ending: Ending
    seen: tuple[Request, ...]
    wires: tuple[tuple[str, bytes], ...]
    exchanges: tuple[Exchange, ...]


@attrs.define(eq=False)
class Stage:
    """Where cases are played.  *public* is the address of the edge."""

    public: TcpAddress
    origins: tuple[Origin, ...]
    seen: list[Request]
    exchanges: list[Exchange]

    async def play_request(self, case: RequestCase, laxness: Laxness | None, *, is_dripping: bool = False) -> Played:
        """Send *case*, byte by byte if it is to drip; without a *laxness* the origins are strict."""
        for origin in self.origins:
            origin.make_reader = StrictReader if laxness is None else partial(LaxReader, laxness=laxness)
            origin.script = None
        return await self._play(case.wire, sends_eof=case.then == "end", is_dripping=is_dripping)

    async def play_response(self, case: ResponseCase, *, is_dripping: bool = False) -> Played:
        """Ask for what *case* answers, byte by byte if it is to drip, and for the canary behind it."""
        for origin in self.origins:
            origin.make_reader, origin.script, origin.is_dripping = StrictReader, case, is_dripping
        return await self._play(case.asked + CANARY_BYTES, sends_eof=False, is_dripping=False)

    async def _play(self, sent: bytes, *, sends_eof: bool, is_dripping: bool) -> Played:
        self.seen.clear()
        self.exchanges.clear()
        for origin in self.origins:
            origin.wires.clear()
        received, ending = await self._visit(sent, sends_eof=sends_eof, is_dripping=is_dripping)
        with trio.fail_after(PLAY_LIMIT):
            # A stream that was opened for the visitor, even in vain, was opened before these.
            for tunnel in TUNNELS:
                answer = await fetch(self.public, SYNC, host=f"{tunnel}.test")
                assert answer.status == 200
            for origin in self.origins:
                await origin.wait_idle()
        wires = tuple((origin.tunnel, bytes(wire)) for origin in self.origins for wire in origin.wires)
        exchanges = tuple(exchange for exchange in self.exchanges if exchange.target != SYNC)
        return Played(received, ending, tuple(self.seen), wires, exchanges)

    async def _visit(self, sent: bytes, *, sends_eof: bool, is_dripping: bool) -> tuple[bytes, Ending]:
        received = bytearray()
        ending: Ending = "silence"

        async def send(visitor: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):  # It need not all be read.
                await send_dripping(visitor, sent) if is_dripping else await visitor.send_all(sent)
                if sends_eof:
                    await visitor.send_eof()

        async with await connect(self.public) as visitor:
            with trio.move_on_after(PLAY_LIMIT):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send, visitor)
                    ending = await _receive_until_end(visitor, received)
                    nursery.cancel_scope.cancel()
        return bytes(received), ending


async def _receive_until_end(visitor: trio.SocketStream, received: bytearray) -> Ending:
    try:
        async for piece in visitor:
            received += piece
    except trio.BrokenResourceError:
        return "reset"
    return "end"


@asynccontextmanager
async def open_stage() -> Iterator[Stage]:
    """Start everything; the `engine` in force moves the bytes."""
    seen: list[Request] = []
    exchanges: list[Exchange] = []
    origins = tuple(Origin(tunnel, seen) for tunnel in TUNNELS)

    async def run_tunnel(
        server: TcpAddress, origin: Origin, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        service = await start_service(nursery, origin.handle)
        with suppress(SessionClosed):
            await forward(
                server, service.address, name=origin.tunnel, on_exchange=exchanges.append, task_status=task_status
            )

    async with trio.open_nursery() as nursery:
        server = await run_server(nursery, loopback_settings(domain="test"))
        for origin in origins:
            await nursery.start(run_tunnel, server.control, origin)
        yield Stage(server.public, origins, seen, exchanges)
        nursery.cancel_scope.cancel()


@attrs.frozen
class RunningStage:
    """A stage in a thread of its own."""

    stage: Stage
    _token: trio.lowlevel.TrioToken

    def run(self, play: Callable[P, Awaitable[T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Call *play* on the stage's thread, and wait for what it returns."""
        return trio.from_thread.run(partial(play, *arguments, **options), trio_token=self._token)


@contextmanager
def running_stage() -> Iterator[RunningStage]:
    """Open a stage in a thread, until the body ends."""
    started: queue.SimpleQueue[RunningStage | BaseException] = queue.SimpleQueue()
    stop = trio.Event()

    async def main() -> None:
        async with open_stage() as stage:
            started.put(RunningStage(stage, trio.lowlevel.current_trio_token()))
            await stop.wait()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            started.put(error)
            raise

    thread = threading.Thread(target=run, name="stage")
    thread.start()
    running = started.get()
    if isinstance(running, BaseException):
        thread.join()
        raise running
    try:
        yield running
    finally:
        trio.from_thread.run_sync(stop.set, trio_token=running._token)
        thread.join()
