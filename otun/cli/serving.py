"""`otun server` as a process: it serves until a signal ends it, and reads its settings again at SIGHUP."""

import logging
import os
import signal
from collections.abc import Callable
from typing import TypeAlias

import trio

from ..errors import OtunError
from ..server import ListeningSockets, Server, ServerSettings, serve
from .output import Output
from .service_manager import notify, notify_reloading

logger: logging.Logger = logging.getLogger(__name__)

Announce: TypeAlias = Callable[[ServerSettings, Server, Output], None]

ReadAgain: TypeAlias = Callable[[], tuple[ServerSettings, Callable[[], None]]]
"""Reads the settings again; what it returns beside them sets up logging by them.  Raises `OtunError`."""


class ServerProgram:
    """Serves with *settings*; *announce* says on *output* where, once that is known.

    *sockets* and *replace* are as for `serve`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        output: Output,
        announce: Announce,
        read_again: ReadAgain,
        *,
        sockets: ListeningSockets | None = None,
        replace: bool = False,
    ) -> None:
        self._settings = settings
        self._sockets = sockets
        self._replace = replace
        self._output = output
        self._announce = announce
        self._read_again = read_again
        self._server: Server | None = None

    async def run(self) -> None:
        """Serve until cancelled, or drained.  Raises what `serve` does, in a group."""
        with trio.open_signal_receiver(signal.SIGHUP) as hangups:
            async with trio.open_nursery() as nursery:

                async def run_server(task_status: trio.TaskStatus[Server]) -> None:
                    await serve(self._settings, sockets=self._sockets, replace=self._replace, task_status=task_status)
                    nursery.cancel_scope.cancel()

                self._server = await nursery.start(run_server)
                self._announce(self._settings, self._server, self._output)
                notify("READY=1")
                async for _ in hangups:
                    await self._reload(self._server)

    def finish(self) -> bool:
        """Have `run` return when what is under way has ended; false if it does not serve yet."""
        if self._server is None:
            return False
        notify("STOPPING=1")
        self._server.drain()
        return True

    async def _reload(self, server: Server) -> None:
        if self._output.is_terminal and not os.isatty(self._output.descriptor):
            self.finish()  # Whoever has started it there has closed the terminal, and wants nothing to be read.
            return
        notify_reloading()
        try:
            settings, set_up_logging = await trio.to_thread.run_sync(self._read_again, abandon_on_cancel=True)
            await server.reload(settings)
        except OtunError as error:
            logger.error("nothing was reloaded, and all settings stay as they were: %s", error)
        else:
            logger.info("the settings were read again, and are in force")
            set_up_logging()
        notify("READY=1")
