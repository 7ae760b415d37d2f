"""Blocking calls in threads, none of which anybody has to wait for."""

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import trio

from .failures import AuthorityUnavailable
from .wording import in_words

THREADS: Final = 8
"""Threads: one for each order at a time, and as many that were given up and still wait for an answer."""

CALL_LIMIT: Final = 90.0
"""Seconds for a call: the request, a new nonce, and the request again, none of which is as slow as it may be."""

_Ts = TypeVarTuple("_Ts")
_T = TypeVar("_T")


class Worker:
    """Runs the blocking calls of one `Issuer`."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)

    async def run(self, call: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """Return what *call* returns.  Raises `AuthorityUnavailable` when it takes too long.

        Cancelled, it leaves the thread to itself.
        """
        with trio.move_on_after(CALL_LIMIT):
            return await trio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True, limiter=self._limiter)
        raise AuthorityUnavailable(f"did not answer within {in_words(CALL_LIMIT)}")
