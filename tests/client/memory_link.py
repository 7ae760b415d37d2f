"""A `Link` on a clock that jumps, and the server at its other end, which is the test's."""

import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import trio
import trio.testing

from otun import OtunError, Session, SessionClosed, Stream, StreamReset, TcpAddress, open_session
from otun.background import open_background
from otun.client.connecting import SERVER_LIMITS
from otun.client.lease import Lease
from otun.client.link import Link
from otun.client.tunnel import Tunnel
from otun.control.messages import Register

SERVER: Final = TcpAddress("server.example", 4443)

Message = dict[str, object]


def grant(request: Message) -> Message:
    """Grant what is asked for; who asks for no name or port gets one."""
    name = request.get("subdomain", "given")
    is_tcp = request.get("kind") == "tcp"
    url = f"tcp://server.example:{request.get('remote_port', 20_000)}" if is_tcp else f"http://{name}.server.example"
    return {
        "type": "registered",
        "url": url,
        "subdomain": name,
        "id": request.get("id", ""),
        "stream_header": request.get("stream_header", False),
        "health": request.get("health", False),
    }


def error(code: str, *, retryable: bool = False) -> Message:
    return {"type": "error", "message": f"no: {code}", "code": code, "retryable": retryable}


@attrs.define(eq=False)
class ServerEnd:
    """The server's end of a session."""

    session: Session
    transport: trio.StapledStream
    control: Stream
    requests: list[Message] = attrs.field(factory=list)
    healths: list[Message] = attrs.field(factory=list)

    async def say(self, message: Message) -> None:
        await self.control.send_all(json.dumps(message).encode() + b"\n")

    async def drop(self) -> None:
        """Break the connection off."""
        await trio.aclose_forcefully(self.transport)

    def fall_silent(self) -> None:
        """From now on nothing comes from the server any more."""
        self.transport.send_stream.send_all_hook = trio.sleep_forever


@attrs.frozen
class Attempt:
    """When the client has tried to connect, and how long it would have waited."""

    at: float
    timeout: float


@attrs.define(eq=False)
class FakeServer:
    """Takes sessions while there is no *problem*, and answers registrations."""

    nursery: trio.Nursery
    answer: Callable[[Message], Message] = grant
    problem: OtunError | None = None
    attempts: list[Attempt] = attrs.field(factory=list)
    ends: list[ServerEnd] = attrs.field(factory=list)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @asynccontextmanager
    async def open_session(self, timeout: float) -> AsyncIterator[Session]:
        await trio.lowlevel.checkpoint()
        self.attempts.append(Attempt(trio.current_time(), timeout))
        if self.problem is not None:
            self._news.unpark_all()
            raise self.problem
        near, far = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, far)
        async with open_session(near, "client", limits=SERVER_LIMITS) as session:
            yield session

    async def _serve(self, transport: trio.StapledStream) -> None:
        async with open_session(transport, "server") as session:
            end = ServerEnd(session, transport, await session.accept())
            with suppress(SessionClosed, StreamReset):
                await self._answer(end)

    async def _answer(self, end: ServerEnd) -> None:
        received = b""
        async for piece in end.control:
            *lines, received = (received + piece).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["type"] == "health":
                    end.healths.append(message)
                if message["type"] in ("heartbeat", "health"):
                    await end.say({"type": "heartbeat_ack"})
                    continue
                end.requests.append(message)
                answer = {"resume": f"secret {len(self.ends) + 1}"} | self.answer(message)
                if answer["type"] == "registered" and len(end.requests) == 1:
                    self.ends.append(end)
                await end.say(answer)
                self._news.unpark_all()
        await end.session.wait_closed()

    async def wait_for_session(self, number: int) -> ServerEnd:
        """Wait until the client has registered so many times, the first being 0, and knows; that session's end."""
        while len(self.ends) <= number:
            await self._news.park()
        await trio.testing.wait_all_tasks_blocked()
        return self.ends[number]

    async def wait_for_attempt(self) -> None:
        """Wait until the client has tried once more to connect, in vain."""
        await self._news.park()
        await trio.testing.wait_all_tasks_blocked()

    @property
    def delays(self) -> list[float]:
        """The times between its attempts."""
        times = [attempt.at for attempt in self.attempts]
        return [round(later - before, 3) for before, later in itertools.pairwise(times)]


def longest() -> float:
    """The chance by which each delay is as long as it can be."""
    return 1.0


def never_suspended() -> float:
    return 0.0


@asynccontextmanager
async def fake_server() -> AsyncIterator[FakeServer]:
    async with trio.open_nursery() as nursery:
        yield FakeServer(nursery)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked(server: FakeServer, *requests: Register, **options: object) -> AsyncIterator[tuple[Tunnel, ...]]:
    """Open tunnels for *requests*, or one called `app`, as `open_tunnels` does."""
    leases = [Lease(request) for request in requests or (Register(subdomain="app"),)]
    link = Link(server.open_session, SERVER, leases, **({"random": longest, "suspended": never_suspended} | options))
    async with open_background() as background:
        await background.start(link.run)
        try:
            yield tuple(Tunnel(link, lease, None) for lease in leases)
        finally:
            await link.aclose()
