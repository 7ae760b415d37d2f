"""`--token-file`: a client's token, out of the process list; and what else keeps secrets out of it."""

import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

import otun.cli.client
from otun.cli import main
from otun.cli.files import MAX_FILE_SIZE, read_file
from otun.cli.tokens import MAX_TOKEN_FILE_SIZE, read_token_file
from otun.errors import ConfigurationError, ServerUnreachable

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

pytestmark = pytest.mark.usefixtures("environment")

COMMANDS = (["http", "9"], ["tcp", "9"], ["tls", "9"], ["client", "--local", "9"], ["start"])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The tokens that servers were to be shown; none is reached, which ends the command with 4."""
    seen: list[str | None] = []

    @asynccontextmanager
    async def open_tunnels(*_: object, token: str | None, **__: object) -> AsyncIterator[tuple]:
        seen.append(token)
        await trio.lowlevel.checkpoint()
        raise ServerUnreachable("nobody there")
        yield ()

    monkeypatch.setattr(otun.cli.client, "open_tunnels", open_tunnels)
    return seen


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.touch(mode=0o600)
    path.write_text("[[tunnel]]\nlocal = '9'\n")
    return path


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("otun: ")


# What is in it


@pytest.mark.parametrize("data", [b"s3cret", b"s3cret\n", b"\n \t s3cret \r\n\n", b"s3cret" + b" " * 1000])
def test_a_file_has_one_token_with_white_space_around_it(tmp_path: Path, data: bytes) -> None:
    assert read_token_file(write(tmp_path / "token", data)) == "s3cret"


def test_a_token_may_have_any_visible_characters(tmp_path: Path) -> None:
    token = "".join(map(chr, range(33, 127)))
    assert read_token_file(write(tmp_path / "token", token.encode())) == token


NO_TOKEN = "a token is one or more printable ASCII characters without spaces"
MISTAKES = [
    (b"", " holds no token"),
    (b" \n\t\r\n", " holds no token"),
    (b"s3cret\ns3cret-2\n", " holds more than one token: a client has one"),
    (b"s3cret s3cret-2", " holds more than one token: a client has one"),
    (b"# mine\ns3cret\n", " holds more than one token: a client has one"),
    (b"s3cret\x00", f": {NO_TOKEN}"),
    (b"\x00" * 100, f": {NO_TOKEN}"),
    ("s3cret\N{PILE OF POO}\n".encode(), f": {NO_TOKEN}"),
    ("\N{BYTE ORDER MARK}s3cret\n".encode(), f": {NO_TOKEN}"),
    ("s3cret\n".encode("utf-16"), f": {NO_TOKEN}"),
    (b"s3cret\xc2\xa0", f": {NO_TOKEN}"),
    (b"\x7fELF\x02\x01\x01\x00\x00 s3cret \xff\xfe\n", f": {NO_TOKEN}"),
    (b"s3cret" * 200_000, ": File too large"),
]


@pytest.mark.parametrize(("data", "problem"), MISTAKES, ids=lambda value: str(value)[:20])
def test_a_mistake_in_it_is_a_line_that_does_not_repeat_it(
    start: "Start", tmp_path: Path, data: bytes, problem: str
) -> None:
    path = write(tmp_path / "token", data)
    ended = start("http", "9", "--server", "127.0.0.1:1", "--token-file", str(path)).wait()
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == f"otun: token file {path}{problem}\n"


def test_a_file_is_bounded_in_size(tmp_path: Path) -> None:
    path = write(tmp_path / "token", b"x" * MAX_TOKEN_FILE_SIZE)
    assert read_token_file(path) == "x" * MAX_TOKEN_FILE_SIZE
    write(path, b"x" * (MAX_TOKEN_FILE_SIZE + 1))
    with pytest.raises(ConfigurationError, match="File too large"):
        read_token_file(path)


# What it is


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/none/such", "No such file or directory"),
        ("/dev/null/token", "Not a directory"),
        ("/tmp", "Is a directory"),
        ("", "Is a directory"),
        ("/dev/zero", "File too large"),
        ("/proc/self/mem", "Input/output error"),
        ("\N{PILE OF POO}", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("\udcff", "No such file or directory"),
    ],
    ids=repr,
)
def test_a_file_that_cannot_be_read_is_named(
    shown: list[str | None], capsys: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    assert main(["http", "9", "--server", "h", "--token-file", name]) == 2
    assert re.fullmatch(rf"token file .*: {problem}", complaint(capsys))
    assert not shown


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_so_is_one_that_is_not_ours_to_read(
    shown: list[str | None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(tmp_path / "token", b"s3cret", 0o000)
    assert main(["http", "9", "--server", "h", "--token-file", str(path)]) == 2
    assert complaint(capsys) == f"token file {path}: Permission denied"


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(start: "Start", tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    ended = start("http", "9", "--server", "127.0.0.1:1", "--token-file", str(path)).wait()
    assert (ended.code, ended.stderr) == (2, f"otun: token file {path} holds no token\n")


def test_a_pipe_of_the_shells_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe, os.fdopen(reading):
        writer = threading.Timer(0.1, lambda: (pipe.write(b"cret\n"), pipe.close()))
        os.write(writing, b"s3")
        writer.start()
        assert read_token_file(Path(f"/dev/fd/{reading}")) == "s3cret"
        writer.join()


def test_a_file_of_settings_is_bounded_in_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_SIZE)
        assert len(read_file(path)[0]) == MAX_FILE_SIZE
        file.truncate(MAX_FILE_SIZE + 1)
    with pytest.raises(OSError, match="File too large"):
        read_file(path)
    with pytest.raises(OSError, match="File too large"):
        read_file(Path("/dev/zero"))


def test_a_file_that_others_can_read_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "token", b"s3cret", 0o640)
    read_token_file(path)
    assert capsys.readouterr().err == ""
    path.chmod(0o644)
    read_token_file(path)
    assert complaint(capsys) == f"warning: other users can read the token in {path}; run: chmod o-r {path}"


# Where it is named


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_each_clients_command_takes_it_from_a_flag_a_variable_and_the_file(
    shown: list[str | None], config: Path, tmp_path: Path, environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    write(tmp_path / "file", b"in-file")
    write(tmp_path / "variable", b"in-variable")
    write(tmp_path / "flag", b"in-flag")
    config.write_text(f"[client]\nserver = 'h'\ntoken_file = 'file'\n{config.read_text()}")
    arguments = [*command, "--config", str(config)]
    assert main(arguments) == 4
    environment.setenv("OTUN_TOKEN_FILE", str(tmp_path / "variable"))
    assert main(arguments) == 4
    assert main([*arguments, "--token-file", str(tmp_path / "flag")]) == 4
    assert shown == ["in-file", "in-variable", "in-flag"]


def test_the_strongest_source_counts_whichever_it_gives(
    shown: list[str | None], config: Path, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    path = str(write(tmp_path / "token", b"in-file"))
    arguments = ["http", "9", "--server", "h", "--config", str(config)]
    config.write_text("[client]\ntoken = 'plain'\n")
    environment.setenv("OTUN_TOKEN_FILE", path)
    assert main(arguments) == 4
    assert main([*arguments, "--token", "flag"]) == 4
    environment.delenv("OTUN_TOKEN_FILE")
    config.write_text("[client]\ntoken_file = '/none'\n")
    environment.setenv("OTUN_TOKEN", "plain")
    assert main(arguments) == 4
    assert main([*arguments, "--token-file", path]) == 4
    environment.setenv("OTUN_TOKEN_FILE", "")
    assert main(arguments) == 4
    assert shown == ["in-file", "flag", "plain", "in-file", "plain"]


@pytest.mark.parametrize("source", ["flags", "variables", "file"])
def test_a_token_and_a_file_from_one_source_are_a_mistake(
    shown: list[str | None],
    config: Path,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
) -> None:
    path = str(write(tmp_path / "token", b"s3cret"))
    arguments = ["http", "9", "--server", "h", "--config", str(config)]
    names = "--token and --token-file"
    if source == "flags":
        arguments += ["--token", "s3cret", "--token-file", path]
    elif source == "variables":
        environment.setenv("OTUN_TOKEN", "s3cret")
        environment.setenv("OTUN_TOKEN_FILE", path)
        names = "OTUN_TOKEN and OTUN_TOKEN_FILE"
    else:
        config.write_text(f"[client]\ntoken = 's3cret'\ntoken_file = '{path}'\n")
        names = f"{config}: client.token and {config}: client.token_file"
    assert main(arguments) == 2
    assert complaint(capsys) == f"{names} both say which token to show: give one of them"
    assert not shown


@pytest.mark.parametrize("key", ["token_file", "ca", "client_cert", "basic_auth_file", "local_ca"])
def test_a_path_with_a_nul_in_it_is_a_line_that_names_the_key(
    shown: list[str | None], config: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    config.write_text(f'[client]\nserver = "h"\n{key} = "~a\\u0000b"\n')
    assert main(["http", "https://h:9", "--config", str(config)]) == 2
    assert complaint(capsys) == f"{config}: client.{key}: '~a\\x00b' is no path: it has a NUL in it"
    assert not shown


@pytest.mark.parametrize("value", ["5", "true", "['a']", "{}"])
def test_what_is_no_text_is_named(
    shown: list[str | None], config: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    config.write_text(f"[client]\ntoken_file = {value}\n")
    assert main(["http", "9", "--config", str(config)]) == 2
    assert complaint(capsys).startswith(f"{config}: client.token_file: expected a string, found ")


# Processes


def test_a_client_gets_in_by_a_file_that_the_process_list_does_not_show(
    start: "Start", environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("OTUN_TOKENS", "s3cret")
    server = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "-v")
    control = server.read_line().removeprefix("control ")
    environment.delenv("OTUN_TOKENS")
    path = write(tmp_path / "token", b"s3cret\n")
    client = start("http", "9", "--server", control, "--token-file", str(path), "-v")
    assert client.read_line().startswith("http://")
    assert b"s3cret" not in Path(f"/proc/{client.process.pid}/cmdline").read_bytes()
    for ended in (client.signal(signal.SIGTERM), server.signal(signal.SIGTERM)):
        assert ended.code == 0
        assert "s3cret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", ["http", "client", "tcp", "tls", "start"])
def test_help_says_what_other_users_see_and_how_to_avoid_it(start: "Start", command: str) -> None:
    shown = re.sub(r"-\s+", "-", re.sub(r"\s+", " ", start(command, "--help").wait().stdout))
    assert "--token-file FILE" in shown
    assert "process list: OTUN_TOKEN, --token-file or the configuration file keep it" in shown
    assert "process list: OTUN_PROXY or the configuration file keep it" in shown
    is_http = command in ("http", "client")
    assert ("process list: OTUN_BASIC_AUTH or --basic-auth-file keep it" in shown) == is_http
    assert ("OTUN_REQUIRE_HEADER or the configuration file keep it out of the process list" in shown) == is_http
