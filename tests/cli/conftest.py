"""Fixtures for the command line's tests."""

import contextlib
import http.server
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

import otun.cli

from ..tls.issuing import Authority

# A process that takes longer than this is stuck; its test then fails on what it did not say.
PATIENCE = 30

Environment = dict[str, str]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raises
    root.setLevel(level)


@pytest.fixture(autouse=True)
def signal_handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No settings but those that the test makes, neither here nor in the processes that it starts."""
    for name in list(os.environ):
        if name.startswith(("OTUN_", "XDG_", "STATE_DIRECTORY", "LISTEN_", "NOTIFY_")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(otun.cli.__file__).parents[2]))
    return monkeypatch


@attrs.frozen
class Ended:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str


@attrs.define(eq=False)
class Program:
    """A running `otun`."""

    process: subprocess.Popen[str]

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def signal(self, number: signal.Signals) -> Ended:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Ended:
        stdout, stderr = self.process.communicate(timeout=PATIENCE)
        return Ended(self.process.returncode, stdout, stderr)


Start = Callable[..., Program]


@pytest.fixture
def start(environment: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start `otun ARGUMENTS` as a process of its own."""
    with contextlib.ExitStack() as stack:

        def start_program(*arguments: str, stdout: int = subprocess.PIPE) -> Program:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "otun.cli", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            killer = threading.Timer(PATIENCE, process.kill)
            killer.start()
            stack.callback(killer.join)
            stack.callback(killer.cancel)
            stack.callback(process.kill)
            return Program(process)

        yield start_program


@pytest.fixture
def local_port() -> Iterator[int]:
    """A local service that answers every GET, and every POST when it has read its body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    class Service(http.server.ThreadingHTTPServer):
        request_queue_size = 128  # With the usual 5, a connection among many waits for the kernel to ask again.

    with Service(("127.0.0.1", 0), Handler) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service.server_port
        service.shutdown()
        thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that all who are to be trusted have their certificates from."""
    return Authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """Another one."""
    return Authority(tmp_path)
