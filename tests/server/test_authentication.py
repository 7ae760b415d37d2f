"""Whom tokens stand for, and for how long."""

import hmac
import logging
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from otun.access import ANONYMOUS, EVERYTHING, NO_LIMITS, Grants, Identity, Limits
from otun.errors import ConfigurationError, DatabaseError
from otun.server import authentication, queries
from otun.server.admission import Refused
from otun.server.authentication import Authenticator, read_identity_key
from otun.server.database import FILE_NAME, Database, open_database

from .stored_tokens import SOMEBODY, stored

KEY = bytes(32)
NOW = 1500.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "POLL_INTERVAL", 0.001)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as database:
        yield database


@attrs.define
class Watch:
    """An authenticator that keeps up with its database, and whom it has reported: as ended, or with other limits."""

    authenticator: Authenticator
    now: float = NOW
    reported: list[Identity] = attrs.Factory(list)
    _another: trio.Event = attrs.Factory(trio.Event)
    _look: trio.Event = attrs.Factory(trio.Event)

    async def keep_fresh(self) -> None:
        await self.authenticator.keep_fresh(self._report, self._report, clock=self._clock)

    def _clock(self) -> float:
        self._look.set()
        self._look = trio.Event()
        return self.now

    def _report(self, identity: Identity) -> None:
        self.reported.append(identity)
        self._another.set()

    async def another(self) -> Identity:
        await self._another.wait()
        self._another = trio.Event()
        return self.reported[-1]

    async def has_looked(self) -> None:
        """Wait until it has looked at the database once more, from beginning to end."""
        for _ in range(2):
            await self._look.wait()

    def let_in(self, token: str) -> Identity:
        return self.authenticator.authenticate(token, self.now)


async def watch_database(database: Database, nursery: trio.Nursery, *names: str, **fields: object) -> Watch:
    for name in names:
        await database.write(queries.create_token, stored(name, **fields), SOMEBODY)
    authenticator = Authenticator(database=database, key=KEY)
    await authenticator.load()
    watch = Watch(authenticator)
    nursery.start_soon(watch.keep_fresh)
    return watch


def refusal(authenticator: Authenticator, token: str | None, now: float = NOW) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        authenticator.authenticate(token, now)
    assert not caught.value.answer.retryable
    return caught.value.answer.code, str(caught.value)


def test_a_plain_token_may_everything_and_is_called_by_what_tells_nothing() -> None:
    tokens = {"first", "second", "naïve-tökén", "\ud800"}
    authenticator = Authenticator(tokens, key=KEY)
    identities = {authenticator.authenticate(token, NOW) for token in tokens}
    assert len({identity.name for identity in identities}) == len(tokens)
    for identity in identities:
        assert (identity.grants, identity.max_tunnels, identity.expires) == (EVERYTHING, None, None)
        assert not identity.is_anonymous
    again = Authenticator(tokens, key=KEY)
    assert {again.authenticate(token, NOW) for token in tokens} == identities
    elsewhere = Authenticator(tokens, key=bytes(31) + b"1")
    assert {elsewhere.authenticate(token, NOW).name for token in tokens}.isdisjoint(each.name for each in identities)


@pytest.mark.parametrize("token", [None, "", "wrong", "firs", "first ", "FIRST", "first,second", "\udfff", "x" * 10**6])
def test_another_token_or_none_is_refused(token: str | None) -> None:
    code, message = refusal(Authenticator({"first", "second"}, key=KEY), token)
    assert code == "bad_token"
    assert message == ("the token is not valid" if token else "a token is required") + " on this server"


def test_a_server_with_no_token_at_all_lets_nobody_in_unless_it_is_open() -> None:
    assert refusal(Authenticator(key=KEY), "any")[0] == "bad_token"
    assert refusal(Authenticator(key=KEY), None)[0] == "bad_token"
    for token in (None, "", "any"):
        assert Authenticator(key=KEY, is_open=True).authenticate(token, NOW) == ANONYMOUS


def test_an_open_server_knows_those_who_have_a_token() -> None:
    authenticator = Authenticator({"first"}, key=KEY, is_open=True)
    assert not authenticator.authenticate("first", NOW).is_anonymous
    assert authenticator.authenticate("second", NOW) == ANONYMOUS


