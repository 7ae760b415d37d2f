"""What the fixtures of the server's, the client's and the library's tests are made of.

One suite runs over both kinds of switchboard: on epoll, and on tasks.
"""

import gc
import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

import attrs
import pytest
import trio

from otun import Server, ServerSettings, TcpAddress, serve
from otun.switchboard.opening import HAS_EPOLL

Engine = Literal["epoll", "tasks"]

LOOPBACK: Final = TcpAddress("127.0.0.1", 0)

TCP_PORTS: Final = range(20_000, 20_101)
"""Ports for TCP tunnels.  Systems choose others when any will do, so that hardly anybody has one of these."""

REAL_LIMIT: Final = 30.0
"""Seconds that a test may take before it counts as hung.  No test is about speed."""

VIRTUAL_LIMIT: Final = 1e6
"""The same on a clock that jumps: it does so at once when everybody waits for nothing."""


def _run_with_limit(
    test: Callable[[], Awaitable[None]], *, clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> None:
    async def main() -> None:
        limit = REAL_LIMIT if clock is None else VIRTUAL_LIMIT
        with trio.CancelScope(deadline=trio.current_time() + limit) as scope:
            try:
                await test()
            finally:
                if scope.cancel_called:
                    raise AssertionError(f"the test has hung for {limit:.0f} seconds")

    trio.run(main, clock=clock, instruments=instruments)
    gc.collect(1)  # A socket that was forgotten shows in its own test.


def make_hung_tests_fail(items: list[pytest.Item], folder: Path) -> None:
    """Give the asynchronous tests in *folder* a time limit.  (pytest-trio passes autouse fixtures over.)"""
    for item in items:
        if item.path.parent == folder and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_run_with_limit), append=False)


def choose_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the switchboards that are opened from now on move bytes by *engine*."""
    if engine == "epoll" and not HAS_EPOLL:
        pytest.skip("this system has no epoll")
    monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", engine == "epoll")


def loopback_settings(**changes: object) -> ServerSettings:
    """Settings of a server on free ports of 127.0.0.1, which has some for TCP tunnels, too."""
    return ServerSettings(**({"control": LOOPBACK, "public": LOOPBACK, "tcp_ports": (TCP_PORTS,)} | changes))


@attrs.frozen
class RunningServer:
    """A server in a nursery of its own, and how to end it."""

    server: Server
    _scope: trio.CancelScope
    _ended: trio.Event

    @property
    def control(self) -> TcpAddress:
        return self.server.control_addresses[0]

    @property
    def public(self) -> TcpAddress:
        return self.server.public_addresses[0]

    @property
    def https(self) -> TcpAddress:
        return self.server.https_addresses[0]

    async def stop(self) -> None:
        """Cancel it, and wait until it is gone."""
        self._scope.cancel()
        await self.wait_ended()

    async def wait_ended(self) -> None:
        """Wait until it is gone."""
        await self._ended.wait()


async def run_server(nursery: trio.Nursery, settings: ServerSettings, **keywords: object) -> RunningServer:
    """Start a server in *nursery*; *keywords* are those of `serve`."""

    async def run(task_status: trio.TaskStatus[RunningServer]) -> None:
        ended = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as its_nursery:
                server = await its_nursery.start(partial(serve, settings, **keywords))
                task_status.started(RunningServer(server, scope, ended))
        ended.set()

    running: RunningServer = await nursery.start(run)
    return running


def open_descriptors() -> set[str]:
    """The numbers of this process's open files."""
    return set(os.listdir("/proc/self/fd"))
