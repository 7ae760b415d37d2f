"""`otun server --replace`, with visitors who never pause."""

import contextlib
import http.client
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from .running import complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

CONNECTIONS = 20


@attrs.define
class Load:
    """Visitors who make request after request, on connections that they keep for as long as the server does."""

    address: str
    host: str
    answers: list[int] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    connects: int = 0
    _is_over: threading.Event = attrs.field(factory=threading.Event)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def visit(self) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=20)
        while not self._is_over.is_set():
            if connection.sock is None:
                with self._lock:
                    self.connects += 1
            try:
                connection.request("GET", "/", headers={"Host": self.host})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
            else:
                self.answers.append(response.status)
        connection.close()

    def wait_for(self, count: int) -> None:
        """Wait until there are so many more answers."""
        count += len(self.answers)
        while len(self.answers) < count:
            assert not self._is_over.wait(0.01)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.visit) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_replacement_under_load_loses_no_request(start: "Start", state: Path, local_port: int) -> None:
    old = run_server(start, "--state", str(state), "--log-level", "info")
    client = run_client(start, old, "http", str(local_port), "--name", "app")
    url = see_tunnel(client)
    load = Load(old.public, url.partition("//")[2])
    with load.running():
        load.wait_for(200)
        assert set(load.answers) == {200}
        new = run_server(start, "--state", str(state), "--replace", control=old.control)
        assert (new.control, new.public) == (old.control, old.public)
        load.wait_for(400)
        ended = old.program.wait()
        load.wait_for(200)
    assert ended.code == 0
    assert "drained: nobody was cut short" in ended.stderr
    assert load.lost == []
    assert set(load.answers) == {200}  # Before its client has come back, they wait for it.
    assert load.connects >= 2 * CONNECTIONS
    assert visit(new, url) == (200, b"hello")
    left = client.signal(signal.SIGTERM)
    assert (left.code, left.stderr.count("connected again")) == (0, 1)


def test_the_new_server_is_the_one_that_commands_reach(start: "Start", state: Path) -> None:
    old = run_server(start, "--state", str(state))
    new = run_server(start, "--state", str(state), "--replace")
    assert old.program.wait().code == 0
    status = json.loads(start("status", "--state", str(state), "--json").wait().stdout)
    assert (status["pid"], status["draining"]) == (new.program.process.pid, False)


def test_a_new_server_that_cannot_start_leaves_the_old_one_alone(start: "Start", state: Path, local_port: int) -> None:
    old = run_server(start, "--state", str(state))
    url = see_tunnel(run_client(start, old, "http", str(local_port)))
    arguments = ("--state", str(state), "--replace", "--client-ca", str(state / "none.pem"))
    code, line = complaint(start("server", "--control", old.control, "--public", old.public, *arguments).wait())
    assert (code, "none.pem" in line) == (2, True)
    assert visit(old, url) == (200, b"hello")
    assert old.program.signal(signal.SIGTERM).code == 0