@pytest.mark.parametrize("presented", ["wrong", "first", "ci-secret"])
async def test_hashes_are_compared_in_constant_time_whatever_is_presented(
    database: Database, presented: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    authenticator = Authenticator({"first"}, database, key=KEY, is_open=True)
    await authenticator.load()
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", compare)
    authenticator.authenticate(presented, NOW)
    assert compared == [(32, 32), (32, 32)]


async def test_a_stored_token_stands_for_what_the_database_says(database: Database) -> None:
    await database.write(queries.create_token, stored("ci", may="http:app-*", max_tunnels=3, expires=2000), SOMEBODY)
    authenticator = Authenticator({"plain"}, database, key=KEY)
    await authenticator.load()
    identity = authenticator.authenticate("ci-secret", NOW)
    assert identity == Identity(
        name="ci",
        grants=Grants.parse("http:app-*"),
        max_tunnels=3,
        expires=2000,
        credential=stored("ci").hash,
    )
    assert authenticator.authenticate("plain", NOW).name != "ci"
    assert refusal(authenticator, "ci")[0] == "bad_token"
    assert refusal(authenticator, stored("ci").hash.hex())[0] == "bad_token"


async def test_only_who_knows_the_secret_learns_that_it_has_expired(database: Database) -> None:
    await database.write(queries.create_token, stored("ci", expires=2000), SOMEBODY)
    authenticator = Authenticator(database=database, key=KEY)
    await authenticator.load()
    authenticator.authenticate("ci-secret", 1999.9)
    expected = ("expired_token", "the token has expired, on 1970-01-01 at 00:33 UTC")
    assert refusal(authenticator, "ci-secret", 2000.0) == expected
    assert refusal(authenticator, "ci-secreT", 2000.0)[0] == "bad_token"


async def test_a_revoked_token_is_as_bad_as_any_other(database: Database) -> None:
    await database.write(queries.create_token, stored("ci", revoked=1, expires=2), SOMEBODY)
    authenticator = Authenticator(database=database, key=KEY)
    await authenticator.load()
    assert refusal(authenticator, "ci-secret") == refusal(authenticator, "anything")


async def test_a_token_with_grants_that_nobody_understands_is_good_for_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(queries.create_token, stored("ci", may="all of it"), SOMEBODY)
    await database.write(queries.create_token, stored("ok"), SOMEBODY)
    authenticator = Authenticator(database=database, key=KEY)
    await authenticator.load()
    assert refusal(authenticator, "ci-secret")[0] == "bad_token"
    assert authenticator.authenticate("ok-secret", NOW).name == "ok"
    assert "the token ci is not good for anything: 'all' is no grant" in caplog.text


REVOKE = (queries.revoke_token, ("ci", SOMEBODY, NOW))
ROTATE = (queries.rotate_token, ("ci", bytes(32), SOMEBODY, NOW))


@pytest.mark.parametrize(("query", "arguments"), [REVOKE, ROTATE], ids=["revoked", "rotated"])
@pytest.mark.parametrize("by", ["this process", "another connection"])
async def test_who_is_in_with_a_token_that_ends_is_reported_once(
    database: Database,
    nursery: trio.Nursery,
    tmp_path: Path,
    query: Callable[..., object],
    arguments: tuple[object, ...],
    by: str,
) -> None:
    watch = await watch_database(database, nursery, "ci", "stays", "absent")
    identity, stays = watch.let_in("ci-secret"), watch.let_in("stays-secret")
    if by == "this process":
        await database.write(query, *arguments)
    else:
        async with open_database(tmp_path) as other:
            await other.write(query, *arguments)
    assert await watch.another() == identity
    assert refusal(watch.authenticator, "ci-secret")[0] == "bad_token"
    await database.write(queries.revoke_token, "stays", SOMEBODY, NOW)
    assert await watch.another() == stays
    assert watch.reported == [identity, stays]


@pytest.mark.parametrize("by", ["this process", "another connection"])
async def test_who_is_in_with_a_token_that_gets_other_limits_is_reported(
    database: Database, nursery: trio.Nursery, tmp_path: Path, by: str
) -> None:
    watch = await watch_database(database, nursery, "ci", "other")
    identity = watch.let_in("ci-secret")
    watch.let_in("other-secret")
    for limits in ("requests=9", "requests=8", None):
        if by == "this process":
            await database.write(queries.limit_token, "ci", limits, SOMEBODY, NOW)
        else:
            async with open_database(tmp_path) as other:
                await other.write(queries.limit_token, "ci", limits, SOMEBODY, NOW)
        wanted = NO_LIMITS if limits is None else Limits.parse(limits)
        assert await watch.another() == attrs.evolve(identity, limits=wanted)
        assert watch.let_in("ci-secret").limits == wanted


async def test_a_token_with_limits_that_nobody_understands_is_good_for_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(queries.create_token, stored("ci", limits="as you like"), SOMEBODY)
    authenticator = Authenticator(database=database, key=KEY)
    await authenticator.load()
    assert refusal(authenticator, "ci-secret")[0] == "bad_token"
    assert "the token ci is not good for anything: 'as' is no limit" in caplog.text


async def test_a_token_ends_at_its_time_without_anything_in_the_database_changing(
    database: Database, nursery: trio.Nursery
) -> None:
    watch = await watch_database(database, nursery, "ci", expires=2000)
    identity = watch.let_in("ci-secret")
    watch.now = 2000
    assert await watch.another() == identity


ANOTHER_PROCESS = """
import os
import sys
from pathlib import Path
import trio
from otun.access import hash_token
from otun.server import queries
from otun.server.database import open_database
from otun.server.records import Actor, TokenRecord

by = Actor("test", "test")

async def main():
    async with open_database(Path(sys.argv[1])) as database:
        token = TokenRecord(name="ci", hash=hash_token("ci-secret"), created=1)
        await database.write(queries.create_token, token, by)
        os.write(1, b"made\\n")
        sys.stdin.readline()
        await database.write(queries.revoke_token, "ci", by, 2)
        sys.stdin.read()

trio.run(main)
"""


async def test_what_another_process_does_is_soon_known(database: Database, nursery: trio.Nursery) -> None:
    watch = await watch_database(database, nursery)
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(database.path.parent)]
    process = await nursery.start(
        partial(trio.run_process, command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    async with process.stdin, process.stdout:
        assert await process.stdout.receive_some() == b"made\n"
        await watch.has_looked()
        identity = watch.let_in("ci-secret")
        await process.stdin.send_all(b"go on\n")
        assert await watch.another() == identity
    await process.wait()


@pytest.mark.parametrize("moment", ["version", "read"])
async def test_a_change_in_the_middle_of_a_look_is_not_missed(
    database: Database, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    async def look_and_race(*arguments: object) -> object:
        found = await look(*arguments)
        while races:
            async with open_database(tmp_path) as other:
                await other.write(queries.revoke_token, races.pop(), SOMEBODY, NOW)
        return found

    watch = await watch_database(database, nursery, "first", "second")
    first, second = watch.let_in("first-secret"), watch.let_in("second-secret")
    await watch.has_looked()
    look = getattr(database, moment)
    races: list[str] = []
    monkeypatch.setattr(database, moment, look_and_race)
    races.append("first")
    await database.write(queries.revoke_token, "second", SOMEBODY, NOW)  # So that there is something to read.
    while len(watch.reported) < 2:
        await watch.another()
    assert set(watch.reported) == {first, second}


async def test_what_is_known_stays_in_force_while_the_database_cannot_be_read(
    database: Database,
    nursery: trio.Nursery,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = await watch_database(database, nursery, "ci", "dated", expires=2000)
    identity = watch.let_in("ci-secret")
    fails = trio.Event()

    async def fail(*_: object) -> object:
        fails.set()
        await trio.lowlevel.checkpoint()
        raise DatabaseError("otun.db", "disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(database, "version", fail)
        await fails.wait()
        assert watch.let_in("ci-secret") == identity
        await database.write(queries.revoke_token, "dated", SOMEBODY, NOW)
        watch.let_in("dated-secret")
        watch.now = 2000  # Times go on.
        await watch.another()
    assert {each.name for each in watch.reported} == {"ci", "dated"}
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
    assert "tokens cannot be read anew, and stay as they were: database otun.db: disk I/O error" in caplog.text


async def test_when_a_token_was_used_is_written_down(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        watch = await watch_database(database, nursery, "ci", "idle")
        watch.let_in("ci-secret")
        nursery.cancel_scope.cancel()  # Also what was not written down until now.
    used = {token.name: token.last_used for token in await database.read(queries.tokens)}
    assert used == {"ci": int(NOW), "idle": None}


async def test_uses_are_written_down_together(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []

    def tokens_used(connection: object, times: dict[bytes, float]) -> None:
        noted.append(len(times))
        trio.from_thread.run_sync(written.set)

    monkeypatch.setattr(queries, "tokens_used", tokens_used)
    written = trio.Event()
    async with trio.open_nursery() as nursery:
        watch = await watch_database(database, nursery, "a", "b", "c")
        watch.let_in("a-secret")
        await written.wait()
        for token in ("b-secret", "c-secret", "b-secret"):
            watch.let_in(token)
            await database.read(queries.tokens)
        nursery.cancel_scope.cancel()
    assert noted == [1, 2]


async def test_a_full_disk_keeps_clients_in(
    database: Database, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> object:
        await trio.lowlevel.checkpoint()
        raise DatabaseError("otun.db", "No space left on device")

    watch = await watch_database(database, nursery, "ci")
    with monkeypatch.context() as patch:
        patch.setattr(database, "note", fail)
        watch.let_in("ci-secret")
        await watch.has_looked()
    assert "used last is not written down: database otun.db: No space left on device" in caplog.text
    watch.let_in("ci-secret")
    assert watch.reported == []
    await database.write(queries.revoke_token, "ci", SOMEBODY, NOW)
    await watch.another()


def test_the_key_is_kept_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    key = read_identity_key(tmp_path)
    assert len(key) == 32
    assert read_identity_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / "identities.key").stat().st_mode) == 0o600
    assert read_identity_key(None) != read_identity_key(None)
    (tmp_path / "identities.key").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match=r"identities\.key is damaged: remove it"):
        read_identity_key(tmp_path)
    with pytest.raises(ConfigurationError, match=r"missing/identities\.key: No such file"):
        read_identity_key(tmp_path / "missing")


async def test_no_secret_is_in_the_database_or_a_repr(database: Database, tmp_path: Path) -> None:
    await database.write(queries.create_token, stored("ci", "TOP-SECRET"), SOMEBODY)
    authenticator = Authenticator({"TOP-SECRET-TOO"}, database, key=KEY)
    await authenticator.load()
    shown = repr([authenticator.authenticate(token, NOW) for token in ("TOP-SECRET", "TOP-SECRET-TOO")])
    assert "TOP-SECRET" not in shown + repr(vars(authenticator))
    assert repr(stored("ci").hash) not in repr(await database.read(queries.tokens)) + shown
    for suffix in ("", "-wal"):
        assert b"TOP-SECRET" not in await trio.Path(tmp_path, f"{FILE_NAME}{suffix}").read_bytes()


async def test_limits_that_change_just_before_a_token_is_shown_again_are_reported(
    database: Database, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    await database.write(queries.create_token, stored("ci"), SOMEBODY)
    one = Authenticator(database=database, key=KEY)
    await one.load()
    one.authenticate("ci-secret", NOW)
    reported: list[Identity] = []
    has_shown = trio.Event()

    async def note_used() -> None:  # In the round in which they are read.
        await trio.lowlevel.checkpoint()
        if one.authenticate("ci-secret", NOW).limits != NO_LIMITS:
            has_shown.set()

    monkeypatch.setattr(one, "_note_used", note_used)
    monkeypatch.setattr(authentication, "LAST_USED_INTERVAL", 0)
    nursery.start_soon(partial(one.keep_fresh, reported.append, reported.append, clock=lambda: NOW))
    await database.write(queries.limit_token, "ci", "requests=1", SOMEBODY, 1)
    await has_shown.wait()
    await trio.sleep(0.01)
    assert [str(identity.limits) for identity in reported] == ["requests=1"]
    nursery.cancel_scope.cancel()
