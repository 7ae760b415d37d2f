"""Fixtures of the switchboard's tests: a board, socket pairs that are surely closed, an end for tests that hang."""

import contextlib
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio

from otun.switchboard import Switchboard, open_switchboard
from otun.switchboard.opening import HAS_EPOLL

REAL_LIMIT = 20.0
"""Seconds that a test may take before it counts as hung.  No test is about speed."""

VIRTUAL_LIMIT = 1e6
"""The same on a clock that jumps: it does so at once when everybody waits for nothing."""


def _run_with_limit(
    test: Callable[[], Awaitable[None]], *, clock: trio.abc.Clock | None, instruments: Sequence[trio.abc.Instrument]
) -> None:
    async def main() -> None:
        with trio.fail_after(REAL_LIMIT if clock is None else VIRTUAL_LIMIT):
            await test()

    trio.run(main, clock=clock, instruments=instruments)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make every test here fail instead of hanging.  (pytest-trio passes autouse fixtures over.)"""
    for item in items:
        if item.path.parent == Path(__file__).parent and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_run_with_limit), append=False)


@pytest.fixture(params=["epoll", "tasks"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of which kind the boards are that the test opens."""
    if request.param == "epoll" and not HAS_EPOLL:
        pytest.skip("this system has no epoll")
    monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", request.param == "epoll")
    return request.param


@pytest.fixture
async def board(kind: str) -> AsyncIterator[Switchboard]:
    """A board that runs for the whole test."""
    async with open_switchboard() as board:
        yield board


@pytest.fixture
def make_pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make connected pairs: a non-blocking socket for the board, and one for the test to use with `trio`.

    They are closed with the test if nobody has done so.
    """
    with contextlib.ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            pair = socket.socketpair()
            for sock in pair:
                stack.enter_context(sock)
                sock.setblocking(False)
            return pair

        yield make


@pytest.fixture
def make_tcp_pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """The same over TCP on 127.0.0.1, where a close can destroy what was sent."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[socket.socket, socket.socket]:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                theirs = socket.create_connection(listener.getsockname())
                ours, _ = listener.accept()
            for sock in (ours, theirs):
                stack.enter_context(sock)
                sock.setblocking(False)
            return ours, theirs

        yield make
