"""What can be asked on the admin socket, read strictly: unknown fields are mistakes, and nothing is converted."""

from typing import Final, TypeAlias

import attrs

from ...control.excerpt import excerpt
from ...control.strict_json import KIND_NAMES, parse_object
from ...errors import BadMessage, ConfigurationError, OtunError
from ..bans import MAX_REASON, check_banned_network, check_reason

MAX_LINE: Final = 4096
"""Bytes of a request: a ban with the longest reason has half as many."""

MAX_TIME: Final = 2**40
"""Seconds since the epoch: any more is a mistake, and far from what SQLite can keep."""

_MAX_TARGET: Final = 260
"""Characters of whom to kick: host names have 253."""


class BadCommand(OtunError):
    """A request that is not carried out; *code* says why for programs."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class StatusWanted:
    """How the server is."""


@attrs.frozen
class SessionsWanted:
    """The sessions with larger numbers than *after*."""

    after: int = 0


@attrs.frozen
class Kick:
    """End a session, or those of a tunnel."""

    who: str


@attrs.frozen
class AddBan:
    """Ban a network."""

    network: str
    until: int | None = None
    reason: str = ""


@attrs.frozen
class RemoveBan:
    """Let a network in again."""

    network: str


@attrs.frozen
class BansWanted:
    """The bans behind that of *after*."""

    after: str = ""


@attrs.frozen
class TakeOver:
    """Another server wants this one's sockets."""


@attrs.frozen
class Leave:
    """Another server, which has them, is ready."""


Command: TypeAlias = StatusWanted | SessionsWanted | Kick | AddBan | RemoveBan | BansWanted
"""What operators ask for."""

Request: TypeAlias = Command | TakeOver | Leave


class Lines:
    """Cuts a byte stream into lines.

    If it is fed when `next_line` has returned None only, it keeps `MAX_LINE` bytes and those that were fed last.
    """

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def has_begun(self) -> bool:
        """Whether there is a part of a line."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray) -> None:
        """Take the next bytes of the stream."""
        self._buffer += data

    def next_line(self) -> bytes | None:
        """Return the next line, None if more bytes are needed.  Raises `BadCommand` for one that is too long."""
        line, end, rest = self._buffer.partition(b"\n")
        if len(line) > MAX_LINE:
            raise BadCommand(f"a request is longer than {MAX_LINE} bytes")
        if not end:
            return None
        self._buffer = rest
        return line


def parse_request(line: bytes) -> Request:
    """Read a request.  Raises `BadCommand`."""
    try:
        fields = _Fields(parse_object(line, "a request"))
        request = _read(fields)
        fields.check_all_read()
    except (BadMessage, ConfigurationError) as error:
        raise BadCommand(str(error)) from error
    return request


def _read(fields: "_Fields") -> Request:
    match fields.text("do", 20):
        case "status":
            return StatusWanted()
        case "sessions":
            return SessionsWanted(fields.number("after") or 0)
        case "kick":
            return Kick(fields.text("who", _MAX_TARGET))
        case "ban":
            network = check_banned_network(fields.text("network", 60), is_forced=fields.is_set("force"))
            reason = fields.optional_text("reason", MAX_REASON) or ""
            return AddBan(network, fields.number("until"), check_reason(reason))
        case "unban":
            return RemoveBan(check_banned_network(fields.text("network", 60), is_forced=True))
        case "bans":
            return BansWanted(fields.optional_text("after", 60) or "")
        case "take_over":
            return TakeOver()
        case "leave":
            return Leave()
        case other:
            raise BadMessage(f"a request wants {excerpt(other)}, which this server cannot do")


class _Fields:
    """The fields of a request, and which of them were looked at.  A field that is null counts as absent."""

    def __init__(self, fields: dict[str, object]) -> None:
        self._left = {name: value for name, value in fields.items() if value is not None}

    def text(self, name: str, limit: int) -> str:
        found = self.optional_text(name, limit)
        if found is None:
            raise BadMessage(f"a request has no field {name!r}")
        return found

    def optional_text(self, name: str, limit: int) -> str | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, str):
            raise BadMessage(f"{name}: expected a string, got {KIND_NAMES[type(value)]}")
        if len(value) > limit:
            raise BadMessage(f"{name}: {len(value)} characters are more than {limit}")
        return value

    def number(self, name: str) -> int | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadMessage(f"{name}: expected a whole number, got {KIND_NAMES[type(value)]}")
        if not 0 <= value <= MAX_TIME:
            raise BadMessage(f"{name}: {excerpt(str(value))[1:-1]} is not between 0 and {MAX_TIME}")
        return value

    def is_set(self, name: str) -> bool:
        value = self._left.pop(name, False)
        if not isinstance(value, bool):
            raise BadMessage(f"{name}: expected a boolean, got {KIND_NAMES[type(value)]}")
        return value

    def check_all_read(self) -> None:
        for name in self._left:
            raise BadMessage(f"a request has the unknown field {excerpt(name)}")
