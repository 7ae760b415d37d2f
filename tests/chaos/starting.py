"""Starting a world, and ending all of it."""

import fcntl
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import load_pem_x509_certificate

from otun import TcpAddress

from .links import Link, MachineLink, RelayLink
from .namespaces import SERVER_ADDRESS, Machines, NoNamespaces, open_machines
from .outcomes import Visit, Visits
from .programs import CLOCK, ROOT, Program, python
from .relay import open_relay
from .world import Setting, World, write_at_one_blow

TOKEN: Final = "of-the-chaos-tests-0123456789abcdef"

FAKETIME: Final = "/usr/$LIB/faketime/libfaketime.so.1"
"""Debian's package libfaketime; the loader knows what $LIB is."""

_PORTS: Final = range(12_000, 20_000)
"""Below those that systems give to outgoing connections."""

_HIGH: Final = 10
"""Descriptors from here on are none of those that a program with sockets of systemd's expects them to have."""

_CLIENT_FILE: Final = """
[client]
server = "{server}"
token = "{token}"
{trust}

[[tunnel]]
name = "app"
local = "{http}"

[[tunnel]]
name = "echo"
kind = "tcp"
local = "{tcp}"
remote_port = {port}
"""


@asynccontextmanager
async def open_world(folder: Path, setting: Setting) -> AsyncIterator[World]:
    """Start everything, and give it once the client runs; all of it ends with the body.

    Where machines are wanted and cannot be made, there is a relay.  Raises `ProgramFailed`.
    """
    async with AsyncExitStack() as stack:
        machines, why_relay = await _try_to_make_machines(setting, stack)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        starting = _Starting(folder, setting, machines, nursery)
        stack.push_async_callback(starting.end_all)
        state = await starting.make_state_folder()
        server = await starting.start_server()
        service = await starting.start_service()
        link: Link
        reached = starting.control
        if machines is not None:
            link = MachineLink(machines)
        else:
            relay = await stack.enter_async_context(open_relay(reached))
            link, reached = RelayLink(relay, why_relay), relay.address
        visits = Visits()
        yield World(
            setting=setting,
            folder=folder,
            link=link,
            state=state,
            server=server,
            service=service,
            client=await starting.start_client(reached, _trust(setting, state), json.loads(service.lines[0])),
            visitors=await starting.start_visitors(visits),
            visits=visits,
            http_port=starting.http_port,
            start_successor=starting.start_successor,
        )


async def _try_to_make_machines(setting: Setting, stack: AsyncExitStack) -> tuple[Machines | None, str]:
    """Return machines, or None and why there are none."""
    if setting.link == "relay":
        return None, ""
    try:
        return await stack.enter_async_context(open_machines()), ""
    except NoNamespaces as error:
        return None, str(error)


