"""SIGTERM: what is under way is finished first, but nobody has to wait for that."""

import http.client
import http.server
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from .running import RunningServer, run_client, run_server, see_tunnel

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]


class SlowService:
    """A local service that answers when it is told to."""

    def __init__(self) -> None:
        self.was_asked = threading.Event()
        self.may_answer = threading.Event()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.was_asked.set()
                service.may_answer.wait(20)
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"done")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def slow_service() -> Iterator[SlowService]:
    service = SlowService()
    with service.server:
        thread = threading.Thread(target=service.server.serve_forever)
        thread.start()
        yield service
        service.may_answer.set()
        service.server.shutdown()
        thread.join()


@pytest.fixture
def busy(start: "Start", slow_service: SlowService) -> tuple[RunningServer, http.client.HTTPConnection]:
    """A server, and a visitor of it who waits for an answer."""
    server = run_server(start, "--log-level", "info")
    client = run_client(start, server, "http", str(slow_service.server.server_port), "--log-level", "error")
    visitor = http.client.HTTPConnection(server.public, timeout=20)
    visitor.request("GET", "/", headers={"Host": see_tunnel(client).partition("//")[2]})
    assert slow_service.was_asked.wait(20)
    return server, visitor


def see_draining(server: RunningServer) -> None:
    """Wait until the server's log says so."""
    assert server.program.process.stderr is not None
    while "draining: 1 clients, and 1 visitors" not in (line := server.program.process.stderr.readline()):
        assert line


def test_sigterm_finishes_what_is_under_way(
    busy: tuple[RunningServer, http.client.HTTPConnection], slow_service: SlowService
) -> None:
    server, visitor = busy
    server.program.process.send_signal(signal.SIGTERM)
    see_draining(server)
    slow_service.may_answer.set()
    response = visitor.getresponse()
    assert (response.status, response.read(), response.getheader("Connection")) == (200, b"done", "close")
    visitor.close()
    ended = server.program.wait()
    assert ended.code == 0
    assert ended.stderr.endswith("drained: nobody was cut short\n")


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(
    busy: tuple[RunningServer, http.client.HTTPConnection], second: signal.Signals, code: int
) -> None:
    server, visitor = busy
    server.program.process.send_signal(signal.SIGTERM)
    see_draining(server)
    assert server.program.signal(second).code == code
    visitor.close()


def test_sigint_waits_for_nobody(busy: tuple[RunningServer, http.client.HTTPConnection]) -> None:
    server, visitor = busy
    ended = server.program.signal(signal.SIGINT)
    assert ended.code == 130
    assert "draining" not in ended.stderr
    visitor.close()


def test_without_time_to_drain_sigterm_ends_it_at_once(start: "Start", slow_service: SlowService) -> None:
    server = run_server(start, "--log-level", "info", "--drain", "0")
    client = run_client(start, server, "http", str(slow_service.server.server_port), "--log-level", "error")
    visitor = http.client.HTTPConnection(server.public, timeout=20)
    visitor.request("GET", "/", headers={"Host": see_tunnel(client).partition("//")[2]})
    assert slow_service.was_asked.wait(20)
    ended = server.program.signal(signal.SIGTERM)
    assert ended.code == 0
    assert "who may stay for 0 s" in ended.stderr
    assert ended.stderr.endswith("drained: 1 visitors were cut short\n")
    visitor.close()
