"""Clients and servers that are killed, and visitors who come meanwhile: with processes."""

import http.client
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Program
from .running import RunningServer, run_client, run_server, see_tunnel

Start = Callable[..., Program]


class Visit(threading.Thread):
    """A request for the tunnel `app`, and what came of it."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__()
        self._connection = http.client.HTTPConnection(server.public, timeout=40)
        self._connection.request("GET", "/", headers={"Host": "app.localhost"})
        self.start()

    def run(self) -> None:
        with self._connection.getresponse() as response:
            self.status, self.fields, self.body = response.status, response.headers, response.read()
        self._connection.close()

    def ended(self) -> tuple[int, str | None]:
        """The status, and the reason of an answer of the server's own."""
        self.join()
        return self.status, self.fields["Otun-Error"]


def opens(start: Start, server: RunningServer, port: int) -> Program:
    client = run_client(start, server, "http", str(port), "--name", "app", "--log-level", "error")
    see_tunnel(client)
    return client


def test_a_client_that_is_killed_and_started_again_answers_those_who_have_waited(start: Start, local_port: int) -> None:
    server = run_server(start, "--hold", "5m")
    opens(start, server, local_port).signal(signal.SIGKILL)
    visit = Visit(server)
    opens(start, server, local_port)
    assert visit.ended() == (200, None)
    server.stop()


def test_who_waits_in_vain_is_told_when_to_come_again(start: Start, local_port: int) -> None:
    server = run_server(start, "--hold", "0.3s")
    opens(start, server, local_port).signal(signal.SIGKILL)
    visit = Visit(server)
    assert visit.ended() == (502, "tunnel_closed")
    assert visit.fields["Retry-After"]
    server.stop()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_client_that_leaves_is_not_waited_for(
    start: Start, local_port: int, number: signal.Signals, code: int
) -> None:
    server = run_server(start, "--hold", "5m")
    assert opens(start, server, local_port).signal(number).code == code
    assert Visit(server).ended() == (404, "no_tunnel_yet")
    server.stop()


def test_a_server_that_starts_anew_expects_the_names_that_it_knew(
    start: Start, local_port: int, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    state = str(tmp_path / "state")
    environment.setenv("OTUN_TOKEN", start("token", "create", "ann", "--state", state).wait().stdout.strip())
    environment.setenv("OTUN_HOLD", "5m")
    server = run_server(start, "--state", state)
    opens(start, server, local_port)
    server.stop()
    server = run_server(start, "--state", state)
    visit = Visit(server)
    opens(start, server, local_port)
    assert visit.ended() == (200, None)
    server.stop()


@pytest.mark.parametrize("text", ["5", "-1s", "5 s", "1h", "s", "", "99999999s"])
def test_a_mistake_is_named(start: Start, text: str) -> None:
    ended = start("server", "--hold", text).wait()
    assert ended.code == 2
    assert "--hold" in ended.stderr
    assert "write 5s" in ended.stderr
