"""Who may open tunnels on a server that nobody has given any tokens."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from socket import gaierror, getaddrinfo, gethostname
from typing import TYPE_CHECKING, TextIO

import pytest

from .running import TOKEN, TOKEN_REFUSED, RunningServer, complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

EVERYWHERE = "0.0.0.0:0"
WARNING = "otun: warning: everybody who reaches the control port can open tunnels (--open)"

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def state(tmp_path: Path, environment: pytest.MonkeyPatch) -> Path:
    environment.setenv("OTUN_STATE", str(tmp_path / "deep" / "state"))
    return tmp_path / "deep" / "state"


def token_names(state: Path) -> list[str]:
    """Those that the database has, if there is one."""
    if not state.exists():
        return []
    with closing(sqlite3.connect(state / "otun.db")) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM tokens")]


def refused(start: "Start", server: RunningServer, token: str | None, environment: pytest.MonkeyPatch) -> str:
    """See a client with *token* refused; the line that it has said."""
    with environment.context() as patch:
        patch.setenv("OTUN_TOKEN", token or "")
        code, line = complaint(run_client(start, server, "http", "9", "--log-level", "error").wait())
    assert code == TOKEN_REFUSED
    return line


# On this machine


def test_who_is_on_the_servers_machine_needs_no_token_until_one_is_made(
    start: "Start", state: Path, local_port: int, environment: pytest.MonkeyPatch
) -> None:
    server = run_server(start)
    assert "OTUN_TOKEN" not in server.lines["client"]
    client = run_client(start, server, "http", str(local_port), "--name", "early")
    url = see_tunnel(client)
    token = start("token", "create", "ann").wait().stdout.strip()
    environment.setenv("OTUN_TOKEN", token)
    see_tunnel(run_client(start, server, "http", str(local_port)))  # At once.
    assert "token" in refused(start, server, None, environment)
    assert visit(server, url) == (200, b"hello")  # Whoever is in is not thrown out.
    assert start("token", "revoke", "ann").wait().code == 0
    server.stop()
    server = run_server(start)
    assert "OTUN_TOKEN=TOKEN " in server.lines["client"]
    assert "token" in refused(start, server, None, environment)
    assert "token" in refused(start, server, token, environment)


def test_a_server_that_only_its_machine_reaches_makes_no_token(start: "Start", state: Path) -> None:
    server = run_server(start)
    assert server.stop().stdout == ""
    assert not (state / "first-token").exists()
    assert token_names(state) == []


# Elsewhere


def test_the_first_start_makes_a_token_for_its_owner_alone(
    start: "Start", state: Path, local_port: int, environment: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        server = run_server(start, "--log-level", "debug", control=EVERYWHERE)
    finally:
        os.umask(before)
    path = server.read_token_file()
    assert path.parent == state
    assert "OTUN_TOKEN=TOKEN otun http 3000 " in server.lines["client"]
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in state.iterdir()} == {0o600}
    token = path.read_text().strip()
    assert TOKEN.fullmatch(token)
    files = [each for each in state.iterdir() if each.is_file()]  # Beside them, there is the admin socket.
    assert [each for each in files if token.encode() in each.read_bytes()] == [path]
    assert "token" in refused(start, server, None, environment)
    assert "token" in refused(start, server, token[:-1], environment)
    environment.setenv("OTUN_TOKEN", token)
    client = run_client(start, server, "http", str(local_port), "--name", "app")
    assert visit(server, see_tunnel(client)) == (200, b"hello")
    ended = server.stop()
    assert token not in ended.stdout + ended.stderr + str(server.lines)


def test_the_next_starts_make_no_other(start: "Start", state: Path, environment: pytest.MonkeyPatch) -> None:
    server = run_server(start, control=EVERYWHERE)
    token = server.read_token_file().read_text().strip()
    server.stop()
    server = run_server(start, control=EVERYWHERE)
    assert server.read_token_file().read_text().strip() == token
    assert token_names(state) == ["first"]
    server.stop()
    (state / "first-token").unlink()  # Its owner has put it elsewhere.
    server = run_server(start, control=EVERYWHERE)
    environment.setenv("OTUN_TOKEN", token)
    see_tunnel(run_client(start, server, "http", "9"))
    assert server.stop().stdout == ""
    assert not (state / "first-token").exists()


def test_when_it_is_revoked_nobody_is_let_in_and_none_is_made(
    start: "Start", state: Path, environment: pytest.MonkeyPatch
) -> None:
    server = run_server(start, control=EVERYWHERE)
    token = server.read_token_file().read_text().strip()
    assert start("token", "revoke", "first").wait().code == 0
    server.stop()
    server = run_server(start, control=EVERYWHERE)
    for shown in (token, None):
        assert "token" in refused(start, server, shown, environment)
    assert server.stop().stdout == ""  # It is not offered to anybody either.
    assert token_names(state) == ["first"]


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_new_database_does_not_make_it_good_again(
    start: "Start", state: Path, environment: pytest.MonkeyPatch, command: str
) -> None:
    server = run_server(start, control=EVERYWHERE)
    path = server.read_token_file()
    token = path.read_text().strip()
    assert start("token", "create", "ann").wait().code == 0
    assert start("token", "revoke", "ann").wait().code == 0
    assert path.exists()
    assert start("token", command, "first").wait().code == 0
    server.stop()
    (state / "otun.db").unlink()
    server = run_server(start, control=EVERYWHERE)
    assert server.read_token_file().read_text().strip() != token
    refused(start, server, token, environment)


def test_a_new_secret_for_it_is_not_the_one_that_is_offered(start: "Start", state: Path) -> None:
    server = run_server(start, control=EVERYWHERE)
    server.read_token_file()
    server.stop()
    assert start("token", "rotate", "first").wait().code == 0
    assert run_server(start, control=EVERYWHERE).stop().stdout == ""


@pytest.mark.parametrize("source", ["stored", "plain", "variable"])
def test_where_there_is_a_token_none_is_made(
    start: "Start", state: Path, tmp_path: Path, environment: pytest.MonkeyPatch, source: str
) -> None:
    flags = []
    match source:
        case "stored":
            start("token", "create", "ann").wait()
        case "plain":
            (tmp_path / "keys").write_text("a-plain-key\n")
            flags = ["--tokens-file", str(tmp_path / "keys")]
        case _:
            environment.setenv("OTUN_TOKENS", "a-plain-key")
    assert run_server(start, *flags, control=EVERYWHERE).stop().stdout == ""
    assert not (state / "first-token").exists()
    assert token_names(state) == (["ann"] if source == "stored" else [])


@contextmanager
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A terminal: the end for a program, and the one at which a person sits."""
    outside, inside = os.openpty()
    with ExitStack() as stack:
        stack.callback(os.close, inside)
        yield inside, stack.enter_context(open(outside, encoding="utf-8", newline=None))


