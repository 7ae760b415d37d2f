"""The end of a server: nobody else comes in, and what is under way may go on for a while."""

import logging

import trio

from .configuration import Configuration
from .control_port import FAREWELL_TIMEOUT
from .hub import Hub

logger: logging.Logger = logging.getLogger(__name__)


class Draining:
    """Waits for a server's end, and brings it about."""

    def __init__(self, hub: Hub, configuration: Configuration) -> None:
        self._hub = hub
        self._configuration = configuration
        self._begun = trio.Event()

    @property
    def is_under_way(self) -> bool:
        """Whether it has begun."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Let nobody else in.  Whoever is there is told, as far as that is possible; once is enough."""
        if self.is_under_way:
            return
        self._begun.set()
        hub = self._hub
        hub.drain()
        logger.info(
            "draining: %d clients, and %d visitors, who may stay for %g s",
            len(hub.clients),
            hub.visitors,
            self._configuration.settings.drain,
        )

    async def run(self) -> None:
        """Wait for `begin`, and then until all visitors have left or their time is over."""
        await self._begun.wait()
        with trio.move_on_after(self._configuration.settings.drain):
            await self._hub.wait_for_visitors()
        cut_short = self._hub.visitors
        with trio.move_on_after(FAREWELL_TIMEOUT):
            await self._hub.dismiss_clients()
        logger.info("drained: %s", f"{cut_short} visitors were cut short" if cut_short else "nobody was cut short")
