"""The server's database: what it is found as, and what becomes of it."""

import os
import secrets
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import pytest
import trio

from otun.errors import ConfigurationError, DatabaseError
from otun.server import database as database_module
from otun.server import queries, schema
from otun.server.database import FILE_NAME, Database, NoDatabase, open_database
from otun.server.records import AuditEntry

from .stored_tokens import SOMEBODY, details, make, names_in, raw, stored


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as database:
        yield database


async def test_all_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    async with open_database(folder) as database:
        await database.write(queries.create_token, stored("ci"), SOMEBODY)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert files == {"otun.db": 0o600, "otun.db-wal": 0o600, "otun.db-shm": 0o600}
    assert os.listdir(folder) == ["otun.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_root_makes_a_database_for_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    async with open_database(tmp_path) as database:
        await database.write(queries.create_token, stored("ci"), SOMEBODY)
        owners = {name: (tmp_path / name).stat().st_uid for name in os.listdir(tmp_path)}
    assert owners == {"otun.db": 65534, "otun.db-wal": 65534, "otun.db-shm": 65534}


async def test_a_database_is_made_only_where_one_is_wanted(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with pytest.raises(NoDatabase, match=f"^state folder {folder} is no server's yet: there is no otun.db in it$"):
        await names_in(folder)
    assert not folder.exists()


async def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    token = stored("ci", may="http:app", max_tunnels=3, expires=2000)
    async with open_database(tmp_path) as database:
        await database.write(queries.create_token, token, SOMEBODY)
    async with open_database(tmp_path) as database:
        assert await database.read(queries.tokens) == [token]
        assert await database.read(queries.find_token, "ci") == token
        assert await database.read(queries.audit, 9) == [
            AuditEntry(
                1000,
                "ann (uid 1000)",
                "token.create",
                "cli",
                "ci: may http:app, at most 3 tunnels, expires at 2000",
            )
        ]


async def test_a_write_happens_whole_or_not_at_all(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        queries.create_token(connection, stored("ci"), SOMEBODY)
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(fail)
    assert await database.read(queries.tokens) == []
    assert await details(database) == []
    await database.write(queries.create_token, stored("ci"), SOMEBODY)


async def test_a_write_that_has_begun_when_it_is_cancelled_has_happened(database: Database) -> None:
    def create(connection: sqlite3.Connection) -> None:
        queries.create_token(connection, stored("ci"), SOMEBODY)
        trio.from_thread.run_sync(scope.cancel)

    with trio.CancelScope() as scope:
        await database.write(create)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert [token.name for token in await database.read(queries.tokens)] == ["ci"]


async def test_one_thread_at_a_time_uses_it(database: Database) -> None:
    inside = 0

    def look(connection: sqlite3.Connection) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        trio.from_thread.run(trio.lowlevel.checkpoint)
        assert connection.execute("SELECT 1").fetchone() == (1,)
        inside -= 1

    async with trio.open_nursery() as nursery:
        for call in (database.read, database.write) * 8:
            nursery.start_soon(call, look)


async def test_its_version_tells_whether_anybody_has_changed_it(database: Database, tmp_path: Path) -> None:
    seen = [await database.version()]
    await database.read(queries.tokens)
    assert await database.version() == seen[0]
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    seen.append(await database.version())
    async with open_database(tmp_path) as other:
        await other.write(queries.revoke_token, "ci", SOMEBODY, 1)
        seen.append(await database.version())
    assert len(set(seen)) == 3
    assert await database.version() == seen[2]


async def test_a_writer_that_hangs_hinders_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT", 0)
    await make(tmp_path, "ci")
    async with open_database(tmp_path) as database:
        with raw(tmp_path) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("DELETE FROM tokens")
            with pytest.raises(DatabaseError, match="another process has kept it locked"):
                await database.write(queries.revoke_token, "ci", SOMEBODY, 1)
            assert (await database.read(queries.find_token, "ci")).revoked is None
            assert await names_in(tmp_path) == ["ci"]
        await database.write(queries.revoke_token, "ci", SOMEBODY, 1)


def damage_all(path: Path) -> None:
    path.write_bytes(b"\xf0\x9f\x92\xa5 not a database " * 400)


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    os.truncate(path, 9000)


@pytest.mark.parametrize("damage", [damage_all, damage_pages, cut_off])
async def test_a_damaged_database_is_named_with_what_to_do(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    await make(tmp_path, "ci")
    path = tmp_path / FILE_NAME
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        await names_in(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"database {path} is damaged (")
    assert "restore it from a backup, or move it and the files otun.db-wal and otun.db-shm away" in message
    assert "\n" not in message
    assert path.read_bytes() == before


async def test_damage_that_shows_later_is_a_database_error(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        with pytest.raises(DatabaseError, match=r"UTF-8"):
            await database.read(lambda connection: connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchone())


NEWER = ("ALTER TABLE tokens RENAME COLUMN hash TO digest", "PRAGMA user_version = 99")


@pytest.mark.parametrize("statements", [NEWER, ("DROP TABLE tokens",)], ids=["a newer otun", "by hand"])
async def test_tables_that_are_changed_under_a_running_server_are_a_database_error(
    database: Database, tmp_path: Path, statements: tuple[str, ...]
) -> None:
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    with raw(tmp_path) as other:
        for statement in statements:
            other.execute(statement)
    complaint = r"its tables are not this otun's any more \(no such (column|table): .*has a newer one been installed\?$"
    with pytest.raises(DatabaseError, match=complaint):
        await database.read(queries.tokens)
    with pytest.raises(DatabaseError, match=complaint):
        await database.note(queries.tokens_used, {bytes(32): 1.0})
    assert await database.read(queries.bans, 0) == []


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("PRAGMA user_version = 99", "a newer otun has made it: it has version 99, and this otun knows 2"),
        ("PRAGMA application_id = 7", "it belongs to another program"),
    ],
)
async def test_a_database_that_we_do_not_know_is_left_alone(tmp_path: Path, statement: str, complaint: str) -> None:
    await make(tmp_path, "ci")
    with raw(tmp_path) as other:
        other.execute(statement)
    with pytest.raises(ConfigurationError, match=f"^database {tmp_path}/otun.db: {complaint}; give the server another"):
        await names_in(tmp_path)
    with raw(tmp_path) as other:
        assert other.execute("SELECT name FROM tokens").fetchall() == [("ci",)]


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with raw(tmp_path) as other:
        other.execute("CREATE TABLE tokens (name)")
    with pytest.raises(ConfigurationError, match="it belongs to another program"):
        await make(tmp_path)
    with raw(tmp_path) as other:
        assert other.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch(0o600)
    await make(tmp_path, "ci")
    assert await names_in(tmp_path) == ["ci"]


async def test_an_older_database_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(tmp_path, "ci")
    more = "ALTER TABLE tokens ADD COLUMN note TEXT", "UPDATE tokens SET note = upper(name)"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, more))
    assert await names_in(tmp_path) == ["ci"]
    assert await names_in(tmp_path) == ["ci"]
    with raw(tmp_path) as other:
        assert other.execute("SELECT note FROM tokens").fetchall() == [("CI",)]
        assert other.execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_database_of_version_1_keeps_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        async with open_database(tmp_path):
            pass
    old = "name, hash, may, max_tunnels, created, expires, revoked, last_used"
    token = ("ci", bytes(32), "http:app", 3, 1000, 2000, None, 1500)
    with raw(tmp_path) as other:
        other.execute(f"INSERT INTO tokens ({old}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", token)
        other.execute("INSERT INTO usage VALUES ('2026-12-30', 'ci', 5)")
        other.execute("INSERT INTO audit (at, who, what, origin, detail) VALUES (1, 'a', 'token.create', 'cli', 'ci')")
    async with open_database(tmp_path) as database:
        (found,) = await database.read(queries.tokens)
        assert attrs.astuple(found) == (*token, None)
        assert await database.read(queries.usage_of, "ci", "2026-12-30") == 5
        assert await details(database) == [("token.create", "ci")]
        await database.write(queries.limit_token, "ci", "requests=9", SOMEBODY, 1)
        await database.write(queries.add_usage, {("2026-12-30", "ci", "http:app"): 2}, "2026-12-30")
        assert (await database.read(queries.find_token, "ci")).limits == "requests=9"
        assert await database.read(queries.usage_of, "ci", "2026-12-30") == 7


async def test_a_migration_happens_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(tmp_path, "ci")
    broken = "ALTER TABLE tokens ADD COLUMN note TEXT", "UPDATE missing SET note = 1"
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await names_in(tmp_path)
    assert await names_in(tmp_path) == ["ci"]
    with raw(tmp_path) as other, pytest.raises(sqlite3.OperationalError, match="no such column"):
        other.execute("SELECT note FROM tokens")


async def test_who_is_slower_to_make_a_database_takes_the_one_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_overtaken(size: int) -> str:
        monkeypatch.setattr("secrets.token_hex", token_hex)
        trio.run(make, tmp_path, "ci")  # This is a thread without Trio.
        return token_hex(size)

    token_hex = secrets.token_hex
    monkeypatch.setattr("secrets.token_hex", be_overtaken)
    await make(tmp_path, "slower")
    assert secrets.token_hex is token_hex
    assert await names_in(tmp_path) == ["ci", "slower"]
    assert os.listdir(tmp_path) == [FILE_NAME]


async def test_a_log_without_its_database_is_not_taken_over(tmp_path: Path) -> None:
    async with open_database(tmp_path):
        (tmp_path / FILE_NAME).rename(tmp_path / "moved")
        with pytest.raises(ConfigurationError, match=r"is missing, but not .*otun\.db-wal: move that away, too"):
            await make(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link"])
async def test_only_a_regular_file_is_a_database(tmp_path: Path, kind: str) -> None:
    path = tmp_path / FILE_NAME
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match=f"^database {path}: it is no regular file$"):
        await make(tmp_path)


@pytest.mark.parametrize(
    ("folder", "reason"), [("/dev/null", "Not a directory"), ("/dev/null/x", "Not a directory"), ("/proc/x", "No such")]
)
async def test_a_folder_that_cannot_be_used_is_named(folder: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^database {folder}/otun.db: {reason}"):
        await make(Path(folder))
