"""A visitor who keeps its connection, and tenants who answer for tunnels and count what reaches them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import trio

from otun import Stream, StreamReset, TcpAddress

from .raw_client import RawClient, raw_client
from .services import END_OF_HEAD, response
from .visitors import Answer, connect, parse, request


class Conversation:
    """A visitor's connection on which answers are read one by one."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, *arguments: object, **keywords: object) -> None:
        """Send a request, as `visitors.request` writes it."""
        await self.stream.send_all(request(*arguments, **keywords))  # type: ignore[arg-type]

    async def ask(self, *arguments: object, **keywords: object) -> Answer:
        """Send a request, and receive its answer."""
        await self.send(*arguments, **keywords)
        return await self.receive(method=str(keywords.get("method", "GET")))

    async def receive(self, *, method: str = "GET") -> Answer:
        """Receive the next answer, whose length its Content-Length tells, or which has no body."""
        while END_OF_HEAD not in self._received:
            await self._receive_more()
        end = self._received.index(END_OF_HEAD) + len(END_OF_HEAD)
        head = self._received[:end]
        lengths = [
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:") and method != "HEAD"
        ]
        end += sum(lengths)
        while len(self._received) < end:
            await self._receive_more()
        message, self._received = self._received[:end], self._received[end:]
        return parse(message, method=method)

    async def receive_rest(self) -> bytes:
        """Receive until the server closes in an orderly way."""
        async for piece in self.stream:
            self._received += piece
        rest, self._received = self._received, b""
        return rest

    async def _receive_more(self) -> None:
        piece = await self.stream.receive_some()
        assert piece, f"the connection ended after {self._received!r}"
        self._received += piece


@asynccontextmanager
async def conversation(public: TcpAddress) -> AsyncIterator[Conversation]:
    """Connect as a visitor."""
    async with await connect(public) as stream:
        yield Conversation(stream)


async def receive_request(stream: trio.abc.ReceiveStream, rest: bytes = b"") -> tuple[bytes, bytes, bytes]:
    """Receive a request whose length its Content-Length tells: its head, its body, what follows; b"" at the end."""
    while END_OF_HEAD not in rest:
        piece = await stream.receive_some()
        if not piece:
            assert not rest, f"the stream ended within a head: {rest!r}"
            return b"", b"", b""
        rest += piece
    head, _, rest = rest.partition(END_OF_HEAD)
    lengths = [
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    ]
    while len(rest) < sum(lengths):
        piece = await stream.receive_some()
        assert piece, "the stream ended within a body"
        rest += piece
    return head, rest[: sum(lengths)], rest[sum(lengths) :]


OnRequest = Callable[["Tenant", "trio.abc.HalfCloseableStream", int, bytes], Awaitable[None]]


async def answer_by_name(tenant: "Tenant", stream: trio.abc.HalfCloseableStream, number: int, head: bytes) -> None:
    """Answer with the tenant's name, the stream's number and the target."""
    method, target, _ = head.decode().split(" ", 2)
    answer = response(f"{tenant.name} {number} {target}".encode())
    await stream.send_all(answer.partition(END_OF_HEAD)[0] + END_OF_HEAD if method == "HEAD" else answer)


@attrs.define(eq=False)
class Tenant:
    """Whoever answers for a tunnel."""

    name: str
    client: RawClient
    url: str
    on_request: OnRequest = answer_by_name
    streams: list[Stream] = attrs.field(factory=list)
    heads: list[bytes] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def answer(self, stream: Stream) -> None:
        """Answer the requests of a stream, one after the other."""
        self.streams.append(stream)
        number = len(self.streams)
        rest = b""
        with suppress(StreamReset, trio.ClosedResourceError):  # The latter when `on_request` has closed it.
            while True:
                head, body, rest = await receive_request(stream, rest)
                if not head:
                    break
                self.heads.append(head)
                self.bodies.append(body)
                self._news.unpark_all()
                await self.on_request(self, stream, number, head)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests have come."""
        while len(self.heads) < count:
            await self._news.park()


@asynccontextmanager
async def tenant(
    control: TcpAddress, name: str, on_request: OnRequest = answer_by_name, **fields: object
) -> AsyncIterator[Tenant]:
    """Open a tunnel on a session of its own, and answer its visitors."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        client = await stack.enter_async_context(raw_client(control))
        answer = await client.register(name, **fields)
        assert answer["type"] == "registered", answer
        one = Tenant(name, client, str(answer["url"]), on_request)
        nursery.start_soon(client.serve, one.answer)
        yield one
