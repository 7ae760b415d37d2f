"""Lines that come by a pipe."""

from collections.abc import AsyncIterator

import trio


async def lines_of(pipe: trio.abc.ReceiveStream) -> AsyncIterator[str]:
    """Give each line without its end; one that is unfinished when the pipe ends is none."""
    unfinished = b""
    async for piece in pipe:
        *whole, unfinished = (unfinished + piece).split(b"\n")
        for line in whole:
            yield line.decode()
