"""Databases for tests: tokens in them, and who puts them there."""

import contextlib
import sqlite3
from pathlib import Path

from otun.access import hash_token
from otun.server import queries
from otun.server.database import FILE_NAME, Database, open_database
from otun.server.records import Actor, TokenRecord

SOMEBODY = Actor("ann (uid 1000)", "cli")


def stored(name: str, secret: str | None = None, **fields: object) -> TokenRecord:
    """The record of a token, by default with a secret that is `NAME-secret`."""
    return TokenRecord(name=name, hash=hash_token(secret or f"{name}-secret"), **{"created": 1000, **fields})


def raw(folder: Path) -> contextlib.closing[sqlite3.Connection]:
    """A connection past all of our code."""
    return contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None, timeout=0))


async def make(folder: Path, *names: str) -> None:
    async with open_database(folder) as database:
        for name in names:
            await database.write(queries.create_token, stored(name), SOMEBODY)


async def names_in(folder: Path) -> list[str]:
    async with open_database(folder, is_created=False) as database:
        return [token.name for token in await database.read(queries.tokens)]


async def details(database: Database) -> list[tuple[str, str]]:
    return [(entry.what, entry.detail) for entry in await database.read(queries.audit, 100)]
