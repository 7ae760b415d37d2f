"""Points in time, and spans, as people write them: `30s`, `12h`, `30d`, `2026-12-31`; times are shown in UTC."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from ..errors import ConfigurationError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = r"([0-9]{1,7})([smhdw])"
_LONGEST: Final = timedelta(days=36525)
"""A century: what is meant to be longer is meant to be for good."""


def parse_duration(text: str) -> float:
    """Read `30s`, `12h` or `30d` as seconds; 0 is none.  Raises `ConfigurationError`."""
    return 0.0 if text == "0" else _parse_span(text).total_seconds()


def parse_delay(text: str) -> float:
    """Read `5s`, `0.5s` or `2m` as seconds; 0 is none.  Raises `ConfigurationError`."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([sm])|0", text)
    if match is None:
        raise ConfigurationError(f"{text[:60]!r} is no span of time; write 5s, 0.5s or 2m, or 0 for none")
    return float(match[1] or 0) * (60 if match[2] == "m" else 1)


def parse_end(text: str, now: float) -> int:
    """Read a time to come, in seconds since the epoch: from *now* on, or the beginning of a day in UTC.

    Raises `ConfigurationError`.
    """
    present = datetime.fromtimestamp(now, UTC)
    if re.fullmatch(_SPAN, text):
        return int((present + _parse_span(text)).timestamp())
    end = _parse_day(text)
    if not present < end <= present + _LONGEST:
        raise ConfigurationError(f"{text!r} is {'past' if end <= present else 'more than a hundred years away'}")
    return int(end.timestamp())


def _parse_span(text: str) -> timedelta:
    match = re.fullmatch(_SPAN, text)
    if match is None:
        raise ConfigurationError(f"{text[:60]!r} is no span of time; write 30s, 10m, 12h, 7d or 4w")
    span = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not timedelta() < span <= _LONGEST:
        raise ConfigurationError(f"{text!r} is not between a second and a hundred years")
    return span


def _parse_day(text: str) -> datetime:
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        except ValueError as error:
            raise ConfigurationError(f"{text!r} is no day of the calendar") from error
    raise ConfigurationError(f"{text[:60]!r} is no time to come; write 12h, 30d or 2026-12-31")


def show_time(at: int | None) -> str:
    """Return a time for people, in UTC: `2026-12-31 12:00`, or a hyphen for none."""
    return "-" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def write_time(at: int | None) -> str | None:
    """Return a time for programs, by RFC 3339: `2026-12-31T12:00:00Z`."""
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