def resolves(host: str) -> bool:
    try:
        return {info[4][0] for info in getaddrinfo(host, None)} <= {"127.0.0.1", "::1"}
    except gaierror:
        return False


@pytest.mark.parametrize("flags", [[], ["--domain", "localhost"]], ids=["its own name", "a domain"])
def test_on_a_terminal_the_command_is_ready_to_be_pasted(
    start: "Start", state: Path, tmp_path: Path, environment: pytest.MonkeyPatch, flags: list[str]
) -> None:
    if not flags and not resolves(gethostname()):
        pytest.skip("nobody knows this machine by its name")
    with terminal() as (inside, person):
        server = start("server", "--control", EVERYWHERE, "--public", "127.0.0.1:0", *flags, stdout=inside)
        lines = [person.readline().rstrip("\n") for _ in range(3)]
        command = lines[-1].removeprefix("client: ")
        token = (state / "first-token").read_text().strip()
        assert command.startswith(f"OTUN_TOKEN={token} otun http 3000 --server ")
        assert " --fingerprint sha256:" in command
        program = tmp_path / "bin" / "otun"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m otun.cli "$@"\n')
        program.chmod(0o700)
        environment.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        with subprocess.Popen(["sh", "-c", f"exec env {command}"], stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            assert client.stdout.readline().startswith("http://")
            client.terminate()
        server.process.terminate()
        ended = server.wait()
    assert ended.code == 0
    assert token not in ended.stderr


# With --open


def test_an_open_server_lets_everybody_in_and_warns_at_each_start(
    start: "Start", state: Path, environment: pytest.MonkeyPatch
) -> None:
    for token in ("", "any"):
        server = run_server(start, "--open", control=EVERYWHERE)
        assert "OTUN_TOKEN" not in server.lines["client"]
        environment.setenv("OTUN_TOKEN", token)
        see_tunnel(run_client(start, server, "http", "9"))
        assert WARNING in server.stop().stderr.splitlines()
    assert not (state / "first-token").exists()
    assert token_names(state) == []


def test_it_warns_on_loopback_too_where_a_token_would_be_asked_for(start: "Start", state: Path) -> None:
    start("token", "create", "ann").wait()
    server = run_server(start, "--open")
    see_tunnel(run_client(start, server, "http", "9"))
    assert WARNING in server.stop().stderr.splitlines()


def test_the_configuration_file_can_open_it_and_it_warns_as_well(start: "Start", state: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[server]\nopen = true\n")
    server = run_server(start, "--config", str(tmp_path / "c.toml"), control=EVERYWHERE)
    see_tunnel(run_client(start, server, "http", "9"))
    assert WARNING in server.stop().stderr.splitlines()
