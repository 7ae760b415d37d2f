"""A tunnel's name: one DNS label (RFC 1123, section 2.1), in lower case."""

import re
from collections.abc import Callable
from typing import Final

from ..errors import InvalidName
from .excerpt import excerpt

RANDOM_NAME_LENGTH: Final = 8
"""Characters of a name that the server chooses: 36**8 names, too many to stumble upon another's."""

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"

# Checked before lower-casing, which would turn a Kelvin sign into a k.
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def random_name(choose: Callable[[str], str]) -> str:
    """Return a new name, each character of it picked by *choose* from a string, as `secrets.choice` does."""
    return "".join(choose(_ALPHABET) for _ in range(RANDOM_NAME_LENGTH))


def normalize_name(text: str) -> str:
    """Return *text* in lower case: equal names are equal strings.  Raises `InvalidName` unless it is a DNS label."""
    if not _LABEL.fullmatch(text):
        raise InvalidName(
            f"{excerpt(text)} is no name for a tunnel: write 1 to 63 letters a-z, digits and hyphens, "
            "with no hyphen first or last"
        )
    return text.lower()
