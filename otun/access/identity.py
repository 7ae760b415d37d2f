"""Whom a token stands for."""

import re
from typing import Final

import attrs

from ..control.excerpt import excerpt
from ..errors import InvalidName
from .grants import EVERYTHING, Grants
from .limits import NO_LIMITS, Limits

MAX_TUNNELS: Final = 1_000_000
"""The largest limit on tunnels that a token may have: any more is a mistake in typing."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@attrs.frozen(kw_only=True)
class Identity:
    """Whoever has shown a token, or nobody in particular.

    *name* is the token's, and what names are reserved for; it is no secret.  *credential* tells apart the secrets that
    a token has had: the sessions of an old one end when there is a new one.  It proves nothing, and is not shown.
    *max_tunnels* counts over all sessions of the identity, and None is no limit; *limits* are those of its visitors.
    *expires* is in seconds since the epoch.
    """

    name: str
    grants: Grants = EVERYTHING
    max_tunnels: int | None = None
    limits: Limits = NO_LIMITS
    expires: float | None = None
    credential: bytes = attrs.field(default=b"", repr=False)
    is_anonymous: bool = False

    def has_expired(self, now: float) -> bool:
        """Whether it stands for nobody any more; *now* is in seconds since the epoch."""
        return self.expires is not None and now >= self.expires


ANONYMOUS: Final = Identity(name="(anyone)", is_anonymous=True)
"""Everybody, on a server that asks for no token.  No token can have this name."""


def normalize_token_name(text: str) -> str:
    """Return *text* in lower case, if it can be the name of a token.  Raises `InvalidName`."""
    if not _NAME.fullmatch(text):
        raise InvalidName(
            f"{excerpt(text)} is no name for a token: write 1 to 64 letters a-z, digits and . _ @ -, "
            "the first a letter or a digit"
        )
    return text.lower()
