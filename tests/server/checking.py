"""Log-ins whose checking is in the test's hands."""

import threading
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from otun.access.passwords import Login
from otun.server.visitor_access import VisitorAccess

from ..access.logins import authorization, cheap_login

__all__ = ["Checks", "authorization", "cheap_login", "wait_until"]


@attrs.define(eq=False)
class Checks:
    """The passwords that were checked, in order.  While they are *held*, checks do not end."""

    passwords: list[str] = attrs.field(factory=list)
    running: int = 0
    most_running: int = 0
    _may_end: threading.Event = attrs.field(factory=threading.Event)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def watch(cls, monkeypatch: pytest.MonkeyPatch) -> "Checks":
        checks = cls()
        checks._may_end.set()
        is_right = Login.is_right

        def check(login: Login, password: str) -> bool:
            with checks._lock:
                checks.passwords.append(password)
                checks.running += 1
                checks.most_running = max(checks.most_running, checks.running)
            try:
                assert checks._may_end.wait(20)
                return is_right(login, password)
            finally:
                with checks._lock:
                    checks.running -= 1

        monkeypatch.setattr(Login, "is_right", check)
        return checks

    def hold(self) -> None:
        self._may_end.clear()

    def let_go(self) -> None:
        self._may_end.set()


async def wait_until(condition: Callable[[], bool], turn: Callable[[], Awaitable[object]]) -> None:
    """Do something that takes a turn of the other side's, until *condition* is true."""
    with trio.fail_after(20):
        while not condition():
            await turn()


@attrs.define(eq=False)
class Accesses:
    """What checks the visitors of each server that was started."""

    made: list[VisitorAccess] = attrs.field(factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def make(*arguments: object, **keywords: object) -> VisitorAccess:
            self.made.append(VisitorAccess(*arguments, **keywords))
            return self.made[-1]

        monkeypatch.setattr("otun.server.http_port.VisitorAccess", make)

    @property
    def waiting(self) -> int:
        (access,) = self.made
        return sum(access._waiting.values())

    @property
    def remembered(self) -> tuple[int, int, int]:
        """Failures, proven log-ins, checks."""
        (access,) = self.made
        return len(access._failures), len(access.proven), len(access._checks)
