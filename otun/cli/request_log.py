"""A line for each request that went through the tunnel: how it reads, how many there may be, and who writes them."""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import attrs
import trio

from ..http.exchange import Exchange
from .escaping import escape_text, escape_visitor_text
from .output import Output

# More than a person can follow, and few enough that writing them costs the tunnel nothing.
LINES_PER_SECOND: Final = 50

# Long enough for every path that a person reads, short enough for two lines of a terminal.
_PATH_LIMIT: Final = 120
_METHOD_LIMIT: Final = 16

# Two seconds' worth.  When so many wait, nobody reads stdout (a stopped terminal, a full pipe): count, don't collect.
_WAITING_LINES: Final = 2 * LINES_PER_SECOND


@attrs.define(eq=False)
class RequestLog:
    """Turns exchanges into lines, at most `LINES_PER_SECOND` in each second of the clock.

    *now* is the time of day in seconds since 1970.  A clock that is set back merely begins a new second.
    """

    _second: int = -1
    _shown: int = 0
    _hidden: int = 0

    def __repr__(self) -> str:
        return f"<RequestLog {self._shown} shown, {self._hidden} hidden>"

    def record(self, exchange: Exchange, *, now: float) -> list[str]:
        """Return the lines to write for *exchange*: its own, the count of those left out before it, or none."""
        lines = self.flush(now=now)
        if self._shown < LINES_PER_SECOND:
            self._shown += 1
            lines.append(describe_exchange(exchange, now=now))
        else:
            self._hidden += 1
        return lines

    def leave_out(self) -> None:
        """Count an exchange for which there is to be no line."""
        self._hidden += 1

    def flush(self, *, now: float) -> list[str]:
        """Return the count of what an earlier second left out, as a line, if there is one that is due."""
        if int(now) == self._second:
            return []
        hidden, self._hidden = self._hidden, 0
        self._second, self._shown = int(now), 0
        return [f"… {hidden} more {'request' if hidden == 1 else 'requests'} not shown"] if hidden else []

    def seconds_to_flush(self, *, now: float) -> float:
        """Return how long it is until `flush` will have a line; infinite when nothing was left out."""
        if not self._hidden:
            return math.inf
        return min(1.0, max(0.0, self._second + 1 - now))

    @property
    def has_hidden(self) -> bool:
        """Whether exchanges were left out that no line has counted yet."""
        return self._hidden > 0


def describe_exchange(exchange: Exchange, *, now: float) -> str:
    """Return `12:34:56 GET /path 200 12ms`: five words, whatever the visitor sent, and the problem if there was one.

    The query is left out: it is often long, and often holds a secret.  The status is `-` where no response came.
    """
    at = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    method = escape_visitor_text(exchange.method, limit=_METHOD_LIMIT) or "-"
    path = escape_visitor_text(exchange.target.partition("?")[0], limit=_PATH_LIMIT) or "-"
    status = "-" if exchange.status is None else str(exchange.status)
    problem = f" ({escape_text(exchange.problem)})" if exchange.problem else ""
    return f"{at} {method} {path} {status} {_describe_duration(exchange.duration)}{problem}"


def _describe_duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 0.9995 else f"{seconds:.1f}s"


@attrs.define(eq=False)
class RequestPrinter:
    """Writes the lines of a `RequestLog` from a thread, so that a reader who stops cannot stop the tunnel."""

    _output: Output
    _clock: Callable[[], float] = time.time
    _log: RequestLog = attrs.field(factory=RequestLog, init=False)
    _waiting: list[str] = attrs.field(factory=list, init=False)
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __repr__(self) -> str:
        return f"<RequestPrinter {len(self._waiting)} waiting>"

    def exchange_finished(self, exchange: Exchange) -> None:
        """Take note of *exchange*; never waits."""
        had_hidden = self._log.has_hidden
        if len(self._waiting) < _WAITING_LINES:
            self._waiting += self._log.record(exchange, now=self._clock())
        else:
            self._log.leave_out()
        if self._waiting or not had_hidden:  # what is only counted need not wake the writer each time
            self._wake.set()

    async def run(self) -> None:
        """Write lines until cancelled; what is waiting then is lost."""
        while True:
            with trio.move_on_after(self._log.seconds_to_flush(now=self._clock())):
                await self._wake.wait()
            self._wake = trio.Event()
            lines, self._waiting = [*self._waiting, *self._log.flush(now=self._clock())], []
            if lines:
                await trio.to_thread.run_sync(self._output.write_line, "\n".join(lines), abandon_on_cancel=True)


@asynccontextmanager
async def open_request_printer(output: Output) -> AsyncIterator[RequestPrinter]:
    """Write the exchanges reported to the printer to *output* while the context is open."""
    async with trio.open_nursery() as nursery:
        printer = RequestPrinter(output)
        nursery.start_soon(printer.run)
        yield printer
        nursery.cancel_scope.cancel()
