"""The corpus's files as values.  `corpus/README.md` says how they are written."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

from .messages import Field, Request

CORPUS: Final = Path(__file__).parent / "corpus"

CANARY: Final = Request("GET", "/canary")
"""What the next visitor on a reused connection would ask for."""

CANARY_BYTES: Final = b"GET /canary HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"

_ESCAPE: Final = re.compile(r"\\(?:([rnt\\])|x([0-9a-f]{2})|\((.+?)\*([0-9]+)\))|(\\)", re.DOTALL)
_CONTROLS: Final = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}


class MalformedCase(Exception):
    """A file of the corpus that says something that it cannot mean."""


def to_bytes(text: str) -> bytes:
    """Return the bytes that *text* stands for: its own line ends mean nothing, all others are written as escapes."""

    def replace(match: re.Match[str]) -> str:
        control, code, piece, count, stray = match.groups()
        if stray:
            raise MalformedCase(f"a stray backslash: {text[match.start() : match.start() + 20]!r}")
        if control:
            return _CONTROLS[control]
        return chr(int(code, 16)) if code else _ESCAPE.sub(replace, piece) * int(count)

    if not text.isascii():
        raise MalformedCase(f"not ASCII: {text[:200]!r}")
    return _ESCAPE.sub(replace, text.replace("\n", "")).encode("latin-1")


def _to_text(text: str) -> str:
    return to_bytes(text).decode("latin-1")


def _to_fields(table: Mapping[str, str]) -> tuple[Field, ...]:
    return tuple((name, _to_text(value)) for name, value in table.items())


@attrs.frozen(kw_only=True)
class Wanted:
    """A request that the origin must see; *fields* must be there with just these values, those of *without* not."""

    request: Request
    fields: tuple[Field, ...] = ()
    without: tuple[str, ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> "Wanted":
        """Read an entry of ``passes``."""
        told = dict(table)
        fields, without = _to_fields(told.pop("fields", {})), tuple(told.pop("without", ()))
        told = {name: _to_text(value) if isinstance(value, str) else value for name, value in told.items()}
        told["trailers"] = _to_fields(told.pop("trailers", {}))
        return cls(request=Request(**told), fields=fields, without=without)


Refusals = frozenset[int | Literal["closed"]]


@attrs.frozen(kw_only=True)
class RequestCase:
    """What a visitor sends, and what must come of it.

    *passes* are the requests that the origins must see.  With *refused* the next one gets such a status, or the
    connection is closed without one, and nothing behind it is looked at.  With *may_refuse* the last of *passes* may
    get such a status instead.  *is_chunked* says that a chunked request is rightly passed on, so that an origin that
    does not know of chunks has no part in it.  *then* is what comes behind: a canary, which is answered unless the
    connection *closes* before, or the end of what the visitor sends.
    """

    name: str
    source: str
    danger: str
    sent: bytes
    passes: tuple[Wanted, ...] = ()
    refused: Refusals = frozenset()
    may_refuse: Refusals = frozenset()
    is_chunked: bool = False
    then: Literal["canary", "end"] = "canary"
    closes: Literal["no", "yes", "maybe"] = "no"

    @property
    def wire(self) -> bytes:
        """All that the visitor sends."""
        return self.sent + CANARY_BYTES * (self.then == "canary")

    @property
    def methods(self) -> list[str]:
        """Of the requests that are answered, if all goes well."""
        return [wanted.request.method for wanted in self.passes]


@attrs.frozen(kw_only=True)
class WantedAnswer:
    """An answer that the visitor must get."""

    status: int
    body: str = attrs.field(default="", converter=_to_text)
    fields: tuple[Field, ...] = attrs.field(default=(), converter=lambda table: _to_fields(dict(table)))
    without: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    trailers: tuple[Field, ...] = attrs.field(default=(), converter=lambda table: _to_fields(dict(table)))


@attrs.frozen(kw_only=True)
class ResponseCase:
    """What an origin answers, and what the visitor must get: *passes*, a page, or a visibly short answer.

    The visitor sends *asked*, a request for ``/case`` unless it says otherwise, and the canary right behind it.  *then*
    is what the origin does with the connection after its answer.
    """

    name: str
    source: str
    danger: str
    sent: bytes
    asked: bytes
    method: str = "GET"
    passes: WantedAnswer | None = None
    refused: Refusals = frozenset()
    may_be_cut: bool = False
    then: Literal["keep", "end", "reset"] = "keep"
    closes: Literal["no", "yes", "maybe"] = "no"

    @property
    def is_surplus(self) -> bool:
        """Whether the origin says more than an answer, and goes on as if it had not."""
        return self.then == "keep" and self.closes == "maybe"


def _load(folder: str) -> list[tuple[str, dict[str, object]]]:
    return [(path.stem, tomllib.loads(path.read_text())) for path in sorted((CORPUS / folder).glob("*.toml"))]


def _request_case(name: str, told: dict[str, object]) -> RequestCase:
    told["sent"] = to_bytes(told["sent"])
    told["passes"] = tuple(Wanted.from_table(table) for table in told.pop("passes", ()))
    for key in "refused", "may_refuse":
        told[key] = frozenset(told.pop(key, ()))
    case = RequestCase(name=name, **told)
    if not (case.passes or case.refused) or (case.may_refuse and (case.refused or not case.passes)):
        raise MalformedCase(f"{name} does not say what is expected")
    return case


def _response_case(name: str, told: dict[str, object]) -> ResponseCase:
    told["sent"] = to_bytes(told["sent"])
    told["asked"] = to_bytes(told.pop("asked", r"GET /case HTTP/1.1\r\nHost: app.test\r\n\r\n"))
    told["method"] = told["asked"].partition(b" ")[0].decode()
    told["passes"] = WantedAnswer(**told["passes"]) if "passes" in told else None
    told["refused"] = frozenset(told.pop("refused", ()))
    case = ResponseCase(name=name, **told)
    if case.passes is None and not case.refused:
        raise MalformedCase(f"{name} does not say what is expected")
    return case


REQUEST_CASES: Final = [_request_case(name, told) for name, told in _load("requests")]
RESPONSE_CASES: Final = [_response_case(name, told) for name, told in _load("responses")]
