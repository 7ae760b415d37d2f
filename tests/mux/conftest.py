"""Fixtures of the tests of sessions: one suite over both drivers."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from otun.mux import Session
from otun.testing import board_session_pair, session_pair

from .support import Driver, RawPeer, session_and_peer, tight_pair, tls_session_pair

REAL_LIMIT = 60.0
"""Seconds that a test may take before it counts as hung.  No test is about speed."""

VIRTUAL_LIMIT = 1e6
"""The same on a clock that jumps: it does so at once when everybody waits for nothing."""

SessionPair = AbstractAsyncContextManager[tuple[Session, Session]]
SessionAndPeer = AbstractAsyncContextManager[tuple[Session, RawPeer]]


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
        if item.path.parent == Path(__file__).parent and _is_asynchronous(item):
            item.add_marker(pytest.mark.trio(run=_run_with_limit), append=False)


def _is_asynchronous(item: pytest.Item) -> bool:
    test = getattr(item, "obj", None)
    if hasattr(test, "hypothesis"):
        test = test.hypothesis.inner_test
    return inspect.iscoroutinefunction(test)


@pytest.fixture(params=["tasks", "board", "board without epoll", "board with TLS"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Who moves the bytes: tasks over streams in memory, or either kind of switchboard over sockets."""
    if request.param == "board with TLS":
        return "TLS"
    if request.param == "board without epoll":
        monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", False)
        return "board"
    return request.param


@pytest.fixture
def open_pair(driver: Driver) -> Callable[..., SessionPair]:
    """Open a client's and a server's session that are connected."""
    return {"tasks": session_pair, "board": board_session_pair, "TLS": tls_session_pair}[driver]


@pytest.fixture
def open_tight_pair(driver: Driver) -> Callable[[], SessionPair]:
    """The same over a transport that holds next to nothing."""
    return partial(tight_pair, driver)


@pytest.fixture
def open_with_peer(driver: Driver) -> Callable[..., SessionAndPeer]:
    """Open a session, as "server" unless told otherwise, with a hand-driven peer."""
    return partial(session_and_peer, driver)
