"""How many bytes tunnels have moved, and what is left of that after a restart or without a disk."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from otun.errors import DatabaseError
from otun.server import queries, usage
from otun.server.database import Database, open_database
from otun.server.usage import Usage

DAY = 86_400.0
NOON = 1_800_014_400.0
TODAY, TOMORROW = "2027-01-15", "2027-01-16"


@attrs.define
class Clock:
    now: float = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as database:
        yield database


async def test_what_was_saved_is_there_again(database: Database) -> None:
    one = Usage(database, Clock())
    one.add("ann", "http:app", 5)
    one.add("ann", "http:api", 2)
    one.add("bob", "http:app", 1)
    await one.save()
    one.add("ann", "http:app", 10)
    await one.save()
    await one.save()
    again = Usage(database, Clock())
    await again.load()
    for each in (one, again):
        assert [each.of("ann"), each.of("bob"), each.of("eve")] == [17, 1, 0]
        assert each.of_tunnel("ann", "http:app") == 15
        assert each.of_tunnel("ann", "http:new") == 0


async def test_each_day_begins_anew_at_midnight_utc(database: Database) -> None:
    clock = Clock()
    one = Usage(database, clock)
    one.add("ann", "http:app", 5)
    clock.now += DAY / 2
    assert one.of("ann") == 0
    one.add("ann", "http:app", 1)
    await one.save()
    assert await database.read(queries.usage_of, "ann", TODAY) == 5
    assert await database.read(queries.usage_of, "ann", TOMORROW) == 1
    clock.now += 200 * DAY
    one.add("ann", "http:app", 1)
    await one.save()
    assert await database.read(queries.usage, TODAY) == {}


async def test_a_clock_that_goes_back_gives_nothing_back() -> None:
    clock = Clock()
    one = Usage(None, clock)
    one.add("ann", "http:app", 5)
    clock.now -= DAY
    assert one.of("ann") == 5


async def test_nobody_has_to_read_the_database_anew_because_of_it(database: Database) -> None:
    before = await database.version()
    one = Usage(database, Clock())
    one.add("ann", "http:app", 5)
    await one.save()
    assert await database.version() == before


async def test_a_full_disk_is_logged_once_and_what_was_counted_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseError("otun.db", "No space left on device")

    one = Usage(database, Clock())
    with monkeypatch.context() as patch:
        patch.setattr(database, "note", fail)
        for _ in range(3):
            one.add("ann", "http:app", 5)
            await one.save()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "usage is not written down, and counts for as long as the server runs: "
        "database otun.db: No space left on device"
    ]
    await one.save()
    assert await database.read(queries.usage_of, "ann", TODAY) == 15


async def test_what_is_added_while_it_is_saved_is_not_lost(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def note(*arguments: object) -> None:
        one.add("ann", "http:app", 3)
        await real(*arguments)

    one = Usage(database, Clock())
    one.add("ann", "http:app", 5)
    real = database.note
    with monkeypatch.context() as patch:
        patch.setattr(database, "note", note)
        await one.save()
    await one.save()
    assert await database.read(queries.usage_of, "ann", TODAY) == 8


async def test_tunnels_are_told_apart_up_to_a_number(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_OF_ONE", 3)
    monkeypatch.setattr(usage, "MAX_ROWS", 6)
    one = Usage(database, Clock())
    for number in range(10):
        one.add("ann", f"http:app-{number}", 1)
    assert one.of("ann") == 10
    assert one.of_tunnel("ann", "http:app-0") == 1
    assert one.of_tunnel("ann", "http:app-8") == one.of_tunnel("ann", "http:app-9") == 7
    for number in range(10):
        one.add(f"eve-{number}", "http:app", 1)
    await one.save()
    assert len(await database.read(queries.usage, TODAY)) <= 6
