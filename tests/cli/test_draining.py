"""SIGTERM, to a server or to a client: what is under way is finished first, but nobody has to wait for that."""

import contextlib
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
    StartBusy = Callable[..., tuple[Program, http.client.HTTPConnection]]


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


# The client


@pytest.fixture
def busy_client(start: "Start", slow_service: SlowService) -> Iterator["StartBusy"]:
    """Start a client with options, and return it with a visitor who waits for an answer."""
    with contextlib.ExitStack() as stack:

        def start_client(*options: str) -> tuple["Program", http.client.HTTPConnection]:
            server = run_server(start, "--log-level", "info")
            client = run_client(start, server, "http", str(slow_service.server.server_port), *options)
            visitor = http.client.HTTPConnection(server.public, timeout=20)
            stack.callback(visitor.close)
            visitor.request("GET", "/", headers={"Host": see_tunnel(client).partition("//")[2]})
            assert slow_service.was_asked.wait(20)
            return client, visitor

        yield start_client


def see_waiting(client: "Program") -> None:
    assert client.process.stderr is not None
    while "visitors have 30 s to finish" not in (line := client.process.stderr.readline()):
        assert line


def test_sigterm_to_a_client_finishes_what_is_under_way(busy_client: "StartBusy", slow_service: SlowService) -> None:
    client, visitor = busy_client()
    client.process.send_signal(signal.SIGTERM)
    see_waiting(client)
    slow_service.may_answer.set()
    response = visitor.getresponse()
    assert (response.status, response.read()) == (200, b"done")
    # The visitor's connection stays open; that does not keep the client.
    ended = client.wait()
    assert (ended.code, "cut short" in ended.stderr) == (0, False)


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_client_at_once(busy_client: "StartBusy", second: signal.Signals, code: int) -> None:
    client, visitor = busy_client()
    client.process.send_signal(signal.SIGTERM)
    see_waiting(client)
    assert client.signal(second).code == code
    assert visitor.getresponse().status == 502


def test_sigint_to_a_client_waits_for_nobody(
    busy_client: "StartBusy",
) -> None:
    client, visitor = busy_client()
    ended = client.signal(signal.SIGINT)
    assert (ended.code, ended.stderr) == (130, "")
    assert visitor.getresponse().status == 502


@pytest.mark.parametrize("seconds", ["0", "1s"])
def test_visitors_of_a_client_have_so_much_time_and_no_more(busy_client: "StartBusy", seconds: str) -> None:
    client, visitor = busy_client("--drain", seconds)
    ended = client.signal(signal.SIGTERM)
    assert ended.code == 0
    assert ended.stderr.endswith("visitors who had not finished were cut short\n")
    assert visitor.getresponse().status == 502


def test_a_client_without_visitors_ends_at_once_and_says_nothing(start: "Start", slow_service: SlowService) -> None:
    server = run_server(start)
    client = run_client(start, server, "http", str(slow_service.server.server_port))
    see_tunnel(client)
    ended = client.signal(signal.SIGTERM)
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")
