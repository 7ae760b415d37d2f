"""The server's database: tokens, reservations, usage, bans and the audit, in SQLite in the state folder.

Several processes use it at the same time: the server, and commands such as `otun token`.  In each, one thread at a time
talks to SQLite, and no Trio task waits for the disk.  What is asked is in `queries`.
"""

import contextlib
import errno
import os
import secrets
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import trio

from ..errors import ConfigurationError, DatabaseError
from .schema import NotOurs, is_as_made, is_complete, migrate, transaction

FILE_NAME: Final = "otun.db"

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process that writes: each of its writes takes milliseconds."""

NOTE_TIMEOUT: Final = 0.2
"""Seconds to wait for it with what can be written later: whoever reads, for revoked tokens above all, waits behind."""

DataVersion: TypeAlias = tuple[int, int]
"""What changes when the database does: by another process, by this one."""

_P = ParamSpec("_P")
_T = TypeVar("_T")

_SPACE_GONE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoDatabase(ConfigurationError):
    """The state folder has no database yet."""


class Database:
    """An open database; `open_database` makes one."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path: Path = path
        self._connection = connection
        self._thread = trio.CapacityLimiter(1)  # A connection is one thread's at a time.
        self._own_writes = 0
        self.trouble: str | None = None  # What was in the way of the last write, if anything was.

    def __repr__(self) -> str:
        return f"<Database {self.path}>"

    async def read(
        self, query: Callable[Concatenate[sqlite3.Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Return what *query* does.  It sees one state of the database, however many statements it has.

        Raises `DatabaseError`.  Cancelled, it ends after the query.
        """

        def work() -> _T:
            with self._reported(), _snapshot(self._connection):
                return query(self._connection, *args, **kwargs)

        return await trio.to_thread.run_sync(work, limiter=self._thread)

    async def write(
        self, query: Callable[Concatenate[sqlite3.Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Return what *query* does, in a transaction: when it has returned, all of it is on the disk.

        When it raises, nothing of it is; it raises `DatabaseError` itself when the disk is full, for one thing.
        Cancelled after it has begun, it ends after the transaction, and has happened.
        """

        result = await self._transact(partial(query, self._connection, *args, **kwargs), BUSY_TIMEOUT)
        self._own_writes += 1
        return result

    async def note(
        self, query: Callable[Concatenate[sqlite3.Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Do as `write` does, for what nobody waits for: the `version` stays, and a locked database raises soon."""
        return await self._transact(partial(query, self._connection, *args, **kwargs), NOTE_TIMEOUT)

    async def _transact(self, change: Callable[[], _T], patience: float) -> _T:
        def work() -> _T:
            with self._reported():
                self._connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
                with transaction(self._connection):
                    return change()

        try:
            result = await trio.to_thread.run_sync(work, limiter=self._thread)
        except DatabaseError as error:
            self.trouble = error.reason
            raise
        self.trouble = None
        return result

    async def version(self) -> DataVersion:
        """Return what is another value after each change, whoever has made it.  It costs microseconds.

        Ask before reading: a change in between is then seen twice rather than never.  Raises `DatabaseError`.
        """

        def work() -> int:
            with self._reported():
                (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            assert isinstance(version, int)
            return version

        own_writes = self._own_writes
        return await trio.to_thread.run_sync(work, limiter=self._thread), own_writes

    @contextmanager
    def _reported(self) -> Iterator[None]:
        with _reported(self.path):
            try:
                yield
            except (sqlite3.OperationalError, sqlite3.IntegrityError) as error:
                if is_as_made(self._connection):
                    raise
                reason = f"its tables are not this otun's any more ({error}); has a newer one been installed?"
                raise DatabaseError(str(self.path), reason) from error

    async def aclose(self) -> None:
        """Close it.  Cancellation does not hinder that."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._thread)


@asynccontextmanager
async def open_database(folder: Path, *, is_created: bool = True) -> AsyncIterator[Database]:
    """Give the database in the state *folder*; both are made, for their owner alone, when they are missing.

    Unless it *is_created* then: that raises `NoDatabase`.  A folder or file that cannot be used, is damaged or is not
    ours raises `ConfigurationError`, and a full disk `DatabaseError`.
    """
    path = folder / FILE_NAME
    database = Database(path, await trio.to_thread.run_sync(_open, path, is_created))
    try:
        yield database
    finally:
        await database.aclose()


def _open(path: Path, is_created: bool) -> sqlite3.Connection:
    with _reported(path, is_starting=True):
        try:
            if not _is_there(path):
                if not is_created:
                    raise NoDatabase(f"state folder {path.parent} is no server's yet: there is no {FILE_NAME} in it")
                _make(path)
        except OSError as error:
            if error.errno in _SPACE_GONE:
                raise DatabaseError(str(path), os.strerror(errno.ENOSPC)) from error
            raise ConfigurationError(f"database {path}: {error.strerror}") from error
        return _connect(path)


def _is_there(path: Path) -> bool:
    log = Path(f"{path}-wal")
    has_log = log.exists()  # Asked first: whoever makes the database in between has it there before its log.
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if has_log:  # SQLite would write its old pages into a new database.
            raise ConfigurationError(f"database {path} is missing, but not {log}: move that away, too") from None
        return False
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"database {path}: it is no regular file")
    return True


def _make(path: Path) -> None:
    """Make a database with all its tables, beside its place first: another process never meets half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _give_to_owner(descriptor, path.parent)
        _connect(draft).close()  # The last one who closes it leaves one file.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{draft}{suffix}").unlink(missing_ok=True)


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Let a new file be the folder's owner's, and close it: root makes tokens for a server that is not root."""
    try:
        owner = folder.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,  # Transactions begin and end where we say so.
        check_same_thread=False,  # Trio's worker threads take turns.
    )
    with contextlib.ExitStack() as unfinished:
        unfinished.enter_context(closing(connection))
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # A token that was revoked stays so when the power fails.
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise ConfigurationError(_damaged(path, str(verdict)))
        if not is_complete(connection):
            raise ConfigurationError(_damaged(path, "parts of it are missing"))
        unfinished.pop_all()
    return connection


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _reported(path: Path, *, is_starting: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except NotOurs as error:
        raise ConfigurationError(f"database {path}: {error}; give the server another folder with --state") from error
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        # The module's own errors have no code: text that is no UTF-8, for one.
        code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        match code & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB if is_starting:
                raise ConfigurationError(_damaged(path, str(error))) from error
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM if is_starting:
                raise ConfigurationError(f"database {path}: {_reason(path, code, error)}") from error
            case sqlite3.SQLITE_ERROR | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISUSE | sqlite3.SQLITE_RANGE:
                raise  # These are ours.
            case _:
                raise DatabaseError(str(path), _reason(path, code, error)) from error


def _reason(path: Path, code: int, error: sqlite3.Error) -> str:
    """Return what is in the way, in the system's words where it has some."""
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return os.strerror(errno.ENOSPC)
        case sqlite3.SQLITE_IOERR if _is_disk_full(path):  # SQLite calls it so where it maps files.
            return os.strerror(errno.ENOSPC)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process has kept it locked for too long"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return f"it, or its folder, cannot be written: {error}"
        case _:
            return str(error)


def _is_disk_full(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.statvfs(path.parent).f_bavail == 0
    return False


def _damaged(path: Path, what: str) -> str:
    return (
        f"database {path} is damaged ({' '.join(what.split())}): restore it from a backup, or move it and the files "
        f"{path.name}-wal and {path.name}-shm away to begin with a new one, in which there are no tokens"
    )
