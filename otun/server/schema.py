"""The tables of the server's database, and how they came to be: each version is made of the one before it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

APPLICATION_ID: Final = int.from_bytes(b"otun", "big")
"""Stands in the file's header (`PRAGMA application_id`) and says whose database it is."""

_FIRST: Final = (
    """CREATE TABLE tokens (
        name TEXT PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE CHECK (typeof(hash) = 'blob' AND length(hash) = 32),
        may TEXT CHECK (typeof(may) IN ('text', 'null')),
        max_tunnels INTEGER CHECK (typeof(max_tunnels) IN ('integer', 'null')),
        created INTEGER NOT NULL CHECK (typeof(created) = 'integer'),
        expires INTEGER CHECK (typeof(expires) IN ('integer', 'null')),
        revoked INTEGER CHECK (typeof(revoked) IN ('integer', 'null')),
        last_used INTEGER CHECK (typeof(last_used) IN ('integer', 'null'))
    ) WITHOUT ROWID""",
    """CREATE TABLE reservations (
        kind TEXT NOT NULL CHECK (kind IN ('name', 'host', 'port')),
        name TEXT NOT NULL,
        identity TEXT NOT NULL,
        until INTEGER CHECK (typeof(until) IN ('integer', 'null')),
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID""",
    """CREATE TABLE usage (
        day TEXT NOT NULL,
        identity TEXT NOT NULL,
        bytes INTEGER NOT NULL CHECK (typeof(bytes) = 'integer' AND bytes >= 0),
        PRIMARY KEY (day, identity)
    ) WITHOUT ROWID""",
    """CREATE TABLE bans (
        network TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        until INTEGER CHECK (typeof(until) IN ('integer', 'null'))
    ) WITHOUT ROWID""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL CHECK (typeof(at) = 'integer'),
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        origin TEXT NOT NULL,
        detail TEXT NOT NULL
    )""",
    """CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    """CREATE TRIGGER audit_is_never_shortened BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
    # REPLACE deletes without firing the trigger above.
    """CREATE TRIGGER audit_is_never_replaced BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END""",
)

_LIMITS: Final = (
    "ALTER TABLE tokens ADD COLUMN limits TEXT CHECK (typeof(limits) IN ('text', 'null'))",
    # Usage is counted for each tunnel.
    """CREATE TABLE usage_of_tunnels (
        day TEXT NOT NULL,
        identity TEXT NOT NULL,
        tunnel TEXT NOT NULL,
        bytes INTEGER NOT NULL CHECK (typeof(bytes) = 'integer' AND bytes >= 0),
        PRIMARY KEY (day, identity, tunnel)
    ) WITHOUT ROWID""",
    "INSERT INTO usage_of_tunnels SELECT day, identity, '', bytes FROM usage",
    "DROP TABLE usage",
    "ALTER TABLE usage_of_tunnels RENAME TO usage",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_FIRST, _LIMITS)
"""The statements that lead from each version to the next; `PRAGMA user_version` counts those that were run.

They are never edited, only added to: databases that have run them are out there.
"""


class NotOurs(Exception):
    """The database belongs to another program, or to a newer otun; the text says which."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all that happens in the context, or nothing: from the beginning, no other process writes meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # Some errors have ended it already.
            connection.execute("ROLLBACK")
        raise


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the latest version, or leave it as it is.  Raises `NotOurs` and `sqlite3.Error`."""
    if _version(connection) == len(MIGRATIONS):
        return
    with transaction(connection):
        # Another process may have been faster.
        for statements in MIGRATIONS[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def is_complete(connection: sqlite3.Connection) -> bool:
    """Whether a database of the latest version has all its tables and triggers."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as whole:
        migrate(whole)
        return _parts(whole) <= _parts(connection)


def is_as_made(connection: sqlite3.Connection) -> bool:
    """Whether it is of this otun's version, with all its tables: another process may have changed that."""
    try:
        return _version(connection) == len(MIGRATIONS) and is_complete(connection)
    except NotOurs:
        return False


def _parts(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(connection.execute("SELECT type, name FROM sqlite_master"))


def _version(connection: sqlite3.Connection) -> int:
    application = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application != APPLICATION_ID and (
        application or version or _number(connection, "SELECT count(*) FROM sqlite_master")
    ):
        raise NotOurs("it belongs to another program")
    if version > len(MIGRATIONS):
        raise NotOurs(f"a newer otun has made it: it has version {version}, and this otun knows {len(MIGRATIONS)}")
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    (number,) = connection.execute(query).fetchone()
    assert isinstance(number, int)
    return number
