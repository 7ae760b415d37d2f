"""Fixtures of the interop tests: the Go peer, programs that surely end, free ports, tunnels half of which is Go."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn

import attrs
import pytest
import trio

from ..server.harness import make_hung_tests_fail
from .libp2p_support import REQUIREMENT, InstallationFailed, Libp2p, install
from .support import LIMIT, LocalService, Program, Start, connect
from .tenants import tenants

__all__ = ["tenants"]

GO_PACKAGES = Path("/usr/share/gocode")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Limit the time of the tests whose tunnels are in this process; the others wait for each thing with a limit."""
    in_process = [item for item in items if "tenants" in getattr(item, "fixturenames", ())]
    make_hung_tests_fail(in_process, Path(__file__).parent)


def lack(reason: str) -> NoReturn:
    """Skip for *reason*, except where the tests must be complete."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must run every test")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def gopeer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go peer, built anew into a folder of this worker's own."""
    go = shutil.which("go")
    if go is None:
        lack("Go is not installed (golang-go)")
    if not (GO_PACKAGES / "src/github.com/hashicorp/yamux").is_dir():
        lack("hashicorp/yamux is not installed (golang-github-hashicorp-yamux-dev)")
    program = tmp_path_factory.mktemp("gopeer") / "gopeer"
    subprocess.run(
        [go, "build", "-o", program, Path(__file__).with_name("gopeer.go")],
        env={**os.environ, "GO111MODULE": "off", "GOPATH": os.fspath(GO_PACKAGES)},
        check=True,
        timeout=5 * LIMIT,
    )
    return program


@pytest.fixture(scope="session")
def libp2p_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with py-libp2p: in the folder OTUN_LIBP2P_VENV, else made anew for all workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    try:
        return install(Path(os.environ.get("OTUN_LIBP2P_VENV", folder / "libp2p")).absolute())
    except InstallationFailed as error:
        lack(f"{REQUIREMENT} cannot be installed (it needs gcc, python3-dev and libgmp-dev): {error}")


@pytest.fixture
def libp2p(libp2p_python: Path, start: Start) -> Libp2p:
    """py-libp2p, ended with the test."""
    return Libp2p(libp2p_python, start)


@pytest.fixture
async def start(nursery: trio.Nursery) -> AsyncIterator[Start]:
    """Start a program by its words; it is ended with the test."""
    started: list[Program] = []

    async def start_program(*command: str | Path) -> Program:
        started.append(await Program.start(nursery, *command))
        return started[-1]

    try:
        yield start_program
    finally:
        for program in reversed(started):
            await program.stop()


@pytest.fixture
def free_port() -> Iterator[Callable[[], int]]:
    """Choose ports of 127.0.0.1 that nobody listens on, no two alike.

    Each stays bound (not listening) until the test ends, so that neither a parallel test nor an outgoing connection
    takes it; SO_REUSEADDR lets the program that it is for listen on it all the same.
    """
    with contextlib.ExitStack() as stack:

        def choose() -> int:
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            port: int = holder.getsockname()[1]
            return port

        yield choose


@pytest.fixture
def local_service() -> Iterator[LocalService]:
    """The HTTP service that the tunnels lead to."""
    with LocalService() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@attrs.frozen
class Peer:
    """One implementation's commands."""

    start: Start
    words: tuple[str | Path, ...]
    dashes: str
    is_telling_when_ready: bool

    async def server(self, control: int, public: int, **options: str) -> Program:
        """Start a server and wait until it takes connections."""
        addresses = {"control": f"127.0.0.1:{control}", "public": f"127.0.0.1:{public}"}
        program = await self.start(*self.words, "server", *self._options(addresses | options))
        if self.is_telling_when_ready:
            await program.wait_for_output(f"public 127.0.0.1:{public}")
        else:
            await (await connect(control)).aclose()
        return program

    async def client(self, control: int, local: int, **options: str) -> Program:
        """Start a client."""
        addresses = {"server": f"127.0.0.1:{control}", "local": f"127.0.0.1:{local}"}
        return await self.start(*self.words, "client", *self._options(addresses | options))

    def _options(self, options: dict[str, str]) -> list[str]:
        words = [(self.dashes + name.replace("_", "-"), value) for name, value in options.items()]
        return [word for pair in words for word in pair if word]  # A switch has no value.


@pytest.fixture
def go(gopeer: Path, start: Start) -> Peer:
    """The Go tunnel."""
    return Peer(start, (gopeer,), "-", is_telling_when_ready=False)


@pytest.fixture
def ours(start: Start) -> Peer:
    """Our tunnel."""
    return Peer(start, (sys.executable, "-m", "otun.cli"), "--", is_telling_when_ready=True)


@attrs.frozen
class Tunnel:
    """A registered tunnel to the local service."""

    public: int
    server: Program
    client: Program


@pytest.fixture(params=["our server", "our client"])
async def tunnel(
    request: pytest.FixtureRequest,
    ours: Peer,
    go: Peer,
    free_port: Callable[[], int],
    local_service: LocalService,
) -> Tunnel:
    """A tunnel one half of which is Go's and the other ours."""
    control, public = free_port(), free_port()
    servers, clients = (ours, go) if request.param == "our server" else (go, ours)
    server = await servers.server(control, public)
    client = await clients.client(control, local_service.port)
    await client.wait_for_output("http://")
    return Tunnel(public, server, client)
