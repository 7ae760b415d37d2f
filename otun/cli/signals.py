"""Ctrl-C and SIGTERM: they cancel the program's main task, so that everything it opened is closed in order.

A program that has something to finish does so at the first SIGTERM, and is cancelled by the next signal only.
"""

import os
import signal
from collections.abc import Awaitable, Callable

import trio
import typer

from ..errors import OtunError
from .exit_codes import exit_code_for_signal


def _nothing_to_finish() -> bool:
    return False


def run_until_signal(main: Callable[[], Awaitable[None]], *, finish: Callable[[], bool] = _nothing_to_finish) -> None:
    """Run *main* on Trio until it returns, raises, or a signal ends it: then raises `typer.Exit` with its code.

    At the first SIGTERM, *finish* is called: if that returns true, *main* will return by itself.  A signal after the
    one that has cancelled it ends the process on the spot, in case that closing hangs.  Raises `OtunError` when the
    system does not let Trio start.
    """
    try:
        received = trio.run(_run_beside_receiver, main, finish)
    except OSError as error:  # What *main* meets comes in a group.
        raise OtunError(f"Trio cannot start: {error.strerror}") from error
    if received is None:
        return
    # The process is ending: the same signal again (a terminal and a supervisor both send one) changes nothing.
    signal.signal(received, signal.SIG_IGN)
    raise typer.Exit(exit_code_for_signal(received))


async def _run_beside_receiver(
    main: Callable[[], Awaitable[None]], finish: Callable[[], bool]
) -> signal.Signals | None:
    received: signal.Signals | None = None

    async def receive(ending: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
        nonlocal received
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as arrivals:
            task_status.started()
            async for number in arrivals:
                if received is not None and ending.cancel_called:
                    os._exit(exit_code_for_signal(received))
                is_first, received = received is None, signal.Signals(number)
                if not (is_first and number == signal.SIGTERM and finish()):
                    ending.cancel()

    ending = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await nursery.start(receive, ending)
        with ending:
            await main()
        nursery.cancel_scope.cancel()
    return received
