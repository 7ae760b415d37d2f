"""Clients that share a name: with processes."""

import signal
from collections.abc import Callable

from .conftest import Program
from .running import NAME_TAKEN, RunningServer, complaint, run_client, run_server, see_tunnel, visit

Start = Callable[..., Program]


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
