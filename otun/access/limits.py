"""How much a token's visitors may do, as it is written down: `requests=100,bandwidth=10MB,tunnel.visitors=50`.

`requests` are a second, `visitors` at a time, `bandwidth` is in bytes a second, both directions together, and `daily`
in bytes a day of UTC.  Each holds for the token as a whole, over all its sessions and tunnels; with `tunnel.` before
it, for each of its tunnels.  What is not named is not limited.
"""

import re
from collections.abc import Callable
from typing import Final

import attrs

from ..control.excerpt import excerpt
from ..errors import ConfigurationError

MAX_COUNT: Final = 1_000_000
"""The largest number of requests or visitors: any more is a mistake in typing, and no limit anyway."""

MIN_BYTES: Final = 1_000
MAX_BANDWIDTH: Final = 10**12
MAX_DAILY: Final = 10**15

MAX_LENGTH: Final = 1_000
"""Characters of the text, which has eight items at most."""

_HELP: Final = (
    "write requests=100, bandwidth=10MB, visitors=50 or daily=5GB, with commas between them, "
    "and tunnel. before what is meant for each tunnel"
)
_SEPARATORS: Final = re.compile(r"[, \t\r\n]+")
_SIZE: Final = re.compile(r"([0-9]{1,18})([kmgt]?)b?", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TUNNEL: Final = "tunnel."


def parse_bandwidth(text: str) -> int:
    """Read bytes a second, such as `10MB`.  Raises `ConfigurationError`."""
    return _parse_size(text, MAX_BANDWIDTH)


def parse_daily(text: str) -> int:
    """Read bytes a day, such as `5GB`.  Raises `ConfigurationError`."""
    return _parse_size(text, MAX_DAILY)


def show_size(size: int) -> str:
    """Return *size* in the largest unit in which it is whole: `1500kB`."""
    for unit in ("T", "G", "M", "k"):
        if size and size % _UNITS[unit.lower()] == 0:
            return f"{size // _UNITS[unit.lower()]}{unit}B"
    return str(size)


@attrs.frozen(kw_only=True)
class Quota:
    """How much may be done in one scope; None is any amount.

    *requests* are a second, *bandwidth* in bytes a second, *visitors* at a time, *daily* in bytes a day.
    """

    requests: int | None = None
    bandwidth: int | None = None
    visitors: int | None = None
    daily: int | None = None

    def stricter(self, other: "Quota") -> "Quota":
        """Return what both allow."""
        return Quota(
            requests=_least(self.requests, other.requests),
            bandwidth=_least(self.bandwidth, other.bandwidth),
            visitors=_least(self.visitors, other.visitors),
            daily=_least(self.daily, other.daily),
        )


UNLIMITED: Final = Quota()


@attrs.frozen
class Limits:
    """What a token may use: *whole* over all its sessions and tunnels, *tunnel* each of those.

    Equal ones have the same text: `str` gives it, in a fixed order.
    """

    whole: Quota = UNLIMITED
    tunnel: Quota = UNLIMITED

    @classmethod
    def parse(cls, text: str) -> "Limits":
        """Read limits with commas or white space between them.  Raises `ConfigurationError`."""
        if len(text) > MAX_LENGTH:
            raise ConfigurationError(f"that is too long for limits: {len(text)} characters of {MAX_LENGTH}")
        items = [item for item in _SEPARATORS.split(text) if item]
        if not items:
            raise ConfigurationError(f"which limits? {_HELP}")
        found: dict[str, int] = {}
        for item in items:
            name, value = _parse_item(item)
            if name in found:
                raise ConfigurationError(f"{name} has two limits: write one")
            found[name] = value
        whole = {name: value for name, value in found.items() if not name.startswith(_TUNNEL)}
        tunnel = {name.removeprefix(_TUNNEL): value for name, value in found.items() if name not in whole}
        return cls(Quota(**whole), Quota(**tunnel))

    def __str__(self) -> str:
        return ",".join([*_written(self.whole, ""), *_written(self.tunnel, _TUNNEL)])


NO_LIMITS: Final = Limits()


def _parse_count(text: str) -> int:
    number = int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
    if not 1 <= number <= MAX_COUNT:
        raise ConfigurationError(f"{excerpt(text)} is no number from 1 to {MAX_COUNT}")
    return number


def _parse_size(text: str, most: int) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"{excerpt(text)} is no number of bytes: write it as 500kB, 10MB or 5GB")
    size = int(match[1]) * _UNITS[match[2].lower()]
    if not MIN_BYTES <= size <= most:
        raise ConfigurationError(f"{excerpt(text)} is not between {show_size(MIN_BYTES)} and {show_size(most)}")
    return size


_PARSERS: Final[dict[str, Callable[[str], int]]] = {
    "requests": _parse_count,
    "bandwidth": parse_bandwidth,
    "visitors": _parse_count,
    "daily": parse_daily,
}


def _parse_item(item: str) -> tuple[str, int]:
    """Return the name and the value of one limit.  Raises `ConfigurationError`."""
    written, equals, value = item.partition("=")
    name = written.lower()
    parse = _PARSERS.get(name.removeprefix(_TUNNEL))
    if parse is None or not equals:
        raise ConfigurationError(f"{excerpt(item)} is no limit: {_HELP}")
    try:
        return name, parse(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _written(quota: Quota, prefix: str) -> list[str]:
    counts = {"requests": quota.requests, "visitors": quota.visitors}
    sizes = {"bandwidth": quota.bandwidth, "daily": quota.daily}
    texts = {name: str(count) for name, count in counts.items() if count is not None}
    texts |= {name: show_size(size) for name, size in sizes.items() if size is not None}
    return [f"{prefix}{name}={texts[name]}" for name in _PARSERS if name in texts]


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
