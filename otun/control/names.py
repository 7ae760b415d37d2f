"""Names of tunnels, each one DNS label (RFC 1123, section 2.1), and whole host names; both in lower case."""

import re
from collections.abc import Callable, Iterator
from typing import Final

import idna

from ..errors import InvalidName
from .excerpt import excerpt

RANDOM_NAME_LENGTH: Final = 8
"""Characters of a name that the server chooses: 36**8 names, too many to stumble upon another's."""

MAX_HOSTNAME_LENGTH: Final = 253
"""Characters of a host name (RFC 1035, section 2.3.4, less the length octets)."""

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


def normalize_hostname(text: str) -> str:
    """Return a host name, or a wildcard such as ``*.example.org``, as it is compared: in lower case and A-labels.

    Names with other letters than ASCII are converted by UTS #46, as browsers do.  Raises `InvalidName`.
    """
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    name = name.removesuffix(".")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            name = ""
    if not 0 < len(name) <= MAX_HOSTNAME_LENGTH or not all(map(_LABEL.fullmatch, name.split("."))):
        raise InvalidName(f"{excerpt(text)} is no host name; write one such as shop.example.org or *.app.example.org")
    return f"{wildcard}{name.lower()}"


def covers(pattern: str, hostname: str) -> bool:
    """Whether *pattern*, a host name or wildcard, allows *hostname*, which may be a wildcard, too."""
    return pattern == hostname or (pattern.startswith("*.") and hostname.endswith(pattern[1:]))


def wildcards_over(hostname: str) -> Iterator[str]:
    """Return the wildcards that mean *hostname*, which may be one, too: the longest first, and not itself."""
    _, dot, rest = hostname.removeprefix("*.").partition(".")
    while dot:
        yield f"*.{rest}"
        _, dot, rest = rest.partition(".")
