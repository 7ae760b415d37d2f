"""What the benchmarks share: programs that surely end, free ports, the C origin and load, nginx, tables."""

import argparse
import contextlib
import hashlib
import os
import random
import re
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

ROOT: Final = Path(__file__).resolve().parent.parent
HERE: Final = ROOT / "benchmarks"

# Ports are taken from below the range that Linux gives to outgoing connections, which the benchmarks make many of.
_PORTS: Final = range(12000, 30000)
_START_LIMIT: Final = 15.0
_STOP_LIMIT: Final = 5.0

NGINX_CONFIGURATION: Final = """
daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    server {{
        listen 127.0.0.1:{port} backlog=4096; default_type text/plain;
        location / {{ return 200 "{body}"; }}
    }}
}}
"""


class BenchmarkError(Exception):
    """Something that was to be measured did not work; the text says what."""


class Missing(BenchmarkError):
    """A program that is not on this machine; what needs it is left out."""


CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otun-benchmarks"


def set_up() -> None:
    """Let this process and those it starts open as many files as they may; end what was started on SIGTERM too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@attrs.define(eq=False)
class Program:
    """A running program: its standard output can be read line by line, its errors go to a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    _unread: bytes = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def check_running(self) -> None:
        if self.process.poll() is not None:
            raise BenchmarkError(f"{self.name} ended with {ending(self.process.returncode)}: {last_line(self.log)}")

    def read_line(self, limit: float = _START_LIMIT) -> str:
        """The next line of its standard output, which must come within *limit* seconds."""
        assert self.process.stdout is not None
        until = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise BenchmarkError(f"{self.name} printed no line within {limit:.0f} s")
                chunk = os.read(self.process.stdout.fileno(), 65536)
                if not chunk:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(_STOP_LIMIT)
                    self.check_running()
                    raise BenchmarkError(f"{self.name} closed its output")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def let_go_on(self) -> None:
        """Write the line that it waits for."""
        self.check_running()
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """Ask it to end, then make it; nothing else is touched."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_STOP_LIMIT)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str | Path], folder: Path, *, is_output_read: bool = True
) -> Iterator[Program]:
    """Run *command* for as long as the block lasts; unless its output is read, that goes to the log as well."""
    log = folder / f"{name}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if is_output_read else errors,
            stderr=errors,
            cwd=folder,
            env=_environment(),
        )
    program = Program(name, process, log)
    try:
        yield program
    finally:
        program.stop()


def _environment() -> dict[str, str]:
    """What programs are started with: this checkout comes first, and nobody's settings change ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTUN_")}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "OTUN_CONFIG": os.devnull}
    return inherited | ours


def ending(returncode: int) -> str:
    return f"status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def call(command: Sequence[str | Path], limit: float) -> str:
    """Run *command* to its end, which must be a good one and come within *limit* seconds; its output."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{Path(command[0]).name} did not end within {limit:.0f} s") from None
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise BenchmarkError(f"{Path(command[0]).name} ended with {ending(done.returncode)}: {told}")
    return done.stdout


def is_answering(port: int) -> bool:
    """Whether a GET to this port of 127.0.0.1 is answered with status 200."""
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as visitor:
            visitor.sendall(request.encode())
            return visitor.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
    except OSError:
        return False


def is_listening(port: int) -> bool:
    """Whether some process listens on this port of 127.0.0.1; asks the kernel, so that nobody is disturbed."""
    listening = re.compile(rf"^\s*\d+: (?:0100007F|00000000):{port:04X} \S+ 0A ", re.M)
    return bool(listening.search(Path("/proc/net/tcp").read_text()))


def wait_until_ready(port: int, programs: Sequence[Program], *, is_http: bool = True) -> None:
    """Wait until *port* answers (or, unless *is_http*, listens); an error when one of *programs* ends instead."""
    until = time.monotonic() + _START_LIMIT
    while not (is_answering(port) if is_http else is_listening(port)):
        for program in programs:
            program.check_running()
        if time.monotonic() > until:
            raise BenchmarkError(f"{programs[0].name} was not ready within {_START_LIMIT:.0f} s")
        time.sleep(0.05)


def build(name: str, source: Path, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Path:
    """Build a program from *source* unless its newest version is there; *command* lacks the output's path only."""
    version = hashlib.sha256(source.read_bytes() + repr(command).encode()).hexdigest()[:16]
    program = CACHE / f"{name}-{version}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder, name)
            words = [made if word == "OUTPUT" else word for word in command]
            done = subprocess.run(
                words, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise Missing(f"{source.name} cannot be built: {done.stderr.strip()}")
            made.replace(program)
    return program


def load_program() -> Path:
    """The C origin and load generator, built when needed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Missing("there is no C compiler for load.c")
    return build("load", HERE / "load.c", [compiler, "-O2", "-pthread", "-o", "OUTPUT", HERE / "load.c"])


@contextlib.contextmanager
def origin(folder: Path) -> Iterator[int]:
    """The C origin on a free port."""
    with running("origin", [load_program(), "origin"], folder) as program:
        yield int(program.read_line())


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[int]:
    """An nginx on a free port that answers everything with 1 KiB."""
    executable = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if executable is None:
        raise Missing("nginx is not installed")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX_CONFIGURATION.format(port=port, body="x" * 1024))
    command: list[str | Path] = [executable, "-p", folder, "-e", "stderr", "-c", configuration]
    with running("nginx", command, folder, is_output_read=False) as program:
        wait_until_ready(port, [program])
        yield port


def names_from(choices: Collection[str]) -> Callable[[str], list[str]]:
    """An argparse type: names from *choices* with commas between them."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(choices)}")
        return chosen

    return names


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell, the first to the left, the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in lines
    )
