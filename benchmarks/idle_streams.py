"""One end of a session with many idle streams; benchmarks/memory.py runs two of these and weighs them.

    idle_streams.py server             prints its port, echoes a byte on each stream and keeps the stream
    idle_streams.py client PORT N      opens a stream, prints "ready", waits for a line, opens N more, prints "open N"

Neither keeps a task for a stream: what is weighed is the library's stream, not Trio's task.
"""

import gc
import sys

import trio

import otun


async def read_line() -> None:
    await trio.to_thread.run_sync(sys.stdin.readline)


async def serve() -> None:
    async def tell() -> None:
        await read_line()
        gc.collect()
        print(f"holds {len(held)}", flush=True)

    held: list[trio.abc.HalfCloseableStream] = []
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    transport = await listener.accept()
    async with otun.open_session(transport, "server") as session, trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        while True:
            stream = await session.accept()
            await stream.send_all(await stream.receive_some(1))
            held.append(stream)


async def connect(port: int, count: int) -> None:
    transport = await trio.open_tcp_stream("127.0.0.1", port)
    async with otun.open_session(transport, "client") as session:

        async def open_one() -> trio.abc.HalfCloseableStream:
            stream = await session.open_stream()
            await stream.send_all(b"x")
            if await stream.receive_some(1) != b"x":
                raise AssertionError("a stream did not echo its byte")
            return stream

        held = [await open_one()]
        gc.collect()
        print("ready", flush=True)
        await read_line()
        held += [await open_one() for _ in range(count)]
        gc.collect()
        print(f"open {count}", flush=True)
        await read_line()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        trio.run(serve)
    else:
        trio.run(connect, int(sys.argv[2]), int(sys.argv[3]))
