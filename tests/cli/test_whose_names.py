"""Names belong to the token that took them first: with processes, of which some are killed."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Program
from .running import NAME_TAKEN, RunningServer, complaint, run_client, run_server, see_tunnel, visit

Start = Callable[..., Program]


class Team:
    """A server, and clients with the tokens of ann and bob."""

    def __init__(self, start: Start, state: Path, local_port: int, environment: pytest.MonkeyPatch) -> None:
        self._start = start
        self._state = state
        self._local_port = local_port
        self._environment = environment
        self._tokens = {name: self.token("create", name).strip() for name in ("ann", "bob")}
        self.server = self.run_server()

    def token(self, *arguments: str) -> str:
        ended = self._start("token", *arguments, "--state", str(self._state)).wait()
        assert ended.code == 0, ended.stderr
        return ended.stdout

    def run_server(self) -> RunningServer:
        return run_server(self._start, "--state", str(self._state), "--tcp-ports", "20000-29999")

    def client(self, name: str, *arguments: str) -> Program:
        self._environment.setenv("OTUN_TOKEN", self._tokens[name])
        kind, *flags = arguments
        return run_client(self._start, self.server, kind, str(self._local_port), *flags, "--log-level", "error")

    def opens(self, name: str, *arguments: str) -> tuple[Program, str]:
        client = self.client(name, *arguments)
        return client, see_tunnel(client)

    def is_refused(self, name: str, *arguments: str) -> str:
        code, line = complaint(self.client(name, *arguments).wait())
        assert code == NAME_TAKEN
        return line


@pytest.fixture
def team(start: Start, tmp_path: Path, local_port: int, environment: pytest.MonkeyPatch) -> Team:
    return Team(start, tmp_path / "state", local_port, environment)


def test_a_name_and_a_port_stay_their_owners_while_it_is_away_and_the_server_starts_anew(team: Team) -> None:
    app, url = team.opens("ann", "http", "--name", "app")
    tcp, tcp_url = team.opens("ann", "tcp")
    port = tcp_url.rpartition(":")[2]
    tcp.signal(signal.SIGTERM)
    tcp, _ = team.opens("ann", "tcp", "--remote-port", port)  # Now it was chosen, and is reserved.
    for client in (app, tcp):
        client.signal(signal.SIGKILL)
    assert "reserved for somebody else" in team.is_refused("bob", "http", "--name", "app")
    assert "reserved for somebody else" in team.is_refused("bob", "tcp", "--remote-port", port)
    team.server.program.signal(signal.SIGKILL)
    team.server = team.run_server()
    assert "reserved for somebody else" in team.is_refused("bob", "http", "--name", "app")
    _, url = team.opens("ann", "http", "--name", "app")
    assert visit(team.server, url) == (200, b"hello")
    team.opens("bob", "http", "--name", "other")
    team.opens("ann", "tcp", "--remote-port", port)


def test_a_name_that_is_given_up_is_the_next_ones(team: Team, start: Start, tmp_path: Path) -> None:
    client, _ = team.opens("ann", "http", "--name", "app")
    client.signal(signal.SIGTERM)
    team.is_refused("bob", "http", "--name", "app")
    assert start("name", "release", "app", "--state", str(tmp_path / "state")).wait().code == 0
    while not (url := (client := team.client("bob", "http", "--name", "app")).read_line()):
        assert complaint(client.wait())[0] == NAME_TAKEN  # The server hears of it within a second.
    assert visit(team.server, url) == (200, b"hello")
    team.is_refused("ann", "http", "--name", "app")
