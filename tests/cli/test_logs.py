import logging
import re

import pytest

from otun.cli.logs import configure_logging, parse_log_level
from otun.errors import ConfigurationError


def test_a_record_is_one_plain_line_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.INFO)
    logging.getLogger("otun.server").info("from %s", "a\nb\x1b[2J\u202e")
    logging.getLogger("otun.server").debug("not shown")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO otun\.server: from a\\nb\\x1b\[2J\\u202e\n", err)


def test_an_exception_is_named_on_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.INFO)
    logging.getLogger("otun").error("went wrong", exc_info=ValueError("a\nb"))
    assert capsys.readouterr().err.endswith(" ERROR otun: went wrong: ValueError: a\\nb\n")


def test_a_traceback_is_shown_when_debugging_without_its_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(logging.DEBUG)
    logging.getLogger("otun").error("went wrong", exc_info=ValueError("\x1b"))
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.endswith("went wrong: ValueError: \\x1b")
    assert last == "ValueError: \\x1b"


def test_levels_are_known_by_name_in_any_case() -> None:
    assert parse_log_level("Warning") == logging.WARNING
    with pytest.raises(ConfigurationError, match="'loud' is no log level; choose one of debug, info, warning, error"):
        parse_log_level("loud")
