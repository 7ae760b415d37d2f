"""Whom a client's token stands for, and for how long; in memory, so that each operation can ask."""

import hmac
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Final

import trio

from ..access import ANONYMOUS, EVERYTHING, NO_LIMITS, Grants, Identity, Limits, hash_token, is_same_hash
from ..errors import ConfigurationError, DatabaseError
from . import queries
from .admission import refuse
from .database import Database, DataVersion
from .following import POLL_INTERVAL
from .records import TokenRecord
from .secret_keys import secret_key

logger: logging.Logger = logging.getLogger(__name__)

LAST_USED_INTERVAL: Final = 60.0
"""Seconds between two notes of when tokens were used: each is a write to the disk."""

_SHOWN_DIGITS: Final = 12


def read_identity_key(folder: Path | None) -> bytes:
    """Return the key by which plain tokens get their names, kept in the state *folder*; without one, it is new.

    Raises `ConfigurationError`.
    """
    return secret_key(folder, "identities.key", "identities")


class Authenticator:
    """Knows the tokens: *plain* ones, which may everything, and those of the *database*, if there is one.

    Call `load` before anybody is let in.  Plain tokens have no names, and people may have made them up: they are called
    by a hash of them that nobody without the *key* can try guesses on.  A server that *is_open* takes everybody; one
    that *is_private* does so as long as it has, and has had, no token.  Whoever shows a good token is known by it all
    the same.
    """

    def __init__(
        self,
        plain: Iterable[str] = (),
        database: Database | None = None,
        *,
        key: bytes,
        is_open: bool = False,
        is_private: bool = False,
    ) -> None:
        self._key = key
        self._plain: dict[bytes, Identity]
        self._is_open: bool
        self.change(plain, is_open=is_open)
        self._database = database
        self._is_private = is_private
        self._has_records = False
        self._stored: dict[bytes, Identity] = {}  # By the token's hash, those that were not revoked.
        self._version: DataVersion | None = None
        self._in_use: dict[bytes, Identity] = {}  # Whoever was let in, and has not been reported since.
        self._used: dict[bytes, float] = {}  # When, as far as the database does not know.
        self._noted_at = -inf
        self._is_failing = False

    def change(self, plain: Iterable[str], *, is_open: bool) -> None:
        """Have these *plain* tokens, and no others; whoever was let in by another is reported by `keep_fresh`."""
        self._plain = {identity.credential: identity for identity in map(self._identity_of_plain, plain)}
        self._is_open = is_open

    async def load(self) -> None:
        """Read the tokens of the database.  Raises `DatabaseError`."""
        if self._database is not None:
            await self._refresh(self._database)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a token."""
        return self._is_open or (self._is_private and not self._plain and not self._has_records)

    def knows(self, token: str) -> bool:
        """Whether *token* is one of those that are good for something, or have expired."""
        return self._find(token) is not None

    async def look_for(self, token: str | None) -> None:
        """Read the database anew if *token* is not known: it may have been made a moment ago."""
        if token is not None and self._find(token) is None:
            await self._follow_database()

    def authenticate(self, token: str | None, now: float) -> Identity:
        """Return whom *token* stands for at *now*, in seconds since the epoch.

        Whoever keeps the identity must do so before the next checkpoint, or may miss that it is revoked.  Raises
        `otun.server.admission.Refused`; only those who know the secret learn that it has expired.
        """
        identity = None if token is None else self._find(token)
        if identity is not None and not identity.has_expired(now):
            self._in_use.setdefault(identity.credential, identity)  # `_report` compares with the one reported last.
            if identity.credential in self._stored:
                self._used[identity.credential] = now
            return identity
        if self.is_open:
            return ANONYMOUS
        if identity is not None and identity.expires is not None:
            when = datetime.fromtimestamp(identity.expires, UTC)
            raise refuse(f"the token has expired, on {when:%Y-%m-%d at %H:%M} UTC", "expired_token")
        needed = "the token is not valid" if token else "a token is required"
        raise refuse(f"{needed} on this server", "bad_token")

    async def keep_fresh(
        self,
        on_revoked: Callable[[Identity], None],
        on_limited: Callable[[Identity], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep up with the database and the *clock*, until cancelled.

        *on_revoked* is called once for each identity that was let in and stands for nobody any more: its token was
        revoked, has expired, or has got a new secret.  *on_limited* is called for each that has got other limits, as it
        is now.  While the database cannot be read, what is known stays in force.
        """
        try:
            while True:
                await trio.sleep(POLL_INTERVAL)
                await self._follow_database()
                self._report(on_revoked, on_limited, clock())
        finally:
            with trio.CancelScope(shield=True):
                await self._note_used()

    def _find(self, token: str) -> Identity | None:
        # How long a look-up takes depends on a hash that nobody can aim at: a guess that is nearly right has another
        # one altogether.  Both are computed, and compared, whichever kind of token it is.
        keyed, plain_hash = self._keyed(token), hash_token(token)
        plain, stored = self._plain.get(keyed), self._stored.get(plain_hash)
        is_plain = is_same_hash(keyed, plain.credential if plain is not None else bytes(len(keyed)))
        is_stored = is_same_hash(plain_hash, stored.credential if stored is not None else bytes(len(plain_hash)))
        if is_plain:
            return plain
        return stored if is_stored else None

    def _keyed(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode("utf-8", "surrogatepass"), "sha256")

    def _identity_of_plain(self, token: str) -> Identity:
        keyed = self._keyed(token)
        return Identity(name=f"(key {keyed.hex()[:_SHOWN_DIGITS]})", credential=keyed)

    async def _follow_database(self) -> None:
        if self._database is None:
            return
        try:
            await self._refresh(self._database)
        except DatabaseError as error:
            if not self._is_failing:  # It is said once.
                logger.error("tokens cannot be read anew, and stay as they were: %s", error)
            self._is_failing = True
            return
        self._is_failing = False
        if trio.current_time() >= self._noted_at + LAST_USED_INTERVAL:
            await self._note_used()

    async def _refresh(self, database: Database) -> None:
        version = await database.version()
        if version != self._version:
            records = await database.read(queries.tokens)
            self._has_records = bool(records)
            known = (_identity_of(record) for record in records if record.revoked is None)
            self._stored = {identity.credential: identity for identity in known if identity is not None}
            self._version = version

    def _report(
        self, on_revoked: Callable[[Identity], None], on_limited: Callable[[Identity], None], now: float
    ) -> None:
        for credential, identity in list(self._in_use.items()):
            current = self._plain.get(credential) or self._stored.get(credential)
            if current is None or current.has_expired(now):
                del self._in_use[credential]
                on_revoked(identity)
            elif current.limits != identity.limits:
                self._in_use[credential] = current
                on_limited(current)

    async def _note_used(self) -> None:
        if not self._used or self._database is None:
            return
        used, self._used = self._used, {}
        self._noted_at = trio.current_time()
        try:
            await self._database.note(queries.tokens_used, used)
        except DatabaseError as error:
            logger.warning("when tokens were used last is not written down: %s", error)
            self._used = used | self._used


def _identity_of(record: TokenRecord) -> Identity | None:
    """Return whom a token of the database stands for; nobody, if what it may, or how much, cannot be understood."""
    try:
        grants = EVERYTHING if record.may is None else Grants.parse(record.may)
        limits = NO_LIMITS if record.limits is None else Limits.parse(record.limits)
    except ConfigurationError as error:
        logger.error("the token %s is not good for anything: %s", record.name, error)
        return None
    return Identity(
        name=record.name,
        grants=grants,
        max_tunnels=record.max_tunnels,
        limits=limits,
        expires=record.expires,
        credential=record.hash,
    )
