"""What stands in log lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.tls.acme.wording import MAX_QUOTED, in_words, one_line


@given(st.text())
def test_any_text_becomes_one_short_printable_line(text: str) -> None:
    line = one_line(text)
    assert len(line) <= MAX_QUOTED
    assert not line or line.isprintable()


def test_long_text_is_cut() -> None:
    assert one_line("x" * 10_000) == "x" * (MAX_QUOTED - 3) + "..."
    assert one_line("DNS problem:\r\n\x1b[31mNXDOMAIN\x00") == "DNS problem: [31mNXDOMAIN"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1, "1 second"),
        (45, "45 seconds"),
        (60, "1 minute"),
        (89, "1 minute"),
        (120, "2 minutes"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
        (7 * 86400, "7 days"),
    ],
)
def test_durations_are_rounded(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
