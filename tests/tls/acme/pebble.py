"""What the tests of automatic certificates share: pebble, its DNS, and ports that answer its challenges."""

import contextlib
import json
import logging
import os
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import pytest
import trio
import trustme
from cryptography import x509

from otun.tls.acme import AcmeSettings, Challenges, Issuer

from ...interop.support import LIMIT, Program, Start, connect

DAY: Final = 86400.0

HOOK: Final = """#!{python}
import json, sys, urllib.request
action, name, value = sys.argv[1:]
with open({journal!r}, "a") as journal:
    print(action, name, value, file=journal)
if action == "add":
    path, data = "/set-txt", dict(host=name + ".", value=value)
else:
    path, data = "/clear-txt", dict(host=name + ".")
with urllib.request.urlopen(f"http://127.0.0.1:{management}{{path}}", json.dumps(data).encode(), timeout=30):
    pass
"""


@attrs.define(eq=False)
class Pebble:
    """A CA, and the ports at which it looks for the answers to its challenges."""

    start: Start
    folder: Path
    port: int
    management: int
    http_port: int
    tls_port: int
    dns_port: int
    dns_management: int
    program: Program | None = None
    environment: dict[str, str] = attrs.field(factory=dict)

    @property
    def directory(self) -> str:
        return f"https://localhost:{self.port}/dir"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def settings(self, **changes: object) -> AcmeSettings:
        return AcmeSettings(**({"directory": self.directory, "ca": self.ca} | changes))

    async def start_dns(self) -> None:
        """Start the DNS in which every name is 127.0.0.1."""
        await self.start(
            "pebble-challtestsrv",
            *("-http01", "", "-https01", "", "-tlsalpn01", ""),
            *("-dns01", f"127.0.0.1:{self.dns_port}", "-defaultIPv6", ""),
            *("-management", f"127.0.0.1:{self.dns_management}"),
        )
        await (await connect(self.dns_management)).aclose()

    async def run(self, **environment: str) -> None:
        """Start the CA, and wait until it takes connections.  Another one knows nothing of what the first has done."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        identity = authority.issue_cert("localhost")
        identity.private_key_pem.write_to_path(self.folder / "key.pem")
        identity.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "cert.pem"),
            "privateKey": str(self.folder / "key.pem"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
        }
        config = self.folder / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        self.environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
        self.environment |= environment
        words = [f"{key}={value}" for key, value in self.environment.items() if value]
        # `env` becomes pebble: there is one process.
        self.program = await self.start(
            "env", *words, "pebble", "-config", config, "-dnsserver", f"127.0.0.1:{self.dns_port}"
        )
        await (await connect(self.port)).aclose()

    async def stop(self) -> None:
        """End the CA."""
        assert self.program is not None
        await self.program.stop()

    def count(self, text: str) -> int:
        """How many lines with *text* the CA has printed."""
        assert self.program is not None
        return sum(text in line for line in self.program.output + self.program.errors)

    @property
    def orders(self) -> int:
        """How many orders have been made."""
        return self.count("Added order")

    async def wait_for(self, text: str, *, count: int = 1) -> None:
        """Wait until the CA has printed that."""
        assert self.program is not None
        await self.program.wait_for_output(text, count=count)

    async def root(self) -> bytes:
        """The certificate that the CA's certificates are verified with."""

        def fetch() -> bytes:
            context = ssl.create_default_context(cafile=self.ca)
            url = f"https://localhost:{self.management}/roots/0"
            with urllib.request.urlopen(url, context=context, timeout=LIMIT) as response:
                return response.read()

        return await trio.to_thread.run_sync(fetch)

    def hook(self, text: str = HOOK) -> str:
        """A DNS hook for the DNS, which keeps a journal."""
        path = self.folder / "hook"
        path.write_text(text.format(python=sys.executable, journal=str(self.journal), management=self.dns_management))
        path.chmod(0o700)
        return str(path)

    @property
    def journal(self) -> Path:
        """What the hook was asked for."""
        return self.folder / "journal"


