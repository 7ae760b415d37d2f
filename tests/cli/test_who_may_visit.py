"""Visitors' log-ins, addresses and headers, as a client asks for them and the server keeps to them: with processes."""

import base64
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import PATIENCE, Program
from .running import RunningServer, run_client, run_server, see_tunnel, visit

Start = Callable[..., Program]

PASSWORD = "correct horse"
FAILURES = 10
"""Failed log-ins from one address, after which the next ones are refused unseen."""


@pytest.fixture
def server(start: Start) -> RunningServer:
    return run_server(start, "--tcp-ports", "20000-29999")


def log_in(password: str, user: str = "ann") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_a_log_in_from_the_environment_or_a_file_is_asked_for(
    start: Start, server: RunningServer, local_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTUN_BASIC_AUTH", f"ann:{PASSWORD}")
    by_variable = see_tunnel(run_client(start, server, "http", str(local_port), "--name", "variable"))
    monkeypatch.delenv("OTUN_BASIC_AUTH")
    file = tmp_path / "log-ins"
    file.write_text(f"ann:{PASSWORD}\n")
    file.chmod(0o600)
    flags = ("--name", "file", "--basic-auth-file", str(file))
    by_file = see_tunnel(run_client(start, server, "http", str(local_port), *flags))
    for url in (by_variable, by_file):
        assert visit(server, url)[0] == 401
        assert visit(server, url, **log_in(PASSWORD))[0] == 200
        assert visit(server, url, **log_in("wrong"))[0] == 401
    assert PASSWORD not in server.stop().stderr


def test_who_fails_to_log_in_again_and_again_is_refused_for_a_while_and_who_is_in_is_not(
    start: Start, server: RunningServer, local_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTUN_BASIC_AUTH", f"ann:{PASSWORD}")
    url = see_tunnel(run_client(start, server, "http", str(local_port)))
    assert visit(server, url, **log_in(PASSWORD))[0] == 200
    with ThreadPoolExecutor(FAILURES + 2) as pool:
        guesses = [log_in(f"guess {number}") for number in range(FAILURES + 2)]
        seen = list(pool.map(lambda guess: visit(server, url, **guess)[0], guesses))
    assert sorted(seen) == [401] * FAILURES + [429] * 2
    assert visit(server, url, **log_in(PASSWORD))[0] == 200


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (("--allow-ip", "127.0.0.0/8"), 200),
        (("--allow-ip", "192.0.2.0/24"), 403),
        (("--deny-ip", "127.0.0.1"), 403),
        (("--allow-ip", "127.0.0.0/8", "--deny-ip", "127.0.0.1"), 403),
        (("--deny-ip", "192.0.2.0/24"), 200),
    ],
)
def test_addresses_are_allowed_and_denied(
    start: Start, server: RunningServer, local_port: int, flags: tuple[str, ...], status: int
) -> None:
    url = see_tunnel(run_client(start, server, "http", str(local_port), *flags))
    assert visit(server, url)[0] == status


def test_a_tcp_tunnel_closes_those_who_come_from_elsewhere(
    start: Start, server: RunningServer, local_port: int
) -> None:
    for flags, is_served in ((("--allow-ip", "127.0.0.1"), True), (("--deny-ip", "127.0.0.0/8"), False)):
        url = see_tunnel(run_client(start, server, "tcp", str(local_port), *flags))
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")
            try:
                received = visitor.makefile("rb").read()
            except ConnectionResetError:
                received = b""
        assert received.endswith(b"hello") if is_served else received == b""


def test_a_header_is_required(
    start: Start, server: RunningServer, local_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTUN_REQUIRE_HEADER", "X-Key: open sesame")
    url = see_tunnel(run_client(start, server, "http", str(local_port)))
    assert visit(server, url)[0] == 403
    assert visit(server, url, X_Key="another")[0] == 403
    assert visit(server, url, X_Key="open sesame")[0] == 200
    assert "open sesame" not in server.stop().stderr
