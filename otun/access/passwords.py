"""Users and their passwords: what may be one, and the hashes by which they are known.

A password is hashed by argon2id beside the local service, and only the hash is sent.  Whoever has the hash can try out
passwords, but at some 30 ms each, as recommended for people's passwords (RFC 9106; OWASP's first choice).
"""

import re
import unicodedata
from typing import Final

import attrs

from ..errors import ConfigurationError

MAX_USER_SIZE: Final = 128
"""Bytes of a user's name."""

MAX_PASSWORD_SIZE: Final = 512
"""Bytes of a password."""

MAX_LOGINS: Final = 32
"""Users of one tunnel.  Each request that is not known yet is compared with all of them."""

# What this program chooses, for whom a visitor waits: 19 MiB, two passes, one thread.
_MEMORY: Final = 19 * 1024
_TIME: Final = 2
_PARALLELISM: Final = 1

# What a server does for a client: its own choice, or argon2-cffi's and RFC 9106's (64 MiB, 3 passes, 4 lanes).
MAX_MEMORY: Final = 64 * 1024
"""KiB that checking a password may take: with two at a time, 128 MiB."""

MAX_TIME: Final = 4
"""Passes over that memory: at most some 300 ms."""

MAX_PARALLELISM: Final = 4

_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"  # Salts of 8 to 64 bytes, and hashes of 16 to 64.
)
_ARGON2ID: Final = "$argon2id$"

# As crypt(3) and htpasswd write them.  Taken for a password, it would be one that nobody knows to be one.
_OTHER_HASH: Final = re.compile(r"\$[A-Za-z0-9-]{1,16}\$|\{(?:S?SHA|MD5|CRYPT)[0-9]*\}", re.IGNORECASE)

CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What neither a user's name nor a password may have (RFC 7617, section 2)."""


@attrs.frozen
class Login:
    """A user, and the hash of the password.  Made by `Login.parse`."""

    user: str
    hash: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return f"{self.user}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> "Login":
        """Read `USER:$argon2id$…`.  Raises `ConfigurationError`, whose text does not repeat what it was given."""
        user, _, hashed = text.partition(":")
        _check_user(user)
        match = _HASH.fullmatch(hashed)
        if match is None:
            raise ConfigurationError("a log-in is USER:$argon2id$… with a whole hash")
        memory, time, parallelism = map(int, match.groups()[:3])
        if memory > MAX_MEMORY or time > MAX_TIME or parallelism > MAX_PARALLELISM or memory < 8 * parallelism:
            raise ConfigurationError(
                f"a password's hash takes at most m={MAX_MEMORY} (KiB), t={MAX_TIME} and p={MAX_PARALLELISM}, and m "
                "is at least 8 times p"
            )
        if any(len(part) % 4 == 1 for part in match.groups()[3:]):
            raise ConfigurationError("a log-in is USER:$argon2id$… with a whole hash")
        return cls(user, hashed)

    def is_right(self, password: str) -> bool:
        """Whether *password* is the user's.  It takes long: call it in a thread.  Raises argon2's errors."""
        from argon2.exceptions import VerifyMismatchError  # Slow to import, and hardly ever needed.
        from argon2.low_level import Type, verify_secret

        try:
            return verify_secret(self.hash.encode(), password.encode(), Type.ID)
        except VerifyMismatchError:
            return False


def normalized(text: str) -> str:
    """Return *text* as both ends compare it: composed (RFC 7617, section 2.1, RFC 8265, section 4.2)."""
    return unicodedata.normalize("NFC", text)


def check_login(text: str) -> str:
    """Return `USER:PASSWORD` or `USER:$argon2id$…`, if it can be used: the former normalized.

    Raises `ConfigurationError`, whose text does not repeat what it was given.
    """
    user, colon, password = text.partition(":")
    if not colon:
        raise ConfigurationError("a log-in is USER:PASSWORD, or USER:$argon2id$… with a hash")
    if password.startswith(_ARGON2ID):
        return str(Login.parse(f"{normalized(user)}:{password}"))
    user, password = normalized(user), normalized(password)
    _check_user(user)
    if _OTHER_HASH.match(password):
        raise ConfigurationError("the password looks like a hash, and of these only argon2id's are understood")
    if not password:
        raise ConfigurationError("the password is empty")
    _check_text("password", password, MAX_PASSWORD_SIZE)
    return f"{user}:{password}"


def check_logins(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return all of them, as `check_login` does.  Raises `ConfigurationError`, for too many or the same user, too."""
    checked = tuple(map(check_login, texts))
    check_users([text.partition(":")[0] for text in checked])
    return checked


def check_users(users: list[str]) -> None:
    """Raise `ConfigurationError` if they are too many, or one stands for two."""
    if len(users) > MAX_LOGINS:
        raise ConfigurationError(f"a tunnel has at most {MAX_LOGINS} users who can log in")
    if len(set(users)) < len(users):
        raise ConfigurationError("a user has two passwords: each has one")


def hash_login(text: str) -> str:
    """Return what `check_login` has returned with the hash in the password's place.  It takes long, too."""
    user, _, password = text.partition(":")
    if password.startswith(_ARGON2ID):
        return text
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=_TIME, memory_cost=_MEMORY, parallelism=_PARALLELISM)
    return f"{user}:{hasher.hash(password)}"


def hash_logins(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return all of them, in the same way."""
    return tuple(map(hash_login, texts))


def _check_user(user: str) -> None:
    if not user:
        raise ConfigurationError("the user's name is empty: a log-in is USER:PASSWORD")
    _check_text("user's name", user, MAX_USER_SIZE)
    if user != normalized(user):
        raise ConfigurationError("the user's name is not in Unicode's normal form C")


def _check_text(what: str, text: str, max_size: int) -> None:
    if CONTROL_CHARACTER.search(text):
        raise ConfigurationError(f"the {what} has control characters")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"the {what} is not UTF-8 text") from None
    if size > max_size:
        raise ConfigurationError(f"the {what} is over {max_size} bytes")
