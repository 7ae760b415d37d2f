"""A handler for each stream that comes, in tasks of their own, until one fails or no more streams come."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from .errors import SessionClosed, StreamReset
from .stream import Stream

Handler = Callable[[Stream], Awaitable[object]]


class Acceptor(Protocol):
    """Where streams come from, until it raises `SessionClosed`."""

    async def accept(self) -> Stream:
        """Wait for the next stream."""


async def serve_streams(acceptor: Acceptor, handler: Handler) -> None:
    """Do what `Session.serve` promises."""
    failures: list[BaseException] = []
    ended: SessionClosed | None = None

    async def handle(stream: Stream) -> None:
        try:
            await _handle_stream(handler, stream)
        except trio.Cancelled:
            raise
        except BaseException as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    nursery.start_soon(handle, await acceptor.accept())
            except SessionClosed as error:
                ended = error
    except* KeyboardInterrupt as interrupts:  # It came while this task was waiting.
        failures.extend(interrupts.exceptions)
    finally:
        if failures:
            raise failures[0]
    if ended is not None and not ended.is_clean:
        raise ended


async def _handle_stream(handler: Handler, stream: Stream) -> None:
    try:
        await handler(stream)
    except (StreamReset, SessionClosed):
        stream.reset()  # The peer's doing: it concerns nobody but this handler.
    except BaseException:
        stream.reset()
        raise
    else:
        await stream.aclose()
