"""A nursery for tasks that work for somebody: their owner's exceptions leave it as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def open_background() -> AsyncIterator[trio.Nursery]:
    """Give a nursery that is cancelled when the body ends, and let the body's exception through unwrapped.

    It is for tasks that keep their errors to themselves, or record them for their owner: if one raises all the same,
    that is a bug, and comes out in an exception group as from any nursery.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                body_error = error
            finally:
                nursery.cancel_scope.cancel()
    except BaseException:
        # A cancelled body has no error of its own: whatever cancelled it is what must come out.
        if body_error is None or _is_cancellation(body_error):
            raise
    if body_error is not None:
        raise body_error


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_cancellation, error.exceptions))
    return isinstance(error, trio.Cancelled)
