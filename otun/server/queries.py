"""What is asked of the database, and changed in it: plain functions, for `Database.read` and `Database.write`.

Each change that somebody has asked for leaves a line in the audit, in the same transaction.  No secret comes here.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import attrs

from ..errors import ConfigurationError, OtunError
from .records import Actor, AuditEntry, Ban, Claim, Reservation, TokenRecord

_TOKEN: Final = "name, hash, may, max_tunnels, created, expires, revoked, last_used, limits"

UsageKey: TypeAlias = tuple[str, str, str]
"""A day of UTC, an identity, one of its tunnels."""


MAX_BANS: Final = 10_000
"""Bans at a time: a look-up does not get slower by them, but cutting off those who are there does."""


class NoSuchToken(ConfigurationError):
    """There is no token of this name."""


class TokenNameTaken(ConfigurationError):
    """There is, or was, another token of this name."""


class TokenNotActive(ConfigurationError):
    """The token has expired, or was revoked."""


class TooManyBans(OtunError):
    """There is no room for another ban."""

    def __init__(self) -> None:
        super().__init__(f"there are {MAX_BANS} bans already: ban a larger network, or lift some of them")


def tokens(connection: sqlite3.Connection) -> list[TokenRecord]:
    """Return all tokens that there are and were, by name."""
    return [_token(row) for row in connection.execute(f"SELECT {_TOKEN} FROM tokens ORDER BY name")]


def find_token(connection: sqlite3.Connection, name: str) -> TokenRecord:
    """Return the token of this *name*.  Raises `NoSuchToken`."""
    row = connection.execute(f"SELECT {_TOKEN} FROM tokens WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise NoSuchToken(f"there is no token {name!r}")
    return _token(row)


def create_token(connection: sqlite3.Connection, token: TokenRecord, by: Actor) -> None:
    """Add *token*.  Raises `TokenNameTaken`: names are not used again, so that the audit means one token by each."""
    taken = connection.execute("SELECT revoked FROM tokens WHERE name = ?", (token.name,)).fetchone()
    if taken is not None:
        was_revoked = " that was revoked" if taken[0] is not None else ""
        raise TokenNameTaken(f"there is a token {token.name!r} already{was_revoked}: choose another name")
    fields = attrs.astuple(token)
    connection.execute(f"INSERT INTO tokens ({_TOKEN}) VALUES ({', '.join('?' * len(fields))})", fields)
    may = "everything" if token.may is None else token.may
    limits = f", at most {token.max_tunnels} tunnels" if token.max_tunnels is not None else ""
    limits += f", limited to {token.limits}" if token.limits is not None else ""
    until = f", expires at {token.expires}" if token.expires is not None else ""
    record(connection, by, "token.create", f"{token.name}: may {may}{limits}{until}", token.created)


def limit_token(connection: sqlite3.Connection, name: str, limits: str | None, by: Actor, now: float) -> None:
    """Give the token these limits instead of those that it had.  Raises `NoSuchToken`."""
    find_token(connection, name)
    connection.execute("UPDATE tokens SET limits = ? WHERE name = ?", (limits, name))
    record(connection, by, "token.limit", f"{name}: {'none' if limits is None else limits}", now)


def revoke_token(connection: sqlite3.Connection, name: str, by: Actor, now: float) -> TokenRecord:
    """Let the token be good for nothing from now on, and return it as it was before.

    One that was revoked before stays as it is.  Raises `NoSuchToken`.
    """
    token = find_token(connection, name)
    if token.revoked is None:
        connection.execute("UPDATE tokens SET revoked = ? WHERE name = ?", (int(now), name))
        record(connection, by, "token.revoke", name, now)
    return token


def rotate_token(connection: sqlite3.Connection, name: str, new_hash: bytes, by: Actor, now: float) -> None:
    """Give the token a new secret, of which this is the hash; the old one is good for nothing from now on.

    Raises `NoSuchToken` and `TokenNotActive`.
    """
    _require_active(connection, name, now)
    connection.execute("UPDATE tokens SET hash = ?, last_used = NULL WHERE name = ?", (new_hash, name))
    record(connection, by, "token.rotate", name, now)


def _require_active(connection: sqlite3.Connection, name: str, now: float) -> None:
    state = find_token(connection, name).state(now)
    if state != "active":
        how = "was revoked" if state == "revoked" else "has expired"
        raise TokenNotActive(f"the token {name!r} {how}: create another one")


def tokens_used(connection: sqlite3.Connection, times: Mapping[bytes, float]) -> None:
    """Take note of when the secrets with these hashes were used last."""
    connection.executemany(
        "UPDATE tokens SET last_used = ?1 WHERE hash = ?2 AND (last_used IS NULL OR last_used < ?1)",
        [(int(at), known) for known, at in times.items()],
    )


def reserve(connection: sqlite3.Connection, wanted: Reservation, now: float, *, by: Actor | None = None) -> Reservation:
    """Make the reservation that is *wanted*, unless another identity has one, and return the one that there is then.

    The identity's own is prolonged, never shortened.  Without *by*, a client has just come to it, and the audit has no
    line for it.
    """
    connection.execute(
        """INSERT INTO reservations (kind, name, identity, until) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (kind, name) DO UPDATE SET identity = ?3, until = ?4
        WHERE until <= ?5 OR (identity = ?3 AND until IS NOT NULL AND (?4 IS NULL OR until < ?4))""",
        (wanted.kind, wanted.name, wanted.identity, wanted.until, int(now)),
    )
    row = connection.execute(
        "SELECT kind, name, identity, until FROM reservations WHERE kind = ? AND name = ?", (wanted.kind, wanted.name)
    ).fetchone()
    found = Reservation(*row)
    if by is not None and found == wanted:
        until = "for good" if wanted.until is None else f"until {wanted.until}"
        record(connection, by, "name.reserve", f"{wanted.kind} {wanted.name} for {wanted.identity} {until}", now)
    return found


def reserve_for_token(connection: sqlite3.Connection, wanted: Reservation, now: float, by: Actor) -> Reservation:
    """Do what `reserve` does, for a token that is good for something.  Raises `NoSuchToken` and `TokenNotActive`."""
    _require_active(connection, wanted.identity, now)
    return reserve(connection, wanted, now, by=by)


def take_reservations(connection: sqlite3.Connection, claims: Iterable[Claim], now: float) -> list[Reservation]:
    """Make the reservations that clients want, as `reserve` does; new ones leave a line in the audit."""
    found = []
    for claim in claims:
        one = claim.wanted
        query = "SELECT 1 FROM reservations WHERE kind = ? AND name = ? AND identity = ?"
        is_known = connection.execute(query, (one.kind, one.name, one.identity)).fetchone() is not None
        found.append(reserve(connection, one, now, by=None if is_known else claim.by))
    return found


def release(connection: sqlite3.Connection, kind: str, name: str, by: Actor, now: float) -> bool:
    """Give up a reservation, and return whether there was one."""
    is_gone = connection.execute("DELETE FROM reservations WHERE kind = ? AND name = ?", (kind, name)).rowcount > 0
    if is_gone:
        record(connection, by, "name.release", f"{kind} {name}", now)
    return is_gone


def reservations(connection: sqlite3.Connection, now: float) -> list[Reservation]:
    """Return the reservations that hold at *now*."""
    query = "SELECT kind, name, identity, until FROM reservations WHERE until IS NULL OR until > ? ORDER BY kind, name"
    return [Reservation(*row) for row in connection.execute(query, (int(now),))]


def forget_ended_reservations(connection: sqlite3.Connection, now: float) -> None:
    """Make room: what has ended holds for nobody."""
    connection.execute("DELETE FROM reservations WHERE until <= ?", (int(now),))


def add_usage(connection: sqlite3.Connection, amounts: Mapping[UsageKey, int], oldest: str) -> None:
    """Add to the bytes that tunnels have moved, and forget all days before the *oldest*, such as 2026-12-31."""
    connection.execute("DELETE FROM usage WHERE day < ?", (oldest,))
    connection.executemany(
        """INSERT INTO usage (day, identity, tunnel, bytes) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (day, identity, tunnel) DO UPDATE SET bytes = bytes + ?4""",
        [(*key, amount) for key, amount in amounts.items()],
    )


def usage(connection: sqlite3.Connection, day: str) -> dict[tuple[str, str], int]:
    """Return the bytes that each tunnel of each identity has moved on *day*."""
    rows = connection.execute("SELECT identity, tunnel, bytes FROM usage WHERE day = ?", (day,))
    return {(identity, tunnel): amount for identity, tunnel, amount in rows}


def usage_of(connection: sqlite3.Connection, identity: str, day: str) -> int:
    """Return the bytes that all tunnels of *identity* have moved on *day*."""
    query = "SELECT coalesce(sum(bytes), 0) FROM usage WHERE day = ? AND identity = ?"
    (amount,) = connection.execute(query, (day, identity)).fetchone()
    assert isinstance(amount, int)
    return amount


def ban(connection: sqlite3.Connection, new: Ban, by: Actor, now: float) -> None:
    """Ban a network, or change how long, and why.  Raises `TooManyBans`."""
    connection.execute("DELETE FROM bans WHERE until <= ?", (int(now),))
    query = "SELECT count(*) FROM bans WHERE network <> ?"
    if connection.execute(query, (new.network,)).fetchone()[0] >= MAX_BANS:
        raise TooManyBans
    connection.execute(
        """INSERT INTO bans (network, reason, until) VALUES (?1, ?2, ?3)
        ON CONFLICT (network) DO UPDATE SET reason = ?2, until = ?3""",
        attrs.astuple(new),
    )
    until = "for good" if new.until is None else f"until {new.until}"
    reason = f": {new.reason}" if new.reason else ""
    record(connection, by, "ban.add", f"{new.network} {until}{reason}", now)


def unban(connection: sqlite3.Connection, network: str, by: Actor, now: float) -> bool:
    """Let a network in again, and return whether it was banned."""
    is_gone = connection.execute("DELETE FROM bans WHERE network = ?", (network,)).rowcount > 0
    if is_gone:
        record(connection, by, "ban.remove", network, now)
    return is_gone


def bans(connection: sqlite3.Connection, now: float) -> list[Ban]:
    """Return the bans that hold at *now*."""
    query = "SELECT network, reason, until FROM bans WHERE until IS NULL OR until > ? ORDER BY network"
    return [Ban(*row) for row in connection.execute(query, (int(now),))]


def record(connection: sqlite3.Connection, by: Actor, what: str, detail: str, now: float) -> None:
    """Write a line to the audit; what is changed in the database itself has done so already."""
    connection.execute(
        "INSERT INTO audit (at, who, what, origin, detail) VALUES (?, ?, ?, ?, ?)",
        (int(now), by.who, what, by.origin, detail),
    )


def record_all(connection: sqlite3.Connection, by: Actor, what: str, details: Iterable[str], now: float) -> None:
    """Write several lines of the same kind to the audit."""
    for detail in details:
        record(connection, by, what, detail, now)


def audit(connection: sqlite3.Connection, limit: int) -> list[AuditEntry]:
    """Return the last lines of the audit, *limit* at most, the oldest first."""
    query = "SELECT at, who, what, origin, detail FROM audit ORDER BY id DESC LIMIT ?"
    return [AuditEntry(*row) for row in connection.execute(query, (limit,))][::-1]


def _token(
    row: tuple[str, bytes, str | None, int | None, int, int | None, int | None, int | None, str | None],
) -> TokenRecord:
    name, found, may, max_tunnels, created, expires, revoked, last_used, limits = row
    return TokenRecord(
        name=name,
        hash=found,
        may=may,
        max_tunnels=max_tunnels,
        created=created,
        expires=expires,
        revoked=revoked,
        last_used=last_used,
        limits=limits,
    )
