import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otun.cli.escaping import escape_text, escape_visitor_text

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=200)


@given(ANY_TEXT, st.integers(1, 300))
@example("\x1b[31m\n\u202egnp.exe\u200b", 300)
def test_visitor_text_becomes_visible_ascii_words_of_bounded_length(text: str, limit: int) -> None:
    shown = escape_visitor_text(text, limit=limit)
    assert len(shown) <= limit
    assert all("!" <= c <= "~" for c in shown.removesuffix("…"))


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=50))
def test_visitor_text_can_be_read_back_when_nothing_was_cut(text: str) -> None:
    shown = escape_visitor_text(text, limit=1000)
    assert shown.encode("ascii").decode("unicode_escape") == text


@given(ANY_TEXT)
@example("a\u3164b\ufe0f\u2066\u061c")
def test_text_for_people_has_nothing_invisible_or_reordering(text: str) -> None:
    shown = escape_text(text, limit=10_000)
    assert "\n" not in shown
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert unicodedata.bidirectional(character) not in {
            "RLE",
            "LRE",
            "RLO",
            "LRO",
            "PDF",
            "RLI",
            "LRI",
            "FSI",
            "PDI",
        }


@given(ANY_TEXT, st.integers(1, 100))
def test_text_for_people_is_cut_to_its_limit(text: str, limit: int) -> None:
    assert len(escape_text(text, limit=limit)) <= limit


@pytest.mark.parametrize("text", ["", "/path?x=1", "grün → 例", "[bold]no markup[/bold]"])
def test_ordinary_text_for_people_stays_as_it_is(text: str) -> None:
    assert escape_text(text) == text


def test_an_escape_is_never_cut_in_two() -> None:
    assert escape_visitor_text("ab\x1bcd", limit=6) == "ab…"
