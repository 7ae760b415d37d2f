"""Text for log lines: what an authority or a program said, made harmless, and durations."""

from typing import Final

MAX_QUOTED: Final = 300
"""Characters of somebody else's text in a log line: the problems that Let's Encrypt reports are shorter."""


def one_line(text: str) -> str:
    """Return *text* on one line without control characters, and cut to `MAX_QUOTED`."""
    start = text[: 4 * MAX_QUOTED]
    clean = " ".join("".join(letter if letter.isprintable() else " " for letter in start).split())
    return clean if len(clean) <= MAX_QUOTED else clean[: MAX_QUOTED - 3] + "..."


def in_words(seconds: float) -> str:
    """Return a duration as people say it, rounded."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds >= 59.5:
        return "1 minute"
    number = max(round(seconds), 1)
    return f"{number} second{'s' * (number != 1)}"
