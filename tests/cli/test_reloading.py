"""SIGHUP: the configuration file and the tokens are read again; flags stay as they were given."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .running import RunningServer, complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text("first\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def config(tmp_path: Path, tokens: Path) -> Path:
    path = tmp_path / "server.toml"
    path.write_text(f"[server]\ntokens_file = '{tokens}'\n")
    return path


@pytest.fixture
def server(start: "Start", config: Path, environment: pytest.MonkeyPatch) -> RunningServer:
    environment.setenv("OTUN_TOKEN", "first")
    return run_server(start, "--config", str(config), "--max-streams", "5")


def reload(server: RunningServer, until: str) -> str:
    """Send SIGHUP; the lines of the log up to the one that has *until* in it."""
    server.program.process.send_signal(signal.SIGHUP)
    assert server.program.process.stderr is not None
    lines = ""
    while until not in lines:
        line = server.program.process.stderr.readline()
        assert line, f"it has ended: {lines}"
        lines += line
    return lines


def test_tokens_and_limits_are_read_again_and_tunnels_stay(
    start: "Start",
    server: RunningServer,
    config: Path,
    tokens: Path,
    local_port: int,
    environment: pytest.MonkeyPatch,
) -> None:
    url = see_tunnel(run_client(start, server, "http", str(local_port), "--name", "app"))
    tokens.write_text("first\nsecond\n")
    config.write_text(config.read_text() + "hsts = 5\nlog_level = 'warning'\n")
    reload(server, "the settings were read again, and are in force")
    assert visit(server, url) == (200, b"hello")
    environment.setenv("OTUN_TOKEN", "second")
    see_tunnel(run_client(start, server, "http", str(local_port), "--name", "more"))
    ended = server.program.signal(signal.SIGTERM)
    assert (ended.code, ended.stderr) == (0, "")  # The log's level has changed, too.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nmax_streams = 'many'\n", "expected an integer"),
        ("[server\n", "line 1"),
        ("[server]\nmax_conections = 1\n", "unknown key"),
        ("[server]\ncert = ['none.pem']\n", "No such file"),
    ],
)
def test_a_bad_file_is_one_line_in_the_log_and_changes_nothing(
    start: "Start", server: RunningServer, config: Path, tokens: Path, text: str, problem: str
) -> None:
    config.write_text(text)
    tokens.write_text("second\n")
    lines = reload(server, "nothing was reloaded")
    assert lines.count("\n") == 1
    assert " ERROR " in lines
    assert "nothing was reloaded, and all settings stay as they were: " in lines
    assert problem in lines
    assert str(config.parent) in lines
    see_tunnel(run_client(start, server, "http", "9", "--name", "app"))  # The first token is as good as before.


def test_a_token_that_was_taken_out_ends_its_client(
    start: "Start", server: RunningServer, tokens: Path, local_port: int
) -> None:
    client = run_client(start, server, "http", str(local_port), "--log-level", "error")
    see_tunnel(client)
    tokens.write_text("second\n")
    reload(server, "are in force")
    code, line = complaint(client.wait())
    assert code == 6
    assert "token" in line


def test_what_needs_a_restart_is_named_and_flags_stay(server: RunningServer, config: Path, tokens: Path) -> None:
    config.write_text(f"[server]\ntokens_file = '{tokens}'\ncontrol = ':1'\nmax_streams = 9\ndomain = 'a.example'\n")
    lines = reload(server, "are in force")
    assert re.search(r" WARNING .* a change of domain needs a restart: the old one stays\n", lines)


@pytest.fixture
def service_manager(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        environment.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


def test_the_service_manager_is_told(service_manager: socket.socket, server: RunningServer) -> None:
    assert service_manager.recv(1000) == b"READY=1"
    server.program.process.send_signal(signal.SIGHUP)
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", service_manager.recv(1000))
    assert service_manager.recv(1000) == b"READY=1"
    assert server.program.signal(signal.SIGTERM).code == 0
    assert service_manager.recv(1000) == b"STOPPING=1"


def test_a_service_manager_that_is_gone_does_not_matter(start: "Start", environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert run_server(start).program.signal(signal.SIGTERM).code == 0


def test_a_terminal_that_is_closed_ends_the_server_that_was_started_there(start: "Start") -> None:
    outside, inside = os.openpty()
    server = start("server", "--control", "127.0.0.1:0", "--public", "127.0.0.1:0", stdout=inside)
    os.close(inside)
    seen = b""
    while b"client:" not in seen:
        seen += os.read(outside, 1000)
    os.close(outside)
    assert server.signal(signal.SIGHUP).code == 0
