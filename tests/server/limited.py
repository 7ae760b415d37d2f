"""Servers whose token has limits."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from otun.server import queries
from otun.server.database import open_database
from otun.server.registry import Registration
from otun.server.traffic import Traffic

from .conversation import tenant
from .harness import RunningServer
from .stored_tokens import SOMEBODY, stored

NOON = 1_800_014_400.0
"""Unix time: noon of a day of UTC."""

StartLimited = Callable[..., Awaitable["Limited"]]


@attrs.define
class Clock:
    """What the server takes for Unix time."""

    now: float = NOON

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Limited:
    """A server with one token, `ci`, that has limits."""

    server: RunningServer
    traffic: Traffic
    folder: Path

    async def limit(self, limits: str | None) -> None:
        """Change them, as another process does, and wait until the server knows."""
        async with open_database(self.folder) as database:
            await database.write(queries.limit_token, "ci", limits, SOMEBODY, 1)
        while str(self.traffic._accounts["ci"].limits) != (limits or ""):
            await trio.testing.wait_all_tasks_blocked(0.01)

    def tenant(self, name: str = "app", *arguments: object, **fields: object):
        return tenant(self.server.control, name, *arguments, token="ci-secret", **fields)

    @property
    def registrations(self) -> list[Registration]:
        return [
            registration
            for account in self.traffic._accounts.values()
            for throttle in account.tunnels.values()
            for registration in throttle.registrations
        ]

    async def see_nobody(self) -> None:
        """Wait until nobody visits, and nobody waits."""
        while any(one.streams or one.owners for one in self.registrations) or any(
            throttle.has_waiters for account in self.traffic._accounts.values() for throttle in account.tunnels.values()
        ):
            await trio.testing.wait_all_tasks_blocked(0.01)


@pytest.fixture
def unix() -> Clock:
    return Clock()


@pytest.fixture
def traffics(monkeypatch: pytest.MonkeyPatch, unix: Clock) -> list[Traffic]:
    made: list[Traffic] = []

    def make(*arguments: object) -> Traffic:
        made.append(Traffic(*arguments, clock=unix))
        return made[-1]

    monkeypatch.setattr("otun.server.knowledge.Traffic", make)
    return made


@pytest.fixture
def start_limited(start_server, traffics: list[Traffic], tmp_path: Path) -> StartLimited:
    """Start a server; its token has these limits."""

    async def start(limits: str | None, **changes: object) -> Limited:
        async with open_database(tmp_path) as database:
            if not await database.read(queries.tokens):
                await database.write(queries.create_token, stored("ci", limits=limits), SOMEBODY)
        server = await start_server(state=tmp_path, **changes)
        return Limited(server, traffics[-1], tmp_path)

    return start
