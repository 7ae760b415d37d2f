"""What a request says of who sends it: the Basic scheme (RFC 7617)."""

import binascii
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..http.fields import Field
from .passwords import CONTROL_CHARACTER, MAX_PASSWORD_SIZE, MAX_USER_SIZE, normalized

AUTHORIZATION: Final = b"authorization"

_SCHEME: Final = b"basic "
_MAX_ENCODED: Final = (MAX_USER_SIZE + 1 + MAX_PASSWORD_SIZE) * 4
"""Characters of base64 that are looked at: four for three bytes, of text that may get three times shorter composed."""


class Credentials(NamedTuple):
    """A user's name and a password, both as they are compared."""

    user: str
    password: str

    def __repr__(self) -> str:
        return "<Credentials>"


def find_authorization(fields: Iterable[Field]) -> bytes | None:
    """Return the one Authorization of a request; None when there is none, or more."""
    found = [value for name, value, _, _ in fields if name == AUTHORIZATION]
    return found[0] if len(found) == 1 else None  # One for us and one for somebody else?


def read_basic(value: bytes) -> Credentials | None:
    """Return what an Authorization says in the Basic scheme and UTF-8; None for anything else, without a reason."""
    if value[:6].lower() != _SCHEME or len(value) > len(_SCHEME) + _MAX_ENCODED:
        return None
    try:
        text = binascii.a2b_base64(value[6:].strip(b" "), strict_mode=True).decode()
    except ValueError:  # Of both kinds: no base64, no UTF-8.
        return None
    user, colon, password = text.partition(":")
    if not colon or CONTROL_CHARACTER.search(text):
        return None
    return Credentials(normalized(user), normalized(password))
