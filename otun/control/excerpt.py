"""A peer's text, made fit for an error message."""

from typing import Final

_MAX_LENGTH: Final = 60
"""Characters of a quotation, its quotes and escapes included: enough to recognise a text, and it fits on one line."""


def excerpt(text: str) -> str:
    """Return *text* in quotes, on one line of printable ASCII, and cut to 60 characters."""
    quoted = ascii(text[:_MAX_LENGTH])
    return quoted if len(quoted) <= _MAX_LENGTH else quoted[: _MAX_LENGTH - 3] + "..."
