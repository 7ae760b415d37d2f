"""Our sessions against hashicorp/yamux, in both roles."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

import otun

from .support import LIMIT, Start, blocks, connect

pytestmark = pytest.mark.interop

MIB = 1 << 20
WINDOWS = pytest.mark.parametrize("window", [256 * 1024, 4 * MIB], ids=["256 KiB windows", "4 MiB windows"])


@pytest.fixture
async def listener() -> AsyncIterator[trio.SocketListener]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield listener


def address_of(listener: trio.SocketListener) -> str:
    return f"127.0.0.1:{listener.socket.getsockname()[1]}"


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def send_and_compare(stream: trio.abc.HalfCloseableStream, body: bytes) -> None:
    """Send *body*, then end; what comes back meanwhile must be the same, and then end too."""

    async def send() -> None:
        await stream.send_all(body)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = b"".join([bytes(chunk) async for chunk in stream])
    assert received == body


@WINDOWS
async def test_go_opens_200_streams_and_gets_each_mib_back(
    gopeer: Path, start: Start, listener: trio.SocketListener, window: int
) -> None:
    words = ["load", "-connect", address_of(listener), "-streams", "200", "-bytes", str(MIB), "-window", str(window)]
    load = await start(gopeer, *words)
    with trio.fail_after(LIMIT):
        async with otun.open_session(await listener.accept(), "server") as session:
            with contextlib.suppress(otun.SessionClosed):  # It exits without closing its session.
                await session.serve(echo)
    await load.wait_for_success()
    assert load.output[0] == "200 passed, 0 failed"


@WINDOWS
async def test_we_open_200_streams_and_get_each_mib_back_from_go(
    gopeer: Path, start: Start, free_port: Callable[[], int], window: int
) -> None:
    port = free_port()
    await start(gopeer, "echo", "-listen", f"127.0.0.1:{port}", "-window", str(window))

    async def exchange(session: otun.Session, number: int) -> None:
        async with await session.open_stream() as stream:
            await send_and_compare(stream, b"".join(blocks(MIB, number)))

    with trio.fail_after(LIMIT):
        async with otun.open_session(await connect(port), "client") as session, trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(exchange, session, number)


async def test_more_opens_than_go_has_room_for_wait_until_it_accepts(
    gopeer: Path, start: Start, free_port: Callable[[], int]
) -> None:
    port = free_port()
    await start(gopeer, "echo", "-listen", f"127.0.0.1:{port}", "-delay", "500ms")

    async def exchange(session: otun.Session, number: int) -> None:
        async with await session.open_stream() as stream:
            await send_and_compare(stream, b"".join(blocks(1000, number)))

    with trio.fail_after(LIMIT):
        async with otun.open_session(await connect(port), "client") as session, trio.open_nursery() as nursery:
            for number in range(600):
                nursery.start_soon(exchange, session, number)


async def test_go_sends_100_mib_one_way(gopeer: Path, start: Start, listener: trio.SocketListener) -> None:
    """Its source exits without having read our last window update, and then its kernel may throw away what it sent.

    That must look cut short; and it does not happen each time.
    """
    size = 100 * MIB
    for _ in range(20):
        source = await start(gopeer, "source", "-connect", address_of(listener), "-bytes", str(size))
        received = 0
        with trio.fail_after(LIMIT):
            async with otun.open_session(await listener.accept(), "server") as session:
                stream = await session.accept()
                try:
                    async for chunk in stream:
                        received += len(chunk)
                except otun.SessionClosed:
                    assert received < size
                else:
                    assert received == size
            await source.wait_for_success()
        if received == size:
            return
    pytest.fail("the source's data never arrived whole")


async def test_we_send_100_mib_one_way_to_go(gopeer: Path, start: Start, free_port: Callable[[], int]) -> None:
    port, size = free_port(), 100 * MIB
    sink = await start(gopeer, "sink", "-listen", f"127.0.0.1:{port}")
    with trio.fail_after(LIMIT):
        async with (
            otun.open_session(await connect(port), "client") as session,
            await session.open_stream() as stream,
        ):
            for block in blocks(size):
                await stream.send_all(block)
            await stream.send_eof()
            await sink.wait_for_output(f"received {size} bytes")
