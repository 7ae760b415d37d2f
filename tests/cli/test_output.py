import os

import pytest

from otun.cli.output import Output, complain, open_stdout


def test_lines_are_written_at_once() -> None:
    reading, writing = os.pipe()
    Output(writing, is_terminal=False).write_line("a → b")
    assert os.read(reading, 100) == "a → b\n".encode()
    os.close(reading)
    os.close(writing)


def test_what_the_encoding_lacks_is_spelt_out() -> None:
    reading, writing = os.pipe()
    Output(writing, is_terminal=False, encoding="ascii").write_line("a → b")
    assert os.read(reading, 100) == b"a \\u2192 b\n"
    os.close(reading)
    os.close(writing)


def test_lines_for_a_reader_who_has_gone_are_dropped() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    output = Output(writing, is_terminal=False)
    output.write_line("a")
    os.close(writing)
    output.write_line("b")


def test_a_closed_stdout_swallows_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stdout__", None)
    output = open_stdout()
    assert not output.is_terminal
    output.write_line("a")


def test_a_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("a\nb")
    assert capsys.readouterr().err == "otun: a\\nb\n"


def test_a_complaint_does_not_go_to_stdout_when_stderr_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    complain("a")
    assert capsys.readouterr().out == ""
