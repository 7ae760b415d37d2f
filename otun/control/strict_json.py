"""JSON objects, read strictly (RFC 8259, I-JSON's rules on duplicate names and surrogates).

Whatever two ends could understand differently is a hole sooner or later.
"""

import json
import re
from typing import Final, NoReturn

from ..errors import BadMessage
from .excerpt import excerpt

MAX_NUMBER_LENGTH: Final = 64
"""Characters of a number.  Any 64-bit integer or double fits in 25; converting long ones takes quadratic time."""

KIND_NAMES: Final[dict[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

_UP_TO_LONE_SURROGATE: Final = re.compile(
    r"""(?: [^\\]++ | \\[^u]                               # characters and short escapes
          | \\u (?![dD][89a-fA-F])                         # any other code unit,
          | \\u [dD][89abAB].. \\u (?=[dD][c-fC-F])        # a high surrogate with its low one
        )*+""",
    re.VERBOSE | re.DOTALL,
)


def parse_object(data: bytes, what: str) -> dict[str, object]:
    """Return the fields of the JSON object that *data* is.  Raises `BadMessage`, about *what*, "a request" for one."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadMessage(f"{what} is not valid UTF-8 at byte {error.start}") from None
    try:
        found: object = _JSON_DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadMessage(f"{what} is not valid JSON: {error.msg} (character {error.pos})") from None
    except BadMessage as error:
        raise BadMessage(f"{what} {error}") from None
    except RecursionError:
        raise BadMessage(f"{what} is nested too deep") from None
    lone = find_lone_surrogate(text)
    if lone is not None:
        raise BadMessage(f"{what} holds half of a surrogate pair (character {lone})")
    if not isinstance(found, dict):
        raise BadMessage(f"{what} must be a JSON object, not {KIND_NAMES[type(found)]}")
    return found


def find_lone_surrogate(text: str) -> int | None:
    r"""Return where valid JSON has a `\uD800` to `\uDFFF` without its other half."""
    if "\\u" not in text:
        return None
    found = _UP_TO_LONE_SURROGATE.match(text)
    assert found is not None
    return found.end() if found.end() < len(text) else None


def _object_from_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadMessage(f"has the field {excerpt(name)} twice")
            seen.add(name)
    return fields


def _read_integer(text: str) -> int:
    _require_short_number(text)
    return int(text)


def _read_fraction(text: str) -> float:
    _require_short_number(text)
    return float(text)


def _require_short_number(text: str) -> None:
    if len(text) > MAX_NUMBER_LENGTH:
        raise BadMessage(f"has a number of {len(text)} characters; {MAX_NUMBER_LENGTH} are allowed")


def _refuse_constant(name: str) -> NoReturn:
    raise BadMessage(f"has the number {name}, which is not JSON")


_JSON_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object_from_pairs,
    parse_int=_read_integer,
    parse_float=_read_fraction,
    parse_constant=_refuse_constant,
)
