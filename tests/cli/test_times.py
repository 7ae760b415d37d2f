"""Points in time on the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.cli.times import parse_end, show_time, write_time
from otun.errors import ConfigurationError

NOW = 1_795_000_000.5  # 2026-11-18, 11:06 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m", 60), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("36525d", 36525 * 86_400)],
)
def test_a_span_is_from_now_on(text: str, seconds: int) -> None:
    assert parse_end(text, NOW) == int(NOW) + seconds


def test_a_day_is_meant_from_its_beginning_in_utc() -> None:
    assert parse_end("2026-12-31", NOW) == 1_798_675_200
    assert show_time(1_798_675_200) == "2026-12-31 00:00"
    assert write_time(1_798_675_200) == "2026-12-31T00:00:00Z"


def test_no_time_is_shown_as_none() -> None:
    assert (show_time(None), write_time(None)) == ("-", None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        *[
            (text, "is no time to come")
            for text in ("", "30", "d", "-1d", "1.5d", "30 d", "30ms", "1y", "30d ", "never")
        ],
        *[(text, "is no time to come") for text in ("\u0661d", "1d\n", "31.12.2026", "2026-1-1", "20261231")],
        *[(text, "is no time to come") for text in ("2026-12-31T00:00", "\0", "\U0001f600", "9" * 10_000 + "d")],
        *[(text, "is no day of the calendar") for text in ("2027-02-29", "2026-13-01", "0000-01-01")],
        *[(text, "is past") for text in ("2026-11-18", "2026-11-17", "0001-01-01")],
        *[(text, "is more than a hundred years away") for text in ("9999-12-31", "2127-01-01")],
        *[(text, "is not between a second and a hundred years") for text in ("0d", "36526d", "9999999w")],
    ],
)
def test_anything_else_is_a_mistake(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        parse_end(text, NOW)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 150


@given(st.text(max_size=12) | st.from_regex(r"\A[0-9]{1,8}[mhdw]\Z") | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z"))
def test_any_text_is_a_time_to_come_or_a_mistake(text: str) -> None:
    try:
        end = parse_end(text, NOW)
    except ConfigurationError:
        return
    assert NOW < end < NOW + 36526 * 86_400
    assert show_time(end)
