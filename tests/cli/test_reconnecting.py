"""A client whose server is lost, and comes back or does not."""

import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .running import TOKEN_REFUSED, RunningServer, complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]

UNREACHABLE = 4
LOST = r"lost the server at [0-9.:]+: [^;\n]+; retrying in \d\.\d s"
BACK = "connected again: "


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def kill(server: RunningServer) -> None:
    assert server.program.signal(signal.SIGKILL).code == -signal.SIGKILL


def run_again(start: "Start", server: RunningServer, *arguments: str) -> RunningServer:
    """Start a server at the addresses of one that has ended."""
    return run_server(start, *arguments, "--public", server.public, control=server.control)


def see_line(client: "Program", part: str) -> list[str]:
    """Read the client's log up to a line with *part* in it."""
    assert client.process.stderr is not None
    lines: list[str] = []
    while not lines or part not in lines[-1]:
        lines.append(client.process.stderr.readline())
        assert lines[-1], lines
    return lines


def end(client: "Program") -> "Ended":
    ended = client.signal(signal.SIGTERM)
    assert (ended.code, "Traceback" in ended.stderr) == (0, False)
    return ended


@pytest.mark.parametrize("has_state", [True, False], ids=["state", "no state"])
def test_a_server_that_was_killed_is_found_again_with_the_same_names(
    start: "Start", state: Path, local_port: int, has_state: bool
) -> None:
    """Also with the one that it has chosen, and when it remembers nothing of that."""
    old = run_server(start, "--state", str(state))
    client = run_client(start, old, "http", str(local_port))
    url = see_tunnel(client)
    for attempt in range(2):
        kill(old)
        folder = state if has_state else state.with_name(f"state{attempt}")
        old = run_again(start, old, "--state", str(folder))
        lines = see_line(client, BACK)
        assert re.search(LOST, lines[0])
        assert lines[-1].endswith(f"{BACK}{url}\n")
        assert visit(old, url) == (200, b"hello")
    assert end(client).stdout == ""  # Nobody has to be told of another URL.


def test_a_port_is_kept(start: "Start", state: Path, local_port: int) -> None:
    arguments = ("--state", str(state), "--tcp-ports", "20000-29999")
    old = run_server(start, *arguments)
    client = run_client(start, old, "tcp", str(local_port))
    url = see_tunnel(client)
    kill(old)
    run_again(start, old, *arguments)
    assert see_line(client, BACK)[-1].endswith(f"{BACK}{url}\n")
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as visitor:
        visitor.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert visitor.recv(12).startswith(b"HTTP/1.0 200")
    end(client)


def test_a_server_that_ends_in_an_orderly_way_is_found_again(start: "Start", state: Path, local_port: int) -> None:
    old = run_server(start, "--state", str(state))
    client = run_client(start, old, "http", str(local_port))
    url = see_tunnel(client)
    old.stop()
    new = run_again(start, old, "--state", str(state))
    see_line(client, BACK)
    assert visit(new, url) == (200, b"hello")
    end(client)


def test_attempts_may_be_limited(start: "Start", state: Path, local_port: int) -> None:
    server = run_server(start, "--state", str(state))
    client = run_client(start, server, "http", str(local_port), "--max-retries", "2")
    see_tunnel(client)
    kill(server)
    code, line = complaint(client.wait())
    assert code == UNREACHABLE
    assert line.startswith(f"gave up after 2 attempts to come back: cannot reach the server at {server.control}: ")


def test_a_client_whose_token_was_revoked_meanwhile_ends_with_that_code(
    start: "Start", state: Path, local_port: int, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OTUN_STATE", str(state))
    token = start("token", "create", "ci").wait().stdout.strip()
    server = run_server(start)
    environment.setenv("OTUN_TOKEN", token)
    client = run_client(start, server, "http", str(local_port), "--log-level", "error")
    see_tunnel(client)
    kill(server)
    assert start("token", "revoke", "ci").wait().code == 0
    run_again(start, server)
    code, line = complaint(client.wait())
    assert code == TOKEN_REFUSED
    assert "refused to open the tunnel again" in line
    assert token not in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_client_that_is_looking_for_its_server_ends_at_a_signal(
    start: "Start", state: Path, local_port: int, number: signal.Signals
) -> None:
    server = run_server(start, "--state", str(state))
    client = run_client(start, server, "http", str(local_port))
    see_tunnel(client)
    kill(server)
    see_line(client, "attempt 4")
    assert client.signal(number).code == (0 if number == signal.SIGTERM else 130)


def test_the_first_attempt_is_the_only_one_and_says_so_by_its_code(start: "Start", state: Path) -> None:
    server = run_server(start, "--state", str(state))
    kill(server)
    code, line = complaint(run_client(start, server, "http", "9", "--max-retries", "5").wait())
    assert (code, line.startswith("cannot reach the server at ")) == (UNREACHABLE, True)
