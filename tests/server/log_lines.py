"""The lines of the server's log, as they come."""

import logging
import re

import trio


class LogLines(logging.Handler):
    """Keeps what is logged, in Trio's thread, without the addresses and ports of those it is about."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._news = trio.lowlevel.ParkingLot()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        assert record.exc_info is None, line
        assert line.isprintable(), repr(line)
        self.lines.append(re.sub(r"^(client|visitor) [0-9.]+:\d+: ", r"\1: ", line))
        self._news.unpark_all()

    async def wait_for(self, count: int) -> list[str]:
        """Wait until there are so many; all that there are."""
        while len(self.lines) < count:
            await self._news.park()
        return self.lines
