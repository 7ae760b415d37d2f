"""An instrument that cancels an operation at a checkpoint of choice."""

from collections.abc import Awaitable, Callable
from typing import Literal

import trio

Moment = Literal["while waiting", "when woken"]


class CancelAtCheckpoint(trio.abc.Instrument):
    """Cancels *scope* at the *count*-th checkpoint of *task*.

    "while waiting": as soon as the task waits there.  "when woken": after something has already woken it, so that the
    cancellation and the news arrive together.
    """

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, count: int, moment: Moment) -> None:
        self._task = task
        self._scope = scope
        self._count = count
        self._moment = moment

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._moment == "when woken":
            self._step()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._moment == "while waiting":
            self._step()

    def _step(self) -> None:
        self._count -= 1
        if not self._count:
            self._scope.cancel()


async def cancel_at_checkpoint(operation: Callable[[], Awaitable[object]], count: int, moment: Moment) -> bool:
    """Run *operation* and cancel it at its *count*-th checkpoint; say whether it came that far."""
    scope = trio.CancelScope()
    instrument = CancelAtCheckpoint(trio.lowlevel.current_task(), scope, count, moment)
    trio.lowlevel.add_instrument(instrument)
    try:
        with scope:
            await operation()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called
