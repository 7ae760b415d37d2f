"""Clients that share a name: with processes."""

import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Program
from .running import NAME_TAKEN, RunningServer, complaint, run_client, run_server, see_tunnel, visit

Start = Callable[..., Program]


@pytest.fixture
def nobodys_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def joins(start: Start, server: RunningServer, port: int, *arguments: str) -> Program:
    return run_client(start, server, "http", str(port), "--name", "app", *arguments, "--log-level", "error")


def test_one_of_two_may_be_killed(start: Start, local_port: int) -> None:
    server = run_server(start)
    clients = [joins(start, server, local_port, "--group") for _ in range(2)]
    (url,) = {see_tunnel(client) for client in clients}
    for client in clients:
        assert [visit(server, url) for _ in range(4)] == [(200, b"hello")] * 4
        client.signal(signal.SIGKILL)
    see_tunnel(joins(start, server, local_port, "--group"))
    assert visit(server, url) == (200, b"hello")
    server.stop()


def test_who_is_not_in_the_group_is_refused(start: Start, local_port: int) -> None:
    server = run_server(start)
    see_tunnel(joins(start, server, local_port, "--group"))
    code, line = complaint(joins(start, server, local_port).wait())
    assert code == NAME_TAKEN
    assert "already in use" in line
    code, line = complaint(joins(start, server, local_port, "--group", "--allow-ip", "127.0.0.1").wait())
    assert code == 3
    assert "rules for visitors" in line


def test_a_group_needs_something_to_share(start: Start) -> None:
    for arguments in (("http", "3000"), ("tcp", "22")):
        ended = start(*arguments, "--group", "--server", "localhost").wait()
        assert (ended.code, ended.stderr.count("\n")) == (2, 1)
        assert "group" in ended.stderr


def test_a_client_whose_service_is_not_well_gets_no_visitors(
    start: Start, local_port: int, tmp_path: Path, nobodys_port: int
) -> None:
    state = str(tmp_path / "state")
    server = run_server(start, "--state", state)
    ill = run_client(start, server, "http", str(nobodys_port), "--name", "app", "--group", "--health", "/healthz")
    url = see_tunnel(ill)
    while visit(server, url)[0] != 503:
        pass
    shown = start("sessions", "--state", state).wait().stdout
    assert "app (unhealthy)" in shown
    see_tunnel(joins(start, server, local_port, "--group", "--health", "/"))
    assert [visit(server, url) for _ in range(4)] == [(200, b"hello")] * 4
    ended = ill.signal(signal.SIGTERM)
    assert "is not well, and gets no visitors: connection refused" in ended.stderr
    server.stop()


@pytest.mark.parametrize("path", ["healthz", "/a b", ""])
def test_a_bad_path_for_health_is_named(start: Start, path: str) -> None:
    ended = start("http", "3000", "--server", "localhost", "--health", path).wait()
    assert ended.code == 2
    assert ended.stderr.startswith("otun: --health: ")
