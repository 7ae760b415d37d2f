"""What is asked of the server's database, and changed in it."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from otun.server import queries
from otun.server.database import Database, open_database
from otun.server.queries import NoSuchToken, TokenNameTaken, TokenNotActive
from otun.server.records import Ban, Reservation

from .stored_tokens import SOMEBODY, details, raw, stored


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as database:
        yield database


async def test_a_name_is_never_used_twice(database: Database) -> None:
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    with pytest.raises(TokenNameTaken, match=r"^there is a token 'ci' already: choose another name$"):
        await database.write(queries.create_token, stored("ci", "other"), SOMEBODY)
    await database.write(queries.revoke_token, "ci", SOMEBODY, 1500)
    with pytest.raises(TokenNameTaken, match=r"^there is a token 'ci' already that was revoked: choose another name$"):
        await database.write(queries.create_token, stored("ci", "other"), SOMEBODY)
    assert await details(database) == [("token.create", "ci: may everything"), ("token.revoke", "ci")]


async def test_revoking_twice_keeps_the_first_time(database: Database) -> None:
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    assert (await database.write(queries.revoke_token, "ci", SOMEBODY, 1500)).revoked is None
    assert (await database.write(queries.revoke_token, "ci", SOMEBODY, 1600)).revoked == 1500
    token = await database.read(queries.find_token, "ci")
    assert (token.revoked, token.state(1)) == (1500, "revoked")
    assert len(await details(database)) == 2


async def test_a_rotated_token_has_another_hash_and_the_same_rights(database: Database) -> None:
    await database.write(queries.create_token, stored("ci", may="http:app", last_used=1100), SOMEBODY)
    await database.write(queries.rotate_token, "ci", bytes(32), SOMEBODY, 1500)
    token = await database.read(queries.find_token, "ci")
    assert (token.hash, token.may, token.last_used) == (bytes(32), "http:app", None)
    assert (await details(database))[-1] == ("token.rotate", "ci")


@pytest.mark.parametrize(("fields", "how"), [({"expires": 1500}, "has expired"), ({"revoked": 1}, "was revoked")])
async def test_a_token_that_is_not_active_gets_no_new_secret(
    database: Database, fields: dict[str, int], how: str
) -> None:
    await database.write(queries.create_token, stored("ci", **fields), SOMEBODY)
    with pytest.raises(TokenNotActive, match=f"^the token 'ci' {how}: create another one$"):
        await database.write(queries.rotate_token, "ci", bytes(32), SOMEBODY, 1500)
    assert await database.read(queries.find_token, "ci") == stored("ci", **fields)


async def test_a_token_that_does_not_exist_is_named(database: Database) -> None:
    with pytest.raises(NoSuchToken, match=r"^there is no token 'ci'$"):
        await database.read(queries.find_token, "ci")
    for query, arguments in (
        (queries.revoke_token, ("ci", SOMEBODY, 1)),
        (queries.rotate_token, ("ci", bytes(32), SOMEBODY, 1)),
    ):
        with pytest.raises(NoSuchToken):
            await database.write(query, *arguments)
    assert await details(database) == []


async def test_the_last_use_only_moves_forward_and_is_that_of_one_secret(database: Database) -> None:
    token = stored("ci")
    await database.write(queries.create_token, token, SOMEBODY)
    await database.write(queries.tokens_used, {token.hash: 1500.9, bytes(32): 1.0})
    await database.write(queries.tokens_used, {token.hash: 1400.0})
    assert (await database.read(queries.find_token, "ci")).last_used == 1500


@pytest.mark.parametrize(
    ("first", "second", "now", "result"),
    [
        (("ann", 100), ("ann", 200), 50, ("ann", 200)),
        (("ann", 200), ("ann", 100), 50, ("ann", 200)),
        (("ann", None), ("ann", 100), 50, ("ann", None)),
        (("ann", 100), ("ann", None), 50, ("ann", None)),
        (("ann", 100), ("bob", 200), 99, ("ann", 100)),
        (("ann", 100), ("bob", 200), 100, ("bob", 200)),
        (("ann", None), ("bob", None), 10**9, ("ann", None)),
    ],
)
async def test_a_reservation_is_its_identitys_until_it_ends(
    database: Database,
    first: tuple[str, int | None],
    second: tuple[str, int | None],
    now: int,
    result: tuple[str, int | None],
) -> None:
    assert await database.write(queries.reserve, Reservation("name", "app", *first), 1) == Reservation(
        "name", "app", *first
    )
    found = await database.write(queries.reserve, Reservation("name", "app", *second), now, by=SOMEBODY)
    assert found == Reservation("name", "app", *result)
    assert await database.read(queries.reservations, now) == [found]
    assert bool(await details(database)) == (result == second)


async def test_reservations_of_different_kinds_are_different(database: Database) -> None:
    wanted = [Reservation("host", "app", "ann"), Reservation("name", "app", "bob"), Reservation("port", "22", "ann", 9)]
    for each in wanted:
        assert await database.write(queries.reserve, each, 1) == each
    assert await database.read(queries.reservations, 8) == wanted
    assert await database.read(queries.reservations, 9) == wanted[:2]
    assert await database.write(queries.release, "host", "app", SOMEBODY, 5)
    assert not await database.write(queries.release, "host", "app", SOMEBODY, 5)
    assert await database.read(queries.reservations, 9) == wanted[1:2]
    assert await details(database) == [("name.release", "host app")]


async def test_usage_adds_up_by_day(database: Database) -> None:
    app, api, other = ("ann", "http:app"), ("ann", "http:api"), ("bob", "http:app")
    day, next_day = "2026-12-30", "2026-12-31"
    await database.write(queries.add_usage, {(day, *app): 5, (day, *other): 1}, day)
    await database.write(queries.add_usage, {(day, *app): 2**40, (day, *api): 7, (next_day, *app): 1}, day)
    assert await database.read(queries.usage, "2026-12-30") == {app: 2**40 + 5, api: 7, other: 1}
    assert await database.read(queries.usage_of, "ann", "2026-12-30") == 2**40 + 12
    assert await database.read(queries.usage, "2027-01-01") == {}
    assert await database.read(queries.usage_of, "ann", "2027-01-01") == 0
    await database.write(queries.add_usage, {}, next_day)
    assert await database.read(queries.usage, "2026-12-30") == {}
    assert await database.read(queries.usage, "2026-12-31") == {app: 1}


async def test_bans_hold_until_they_end(database: Database) -> None:
    for ban in (Ban("10.0.0.0/8", "old", 5), Ban("10.0.0.0/8", "scans", 50), Ban("192.0.2.7/32", "spam")):
        await database.write(queries.ban, ban, SOMEBODY, 1)
    assert await database.read(queries.bans, 49) == [Ban("10.0.0.0/8", "scans", 50), Ban("192.0.2.7/32", "spam")]
    assert await database.read(queries.bans, 50) == [Ban("192.0.2.7/32", "spam")]
    assert await database.write(queries.unban, "192.0.2.7/32", SOMEBODY, 2)
    assert not await database.write(queries.unban, "192.0.2.7/32", SOMEBODY, 2)
    assert [what for what, _ in await details(database)] == ["ban.add", "ban.add", "ban.add", "ban.remove"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET who = 'nobody'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT id, at, 'nobody', what, origin, detail FROM audit",
        "REPLACE INTO audit VALUES (1, 1, 'nobody', '', '', '')",
    ],
)
async def test_the_audit_is_only_added_to(database: Database, tmp_path: Path, statement: str) -> None:
    for number in range(3):
        await database.write(queries.record, SOMEBODY, "test", str(number), 1)
    before = await database.read(queries.audit, 9)
    with raw(tmp_path) as other, pytest.raises(sqlite3.IntegrityError, match="the audit is append-only"):
        other.execute(statement)
    assert await database.read(queries.audit, 9) == before
    assert [entry.detail for entry in await database.read(queries.audit, 2)] == ["1", "2"]
