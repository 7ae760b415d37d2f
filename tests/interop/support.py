"""What the interop tests share: foreign programs, a local HTTP service, bodies, visitors."""

import hashlib
import http.client
import http.server
import math
import os
import random
import re
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import trio

# How long anything may take before it counts as hung.  No test is about speed.
LIMIT: Final = 60

_BLOCK: Final = 64 * 1024
_CONNECT_PAUSE: Final = 0.02


def blocks(size: int, seed: int = 0) -> Iterator[bytes]:
    """A body of *size* bytes in which no two blocks are equal, different for each *seed*."""
    block = random.Random(seed).randbytes(_BLOCK - 8)
    for number in range(-(-size // _BLOCK)):
        yield (number.to_bytes(8) + block)[: size - number * _BLOCK]


def digest_of(size: int, seed: int = 0) -> str:
    """The SHA-256 of that body."""
    digest = hashlib.sha256()
    for block in blocks(size, seed):
        digest.update(block)
    return digest.hexdigest()


def _environment() -> dict[str, str]:
    """This process's environment without what would change our programs' settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTUN_")}
    return inherited | {"OTUN_CONFIG": os.devnull}


@attrs.define(eq=False)
class Program:
    """A running program whose lines are kept as they come, so that it never waits for a reader."""

    process: trio.Process
    output: list[str] = attrs.field(factory=list)
    errors: list[str] = attrs.field(factory=list)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _open_pipes: int = 2

    @classmethod
    async def start(cls, nursery: trio.Nursery, *command: str | Path) -> "Program":
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
        program = cls(process)
        nursery.start_soon(program._collect, process.stdout, program.output)
        nursery.start_soon(program._collect, process.stderr, program.errors)
        return program

    async def _collect(self, pipe: trio.abc.ReceiveStream, lines: list[str]) -> None:
        unfinished = b""
        async with pipe:
            async for chunk in pipe:
                *whole, unfinished = (unfinished + chunk).split(b"\n")
                lines += [line.decode() for line in whole]
                self._news.unpark_all()
        self._open_pipes -= 1
        self._news.unpark_all()

    async def wait_for_output(self, text: str, *, count: int = 1) -> str:
        """Wait until it has printed *count* lines with *text* in them; the last of these."""
        return await self._wait_for(self.output, text, count)

    async def wait_for_error(self, text: str, *, count: int = 1) -> str:
        """The same for its standard error."""
        return await self._wait_for(self.errors, text, count)

    async def _wait_for(self, lines: list[str], text: str, count: int) -> str:
        with trio.move_on_after(LIMIT):
            while True:
                found = [line for line in lines if text in line]
                if len(found) >= count:
                    return found[count - 1]
                if not self._open_pipes:
                    break
                await self._news.park()
        raise AssertionError(f"it did not say {text!r} {count} times: {self.output + self.errors}")

    async def wait_for_end(self, *, limit: float | None = LIMIT) -> int:
        """Wait until it has ended and all its lines are here; its status."""
        with trio.fail_after(math.inf if limit is None else limit):
            status = await self.process.wait()
            while self._open_pipes:
                await self._news.park()
            return status

    async def wait_for_success(self) -> None:
        """Wait until it has ended, and fail with all that it has said unless its status is 0."""
        status = await self.wait_for_end()
        assert status == 0, "\n".join([f"it ended with status {status} and said:", *self.output, *self.errors])

    async def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process.poll() is not None:
            return
        with trio.CancelScope(shield=True):
            self.process.terminate()
            with trio.move_on_after(5):
                await self.process.wait()
            if self.process.poll() is None:
                self.process.kill()
                await self.process.wait()


Start: TypeAlias = Callable[..., Awaitable[Program]]


async def connect(port: int) -> trio.SocketStream:
    """Connect to 127.0.0.1, trying again until somebody listens there: gopeer does not print when it does."""
    with trio.fail_after(LIMIT):
        while True:
            try:
                return await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(_CONNECT_PAUSE)


class _Handler(http.server.BaseHTTPRequestHandler):
    """`GET /SIZE/SEED`: that body, once as many as *crowd* have asked.  `POST /`: the digest of what came."""

    protocol_version = "HTTP/1.1"
    server: "LocalService"

    def do_GET(self) -> None:
        if self.server.crowd is not None:
            self.server.crowd.wait(LIMIT)
        size, seed = map(int, re.findall(r"\d+", self.path))
        self._answer(size, blocks(size, seed))

    def do_POST(self) -> None:
        digest = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left:
            block = self.rfile.read(min(left, _BLOCK))
            if not block:
                return
            digest.update(block)
            left -= len(block)
        text = digest.hexdigest().encode()
        self._answer(len(text), iter([text]))

    def _answer(self, size: int, body: Iterator[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        for block in body:
            self.wfile.write(block)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class LocalService(http.server.ThreadingHTTPServer):
    """The service behind the tunnel.  *crowd*, when set, holds every answer until so many wait for theirs."""

    daemon_threads = True
    request_queue_size = 512
    crowd: threading.Barrier | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return self.server_address[1]


@attrs.frozen
class Answer:
    """What a visitor got: the status, the length and the SHA-256 of the body."""

    status: int
    size: int
    digest: str


def _exchange(port: int, method: str, path: str, upload: int | None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        if upload is None:
            connection.request(method, path)
        else:
            connection.request(method, path, body=blocks(upload), headers={"Content-Length": str(upload)})
        response = connection.getresponse()
        digest, size = hashlib.sha256(), 0
        while block := response.read(_BLOCK):
            digest.update(block)
            size += len(block)
        return Answer(response.status, size, digest.hexdigest())
    finally:
        connection.close()


async def download(port: int, size: int, seed: int = 0) -> Answer:
    """Fetch a body of *size* bytes with a client that is not ours."""
    with trio.fail_after(LIMIT):
        return await trio.to_thread.run_sync(_exchange, port, "GET", f"/{size}/{seed}", None, abandon_on_cancel=True)


async def upload(port: int, size: int) -> Answer:
    """Send a body of *size* bytes with a client that is not ours; the answer's body is the digest of what arrived."""
    with trio.fail_after(LIMIT):
        return await trio.to_thread.run_sync(_exchange, port, "POST", "/", size, abandon_on_cancel=True)