@attrs.frozen
class _Starting:
    """Starts programs, and ends them all."""

    folder: Path
    setting: Setting
    machines: Machines | None
    nursery: trio.Nursery
    programs: list[Program] = attrs.field(factory=list)
    ports: tuple[int, ...] = attrs.field(factory=lambda: free_ports(3))

    @property
    def control(self) -> TcpAddress:
        return TcpAddress(SERVER_ADDRESS if self.machines is not None else "127.0.0.1", self.ports[0])

    @property
    def http_port(self) -> int:
        return self.ports[1]

    @property
    def tcp_port(self) -> int:
        return self.ports[2]

    async def make_state_folder(self) -> Path:
        """Make it, and return how it is reached from here."""
        state = self.folder / "state"
        state.mkdir(mode=0o700)
        if not self.setting.has_small_disk or self.machines is None:
            return state
        await self.machines.server.run("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(state))
        return Path(f"/proc/{self.machines.server.pid}/root{state}")

    async def start_server(self) -> Program:
        write_at_one_blow(self.folder / "server.toml", "")
        descriptors = [_listen(port) for port in self.ports[:2]] if self.setting.has_socket_units else []
        return await self._start_server(descriptors=descriptors, is_supervised=self.setting.is_server_supervised)

    async def start_successor(self) -> Program:
        """Start another server, in the place of the one that runs; when this returns, it is ready."""
        return await self._start_server("--replace")

    async def _start_server(
        self, *more: str, descriptors: list[socket.socket] | None = None, is_supervised: bool = False
    ) -> Program:
        setting = self.setting
        sockets = descriptors or []
        server = await self._start(
            "server",
            self._on_server(
                *_limited(setting.server_descriptors),
                *_given(sockets),
                *python("otun.cli", "server", "--control", self.control, "--public", f"127.0.0.1:{self.http_port}"),
                *("--tcp-ports", f"{self.tcp_port}-{self.tcp_port}", "--state", str(self.folder / "state")),
                *("--config", str(self.folder / "server.toml")),
                *([] if setting.is_encrypted else ["--allow-plaintext"]),
                *more,
            ),
            {"OTUN_TOKENS": TOKEN, **self._environment()},
            is_supervised=is_supervised,
            sockets=sockets,
        )
        await server.read_line(0, "client:")
        return server

    async def start_service(self) -> Program:
        service = await self._start("service", self._on_client(*python("tests.chaos.service")))
        await service.read_line(0)
        return service

    async def start_client(self, server: TcpAddress, trust: str, ports: Mapping[str, int]) -> Program:
        file = self.folder / "client.toml"
        file.touch(mode=0o600)
        file.write_text(_CLIENT_FILE.format(server=server, token=TOKEN, trust=trust, port=self.tcp_port, **ports))
        return await self._start(
            "client",
            self._on_client(*python("otun.cli", "start", "--config", file)),
            self._environment(),
            is_supervised=self.setting.is_client_supervised,
        )

    async def start_visitors(self, visits: Visits) -> Program:
        words = ("tests.chaos.visitors", self.setting.seed, self.http_port, self.tcp_port)
        return await self._start("visitors", self._on_server(*python(*words)), on_line=adding_to(visits))

    def _environment(self) -> dict[str, str]:
        """Return that of the programs under test."""
        clock = _clock_in(self.folder) if self.setting.has_own_clock else {}
        return {"PYTHONPATH": f"{self.setting.package}:{ROOT}", **clock}

    def _on_server(self, *words: str) -> list[str]:
        return list(words) if self.machines is None else self.machines.server.command(*words)

    def _on_client(self, *words: str) -> list[str]:
        return list(words) if self.machines is None else self.machines.client.command(*words)

    async def _start(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str] | None = None,
        *,
        is_supervised: bool = False,
        sockets: list[socket.socket] | None = None,
        on_line: Callable[[str], object] = bool,
    ) -> Program:
        program = Program(
            name,
            command,
            self.folder / f"{name}.log",
            environment or {},
            is_supervised=is_supervised,
            sockets=sockets or [],
            on_line=on_line,
        )
        self.programs.append(program)
        await self.nursery.start(program.run)
        return program

    async def end_all(self) -> None:
        with trio.CancelScope(shield=True):
            for program in reversed(self.programs):
                await program.end()


def adding_to(visits: Visits) -> Callable[[str], None]:
    """Return what adds the visits that lines tell of."""

    def add(line: str) -> None:
        if line.startswith("["):
            visits.add(Visit(*json.loads(line)))

    return add


def _limited(descriptors: int | None) -> list[str]:
    """Return what a command begins with so that it has so many descriptors, and cannot raise their number."""
    return [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]


def _listen(port: int) -> socket.socket:
    """Listen like systemd, for a server that comes and goes."""
    with socket.create_server(("127.0.0.1", port), backlog=4096) as sock:
        return socket.socket(fileno=fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, _HIGH))


def _given(sockets: list[socket.socket]) -> list[str]:
    """Return what a command begins with so that it finds *sockets* where systemd puts them."""
    if not sockets:
        return []
    moves = " ".join(f"{number}<&{sock.fileno()}" for number, sock in enumerate(sockets, start=3))
    return ["bash", "-c", f'exec {moves}; LISTEN_PID=$$ LISTEN_FDS={len(sockets)} exec "$@"', "bash"]


def _clock_in(folder: Path) -> dict[str, str]:
    """Return the environment of programs that have their clock from a file."""
    write_at_one_blow(folder / CLOCK, "+0")
    return {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": str(folder / CLOCK),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _trust(setting: Setting, state: Path) -> str:
    if not setting.is_encrypted:
        return "plaintext = true"
    certificate = load_pem_x509_certificate((state / "control.pem").read_bytes())
    return f'fingerprint = "sha256:{certificate.fingerprint(SHA256()).hex()}"'


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports of 127.0.0.1 that nobody listened on a moment ago."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return tuple(found)
