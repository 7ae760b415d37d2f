"""What people get wrong about who may open tunnels: one line for each mistake, and exit code 2."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otun.cli import main

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

EMOJI = "\U0001f600"
SECRET = "s3cret-of-the-test"

pytestmark = pytest.mark.usefixtures("environment")

Complain = Callable[..., str]


def shortened(text: str) -> str:
    return ascii(text[:20])


@pytest.fixture
def complain(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Complain:
    """Run a command that is refused for a mistake; its one line."""

    def run(*_: object, **__: object) -> None:
        raise AssertionError("it has started")

    for command in ("server", "client"):
        monkeypatch.setattr(f"otun.cli.{command}.run_until_signal", run)

    def complain(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1), err[:1000]
        line = err.removesuffix("\n")
        assert line.startswith("otun: ")
        assert line.replace(EMOJI, "").isprintable()
        assert len(line) < 5000
        assert SECRET not in line
        return line.removeprefix("otun: ")

    return complain


TEXTS = ["soon", "-1d", "7", "1.5d", "9" * 10_000 + "d", f"7{EMOJI}", "\x1b[31m", "7d\n", "\udcff", " ", "none"]


@pytest.mark.parametrize("text", TEXTS, ids=shortened)
def test_a_time_for_reservations_that_is_none_is_named(
    complain: Complain, tmp_path: Path, environment: pytest.MonkeyPatch, text: str
) -> None:
    assert complain("server", "--reservation", text).startswith("--reservation: ")
    environment.setenv("OTUN_RESERVATION", text)
    assert complain("server").startswith("OTUN_RESERVATION: ")


@pytest.mark.parametrize("text", ["maybe", "2", "truee", EMOJI, "\x1b", "x" * 10_000], ids=shortened)
def test_a_word_that_opens_nothing_is_named(complain: Complain, environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("OTUN_OPEN", text)
    assert complain("server").startswith("OTUN_OPEN: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("open", '"yes"'),
        ("open", "1"),
        ("open", "[]"),
        ("reservation", "7"),
        ("reservation", "true"),
        ("reservation", "1979-05-27"),
        ("reservation", '["7d"]'),
        ("reservation", f'"{EMOJI}"'),
        ("tokens_file", "3"),
        ("tokens_file", f'["{SECRET}"]'),
        ("tokens_file", '"a\\u0000b"'),
        ("state", '"a\\u0000b"'),
        ("state", "false"),
        ("state", "1.5"),
    ],
)
def test_a_wrong_value_in_the_configuration_file_is_named_with_its_key(
    complain: Complain, tmp_path: Path, key: str, value: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f"[server]\n{key} = {value}\n")
    line = complain("server", "--config", str(path))
    assert line.startswith(f"{path}: server.{key}: ")


@pytest.mark.parametrize(
    "value", ["5", "true", f'["{SECRET}"]', f'"{SECRET} x"', f'"{SECRET}\\u001b"', f'"{SECRET}{EMOJI}"', '""']
)
def test_a_wrong_token_in_the_configuration_file_is_named_and_not_repeated(
    complain: Complain, tmp_path: Path, value: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(f'[client]\nserver = "127.0.0.1"\ntoken = {value}\n')
    path.chmod(0o600)
    assert "client.token: " in complain("http", "9", "--config", str(path))


@pytest.mark.parametrize("text", [f"{SECRET} x", f"{SECRET}\n", f"\x1b{SECRET}", f"{SECRET}{EMOJI}", f"{SECRET}\udcff"])
def test_a_token_that_can_be_none_is_named_and_not_repeated(
    complain: Complain, environment: pytest.MonkeyPatch, text: str
) -> None:
    assert complain("http", "9", "--server", "127.0.0.1", "--token", text).startswith("--token: ")
    environment.setenv("OTUN_TOKEN", text)
    assert complain("http", "9", "--server", "127.0.0.1").startswith("OTUN_TOKEN: ")


@pytest.mark.parametrize("text", ["", " ", ",", "\n", f"{SECRET}\x1b", f"{SECRET},{EMOJI}", f"{SECRET} \udcff"])
def test_a_list_of_tokens_without_one_or_with_one_that_is_none_is_named(
    complain: Complain, environment: pytest.MonkeyPatch, text: str
) -> None:
    environment.setenv("OTUN_TOKENS", text)
    assert complain("server").startswith("OTUN_TOKENS")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# " + SECRET.encode(),
        b"\0" * 100,
        f"{SECRET}\n{EMOJI}".encode(),
        f"{SECRET} {SECRET}".encode(),
        b"\xff\xfe" + SECRET.encode("utf-16-le"),
        SECRET.encode() + b"\x1b[31m",
        os.urandom(100_000) + b"\0",
    ],
    ids=["empty", "comment", "zeros", "emoji", "spaces", "UTF-16", "controls", "random"],
)
@pytest.mark.parametrize("is_in_state", [False, True], ids=["flag", "state"])
def test_a_file_that_holds_no_tokens_is_named(
    complain: Complain, tmp_path: Path, data: bytes, is_in_state: bool
) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(data)
    path.chmod(0o600)
    flags = ["--state", str(tmp_path)] if is_in_state else ["--tokens-file", str(path)]
    assert complain("server", *flags).startswith(f"tokens file {path}")


@pytest.mark.parametrize(
    "path",
    ["/", "/none/such", "/dev/null", "a" * 5000, f"/{EMOJI}", "/\x1b[31m"],
    ids=shortened,
)
def test_what_can_be_no_file_of_tokens_is_named(complain: Complain, path: str) -> None:
    assert complain("server", "--tokens-file", path).startswith("tokens file ")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/x", "/proc/none", "a" * 5000], ids=shortened)
def test_what_can_be_no_state_folder_is_named(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--state", path]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("otun: state folder ")


@pytest.mark.parametrize("size", [16_385, 100_000, 1_000_000])
def test_a_token_that_no_message_has_room_for_is_named_and_not_repeated(complain: Complain, size: int) -> None:
    token = (SECRET * size)[:size]
    assert complain("http", "9", "--server", "127.0.0.1", "--token", token).startswith("--token: ")
