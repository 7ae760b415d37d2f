"""Limits of tokens as operators set them: with processes of their own, while a server runs."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import PATIENCE, Program

Start = Callable[..., Program]


class Place:
    """A server, a client whose token is `ci`, and the service behind it."""

    def __init__(self, start: Start, state: Path, local_port: int) -> None:
        self._start = start
        self._state = state
        self._local_port = local_port
        self.port = 0
        self.server: Program

    def token(self, *arguments: str) -> str:
        ended = self._start("token", *arguments, "--state", str(self._state)).wait()
        assert ended.code == 0, ended.stderr
        return ended.stdout

    @contextlib.contextmanager
    def serving(self, secret: str, *flags: str) -> Iterator[None]:
        """A server and a client with the tunnel `app`."""
        addresses = ["--control", "127.0.0.1:0", "--public", "127.0.0.1:0", "--state", str(self._state)]
        self.server = self._start("server", *addresses, *flags)
        control, public = (self.server.read_line().rpartition(":")[2] for _ in range(2))
        self.port = int(public)
        environment = {**os.environ, "OTUN_TOKEN": secret.strip()}
        command = [sys.executable, "-m", "otun.cli", "http", str(self._local_port), "--server", f"127.0.0.1:{control}"]
        with subprocess.Popen(
            [*command, "--name", "app"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as client:
            try:
                assert client.stdout is not None
                assert "app.localhost" in client.stdout.readline()
                yield
            finally:
                client.kill()

    def get(self) -> tuple[int, dict[str, str]]:
        return self.request("GET", b"")

    def request(self, method: str, body: bytes) -> tuple[int, dict[str, str]]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, "/", body, headers={"Host": "app.localhost"})
            response = connection.getresponse()
            response.read()
            return response.status, dict(response.getheaders())


@pytest.fixture
def place(start: Start, tmp_path: Path, local_port: int) -> Place:
    return Place(start, tmp_path / "state", local_port)


def test_limits_hold_and_change_while_the_server_runs(place: Place) -> None:
    secret = place.token("create", "ci", "--limit", "requests=1")
    with place.serving(secret):
        count = 0
        while (answer := place.get())[0] == 200:
            count += 1
        assert count >= 10
        status, fields = answer
        assert (status, fields["Otun-Error"], fields["Retry-After"]) == (429, "too_many_requests", "1")
        place.token("limit", "ci", "requests=1000")
        while not all(place.get()[0] == 200 for _ in range(30)):  # The old limit lets some in.
            pass
        place.token("limit", "ci", "tunnel.requests=1")
        while place.get()[0] == 200:
            pass
        place.token("limit", "ci", "none")
        while place.get()[0] != 200:
            pass


def test_bytes_take_their_time_and_those_of_other_limits_do_not(place: Place) -> None:
    secret = place.token("create", "ci", "--limit", "bandwidth=100kB")
    with place.serving(secret):
        began = time.monotonic()
        assert place.request("POST", bytes(300_000))[0] == 200
        assert time.monotonic() - began > 1.9  # A second's worth is free.
        place.token("limit", "ci", "bandwidth=1GB")
        assert place.request("POST", bytes(3_000_000))[0] == 200


def test_there_are_only_so_many_visitors(place: Place) -> None:
    secret = place.token("create", "ci", "--limit", "visitors=1")
    with place.serving(secret), socket.create_connection(("127.0.0.1", place.port), timeout=PATIENCE) as visitor:
        visitor.sendall(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1\r\n\r\n")
        while (answer := place.get())[0] == 200:  # The one above may not have come first.
            pass
        assert (answer[0], answer[1]["Otun-Error"]) == (503, "busy")
        visitor.sendall(b"!")
        assert visitor.recv(15) == b"HTTP/1.1 200 OK"
        while place.get()[0] != 200:
            pass


def test_a_days_bytes_are_shown_and_count_after_a_restart(place: Place) -> None:
    secret = place.token("create", "ci", "--limit", "daily=2kB")
    with place.serving(secret):
        assert place.get()[0] == 200
        place.server.process.terminate()
        place.server.wait()
    used = json.loads(place.token("show", "ci", "--json"))["bytes_today"]
    assert 100 < used < 1000
    assert f"used today {used} bytes" in place.token("show", "ci")
    with place.serving(secret):
        count = 0
        with contextlib.suppress(http.client.HTTPException, ConnectionError):  # One may be cut.
            while place.get()[0] == 200:
                count += 1
        status, fields = place.get()
        assert (status, fields["Otun-Error"]) == (429, "daily_limit")
        assert 0 < int(fields["Retry-After"]) <= 86_400
        assert count <= 2000 // used - 1


def test_a_servers_limit_is_for_each_tunnel(place: Place) -> None:
    secret = place.token("create", "ci")
    with place.serving(secret, "--max-daily", "1kB", "--max-bandwidth", "1MB"):
        with contextlib.suppress(http.client.HTTPException, ConnectionError):
            while place.get()[0] == 200:
                pass
        assert place.get()[0] == 429


@pytest.mark.parametrize("limits", ["requests=0", "fast", "daily=\U0001f600", "bandwidth=" + "9" * 1000])
def test_nonsense_is_one_line_and_exit_code_2(place: Place, start: Start, tmp_path: Path, limits: str) -> None:
    place.token("create", "ci")
    for command in (["limit", "ci", limits], ["create", "other", "--limit", limits]):
        ended = start("token", *command, "--state", str(tmp_path / "state")).wait()
        assert (ended.code, ended.stdout) == (2, "")
        assert ended.stderr.count("\n") == 1
        assert ended.stderr.startswith("otun: ")
    assert json.loads(place.token("show", "ci", "--json"))["limits"] is None
