"""What a path may mean to somebody else.

Requests are routed by their paths as they were sent, and passed on so.  But the service behind a tunnel may decode a
path, drop what it takes for nothing, and end up elsewhere: `//admin`, `/%61dmin`, `/x/..;/admin` and `/Admin` are all
`/admin` to some.  Where tunnels share a host, and one of them asks who comes, several may well lead to the same
service: then a path that could be read as that one's must not go through another.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

_MAX_SEGMENTS: Final = 100
"""Segments of a path that is looked at closely: reading one of 8 KiB in every way would take 10 ms."""

# Nothing in it is removed, decoded or taken for something else by anybody.
_PLAIN: Final = re.compile(rb"(?:/[a-z0-9_~!$&'()*+,=:@-]+(?:\.[a-z0-9_~!$&'()*+,=:@-]+)*)*/?")

# Path parameters (RFC 3986, section 3.3), a query that was hidden by encoding, the end of a string in C.
_TAIL: Final = re.compile(rb"[;?#\0].*", re.DOTALL)

_INVISIBLE: Final = b" .\t"  # What Windows drops at the end of a name.


class _Style(NamedTuple):
    """A way to read paths; each of them compares without regard to case, and takes a backslash for a slash."""

    decodings: int = 0  # Proxies and frameworks in a row each do it once.
    has_tails: bool = True  # A segment goes on behind a semicolon.
    has_empty_segments: bool = True  # They are something to go up from, as in RFC 3986, section 5.2.4.


_MOST_DECODINGS: Final = 3
_STYLES: Final = tuple(_Style(*choice) for choice in product(range(_MOST_DECODINGS + 1), (True, False), (True, False)))


def owners_of(path: bytes, prefixes: Sequence[bytes]) -> set[int]:
    """Return the indices of those *prefixes* to which some service could think that *path* belongs.

    *path* is as it stands in a request.  In each reading of it the longest prefix counts, and all that look the same.
    A path that is neither plain nor short could belong to any.
    """
    path = path.partition(b"?")[0]
    styles: Sequence[_Style] = _STYLES
    if _PLAIN.fullmatch(path):
        if all(map(_PLAIN.fullmatch, prefixes)):
            styles = _STYLES[:1]
    else:
        decoded = _decode(path, _MOST_DECODINGS)
        if decoded.count(b"/") + decoded.count(b"\\") > _MAX_SEGMENTS:
            return set(range(len(prefixes)))
    owners: set[int] = set()
    for style in styles:
        owners |= _owners_in_style(_read(path, style), [_read_prefix(prefix, style) for prefix in prefixes])
    return owners


def _owners_in_style(path: tuple[bytes, ...], prefixes: list[tuple[bytes, ...]]) -> set[int]:
    fitting = {index: len(prefix) for index, prefix in enumerate(prefixes) if path[: len(prefix)] == prefix}
    longest = max(fitting.values(), default=0)
    return {index for index, length in fitting.items() if length == longest}


def _read(path: bytes, style: _Style) -> tuple[bytes, ...]:
    """Return the segments of *path*."""
    segments = _decode(path, style.decodings).lower().replace(b"\\", b"/").split(b"/")[1:]
    if not style.has_tails:
        segments = [_TAIL.sub(b"", segment) for segment in segments]
    resolved: list[bytes] = []
    for segment in segments:
        name = segment.rstrip(b" \t")
        if name == b"..":
            del resolved[-1:]
        elif name != b"." and (name or style.has_empty_segments):
            resolved.append(name)
    return tuple(name.rstrip(_INVISIBLE) for name in resolved if name)


_read_prefix = lru_cache(maxsize=4096)(_read)


def _decode(path: bytes, times: int) -> bytes:
    for _ in range(times):
        path = unquote_to_bytes(path)
    return path
