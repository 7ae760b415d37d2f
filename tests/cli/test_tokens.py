import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.cli.tokens import check_token, read_tokens_file, tokens_from_environment
from otun.errors import ConfigurationError


def write(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "tokens"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_file_has_a_token_a_line_with_comments_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path, b"# ann\nalpha\n\n  beta,2 \r\n#beta\n\talpha\n")
    assert read_tokens_file(path) == {"alpha", "beta,2"}


@pytest.mark.parametrize("data", [b"", b"\n\n", b"# nobody\n"])
def test_a_file_without_tokens_is_an_error_not_open_access(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="holds no token: everybody could open tunnels"):
        read_tokens_file(write(tmp_path, data))


@pytest.mark.parametrize("line", [b"two words", b"caf\xc3\xa9", b"\xff", b"bell\x07"])
def test_a_bad_token_is_named_by_its_line_and_not_repeated(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_tokens_file(write(tmp_path, b"good\n# fine\n" + line + b"\n"))
    assert str(caught.value).endswith(
        "tokens: line 3: a token is one or more printable ASCII characters without spaces"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokens file /.*/none: No such file or directory"):
        read_tokens_file(tmp_path / "none")


def test_tokens_may_come_from_a_pipe_of_the_shells() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"alpha\nbeta\n")
    os.close(writing)
    assert read_tokens_file(Path(f"/dev/fd/{reading}")) == {"alpha", "beta"}
    os.close(reading)


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read_tokens_file(write(tmp_path, b"alpha", 0o640))
    assert capsys.readouterr().err == ""
    path = write(tmp_path, b"alpha", 0o644)
    read_tokens_file(path)
    assert capsys.readouterr().err.startswith(f"otun: warning: other users can read the tokens in {path}")


def test_the_variable_separates_by_spaces_lines_or_commas() -> None:
    assert tokens_from_environment({"OTUN_TOKENS": " a,b c\nd,, e "}) == {"a", "b", "c", "d", "e"}
    assert tokens_from_environment({}) == frozenset()


@pytest.mark.parametrize("text", ["", " ", ",\n,"])
def test_a_variable_without_tokens_is_an_error_not_open_access(text: str) -> None:
    with pytest.raises(ConfigurationError, match="OTUN_TOKENS is set but holds no token"):
        tokens_from_environment({"OTUN_TOKENS": text})


@given(st.text(max_size=20))
def test_a_token_is_visible_ascii_without_spaces(text: str) -> None:
    is_good = text != "" and all(33 <= ord(c) <= 126 for c in text)
    try:
        assert check_token(text) == text
    except ConfigurationError:
        assert not is_good
    else:
        assert is_good