@attrs.define(eq=False)
class Ports:
    """Ports 80 and 443 as far as challenges go.  *answers* can spoil what is answered; *visits* counts."""

    challenges: Challenges
    spoil_http: Callable[[bytes | None], Awaitable[bytes | None]] | None = None
    has_spoilt_tls: bool = False
    visits: list[str] = attrs.field(factory=list)

    async def serve(self, http: int, tls: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_tcp, self._answer_http, http, host="127.0.0.1"))
            await nursery.start(partial(trio.serve_tcp, self._answer_tls, tls, host="127.0.0.1"))
            task_status.started()
            await trio.sleep_forever()

    async def _answer_http(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # It may have seen enough elsewhere.
            await self._answer_request(stream)

    async def _answer_request(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = bytearray()
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            self.visits.append("http-01")
            token = head.split()[1].decode().removeprefix("/.well-known/acme-challenge/")
            body = self.challenges.http_answer(token)
            if self.spoil_http is not None:
                body = await self.spoil_http(body)
            status = "404 Not Found" if body is None else "200 OK"
            answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body or b'')}\r\nConnection: close\r\n\r\n"
            await stream.send_all(answer.encode() + (body or b""))

    async def _answer_tls(self, stream: trio.SocketStream) -> None:
        contexts: list[ssl.SSLContext] = []

        def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int | None:
            answer = None if self.has_spoilt_tls else self.challenges.tls_alpn_context(name or "")
            if answer is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            connection.context = answer
            contexts.append(answer)
            return None

        self.visits.append("tls-alpn-01")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = choose
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            with contextlib.suppress(trio.BrokenResourceError):
                await tls.do_handshake()
                await tls.aclose()
        finally:
            await trio.aclose_forcefully(stream)


@attrs.define(eq=False)
class Watch:
    """What an issuer hands out."""

    given: list[tuple[str, Path]] = attrs.field(factory=list)
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def __call__(self, name: str, path: Path) -> None:
        self.given.append((name, path))
        self._news.unpark_all()

    async def wait_for(self, name: str, *, count: int = 1) -> Path:
        """Wait until there was a certificate for *name* so many times; its file."""
        with trio.fail_after(LIMIT):
            while True:
                paths = [path for given, path in self.given if given == name]
                if len(paths) >= count:
                    return paths[-1]
                await self._news.park()


@attrs.define(eq=False)
class Log:
    """The log's lines, to wait for."""

    caplog: pytest.LogCaptureFixture
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.caplog.records if record.name.startswith("otun")]

    async def wait_for(self, text: str, *, count: int = 1) -> str:
        """Wait for the line that is the *count*th with *text*."""
        with trio.move_on_after(LIMIT):
            while True:
                found = [line for line in self.lines if text in line]
                if len(found) >= count:
                    return found[count - 1]
                await self._news.park()
        raise AssertionError(f"the log does not say {text!r} {count} times: {self.lines}")


class LogHandler(logging.Handler):
    """Wakes who waits for a line."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log._news.unpark_all()


@attrs.define(eq=False)
class Clock:
    """A clock that can be set."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def leaf(path: Path) -> x509.Certificate:
    """The certificate in a file that was handed out."""
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


@attrs.define(eq=False)
class RunningIssuer:
    """An issuer in a task of its own."""

    issuer: Issuer
    watch: Watch
    _scope: trio.CancelScope
    _ended: trio.Event

    async def stop(self) -> None:
        self._scope.cancel()
        with trio.fail_after(LIMIT):
            await self._ended.wait()


async def run_issuer(nursery: trio.Nursery, issuer: Issuer, watch: Watch) -> RunningIssuer:
    """Run *issuer* in *nursery*."""
    scope, ended = trio.CancelScope(), trio.Event()

    async def run() -> None:
        with scope:
            await issuer.run()
        ended.set()

    nursery.start_soon(run)
    return RunningIssuer(issuer, watch, scope, ended)


StartIssuer: TypeAlias = Callable[..., Awaitable[RunningIssuer]]


@attrs.define(eq=False)
class Gate:
    """Holds the threads that call a method; `reached` is set when the first is there."""

    reached: trio.Event = attrs.field(factory=trio.Event)
    released: threading.Event = attrs.field(factory=threading.Event)
    passed: threading.Event = attrs.field(factory=threading.Event)

    @classmethod
    def before(cls, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> "Gate":
        """Hold whoever calls *method* from now on, until released."""
        gate, call = cls(), getattr(owner, method)

        def wait(*arguments: object) -> object:
            trio.from_thread.run_sync(gate.reached.set)
            assert gate.released.wait(LIMIT)
            try:
                return call(*arguments)
            finally:
                gate.passed.set()

        monkeypatch.setattr(owner, method, wait)
        return gate

    async def wait(self) -> None:
        """Wait until somebody is held."""
        with trio.fail_after(LIMIT):
            await self.reached.wait()

    async def release(self) -> None:
        """Let everybody through, and wait until one has done what he was held from."""
        self.released.set()
        assert await trio.to_thread.run_sync(self.passed.wait, LIMIT)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def mode_of(path: Path) -> int:
    return os.stat(path).st_mode & 0o777
