"""Text from elsewhere, made safe for a terminal: no control characters, no invisible or reordering ones."""

import re

# Characters that `str.isprintable` lets through although nobody can see them: the Hangul fillers, the empty braille
# pattern, the combining grapheme joiner, two Khmer vowels, and the variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_CUT = "…"


def escape_text(text: str, *, limit: int = 4096) -> str:
    """Return *text* as one visible line of at most *limit* characters, for messages that may be in any language.

    Printable characters stay as they are; the others appear as Python would write them (`\\n`, `\\x1b`, `\\u202e`).
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    return _join([c if c.isprintable() and not _INVISIBLE.match(c) else _escape(c) for c in text[: limit + 1]], limit)


def escape_visitor_text(text: str, *, limit: int) -> str:
    """Return what a visitor sent as at most *limit* ASCII characters without spaces.

    Backslashes are doubled, so that an escape in the result is never the visitor's own spelling.  The mark of what was
    cut off is no ASCII character: a visitor cannot forge it.
    """
    return _join([r"\x20" if c == " " else _escape(c) for c in text[: limit + 1]], limit)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _join(pieces: list[str], limit: int) -> str:
    """Join *pieces*, or as many whole ones as fit together with the mark that says that some are missing."""
    joined = "".join(pieces)
    if len(joined) <= limit:
        return joined
    room = limit - len(_CUT)
    kept: list[str] = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + _CUT
