"""The tunnels that are measured beside each other: how each is found, started and ended."""

import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import attrs
from harness import CACHE, ROOT, BenchmarkError, Missing, Program, build, free_port, running, wait_until_ready
from link import Link

Command: TypeAlias = list[str | Path]

STATE: Final = CACHE / "state"
"""The folder of the server that makes itself a certificate."""


@attrs.frozen
class Peer:
    """A tunnel under test.  *find* gives the words its commands begin with, or raises `Missing`."""

    name: str
    find: Callable[[], Command]
    dashes: str

    def server(self, control: int, public: int) -> Command:
        return [
            *self.find(),
            "server",
            *self._option("control", control),
            *self._option("public", public),
        ]

    def client(self, control: int, public: int, local: int) -> Command:
        return [*self.find(), "client", *self._option("server", control), *self._option("local", local)]

    def _option(self, name: str, port: int) -> list[str]:
        return [f"{self.dashes}{name}", f"127.0.0.1:{port}"]


class RawPeer(Peer):
    """otun's raw TCP tunnel: what the HTTP edge is measured against."""

    def server(self, control: int, public: int) -> Command:
        addresses = [*self._option("control", control), *self._option("public", 0)]
        return [*self.find(), "server", *addresses, "--tcp-ports", str(public)]

    def client(self, control: int, public: int, local: int) -> Command:
        service = f"127.0.0.1:{local}"
        return [*self.find(), "tcp", service, *self._option("server", control), "--remote-port", str(public)]


class EncryptedPeer(RawPeer):
    """The same with TLS between client and server, as it is when they are on two machines."""

    def server(self, control: int, public: int) -> Command:
        return [*super().server(control, public), "--state", STATE]

    def client(self, control: int, public: int, local: int) -> Command:
        from otun.tls.certificates import Certificate
        from otun.tls.self_made import own_certificate

        fingerprint = Certificate(own_certificate(STATE, "localhost")).fingerprint
        return [*super().client(control, public, local), "--fingerprint", str(fingerprint)]


@attrs.frozen
class Tunnel:
    """A running server and client; what goes to port *public* of 127.0.0.1 reaches the local service."""

    public: int
    server: Program
    client: Program

    def check_running(self) -> None:
        self.server.check_running()
        self.client.check_running()


def find_otun() -> Command:
    if not (ROOT / "otun" / "cli" / "__main__.py").exists() and importlib.util.find_spec("otun") is None:
        raise Missing("the package otun is not installed")
    return [sys.executable, "-m", "otun.cli"]


def find_gopeer() -> Command:
    go = shutil.which("go")
    library = Path("/usr/share/gocode")
    source = ROOT / "tests" / "interop" / "gopeer.go"
    if go is None:
        raise Missing("Go is not installed (golang-go)")
    if not (library / "src/github.com/hashicorp/yamux").is_dir():
        raise Missing("hashicorp/yamux is not installed (golang-github-hashicorp-yamux-dev)")
    if not source.exists():
        raise Missing(f"there is no {source.relative_to(ROOT)}")
    settings = {"GO111MODULE": "off", "GOPATH": os.fspath(library)}
    return [build("gopeer", source, [go, "build", "-o", "OUTPUT", source], settings)]


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer("otun", find_otun, "--"),
        RawPeer("otun-tcp", find_otun, "--"),
        EncryptedPeer("otun-tls", find_otun, "--"),
        Peer("gopeer", find_gopeer, "-"),
    )
}


def available_peers(names: Sequence[str]) -> list[Peer]:
    """Those of the named peers that can be run here; a line is printed for each that cannot."""
    found: list[Peer] = []
    for name in names:
        peer = PEERS[name]
        try:
            peer.find()
        except Missing as reason:
            print(f"left out: {name}: {reason}")
        else:
            found.append(peer)
    if not found:
        raise BenchmarkError("no peer is left to measure")
    return found


@contextlib.contextmanager
def tunnel(peer: Peer, local: int, folder: Path, link: Link | None = None) -> Iterator[Tunnel]:
    """Run *peer*'s server and client in front of port *local*, and wait until a request passes.

    The client reaches the server over *link*, if there is one.
    """
    control, public = free_port(), free_port()
    with running(f"{peer.name}-server", peer.server(control, public), folder, is_output_read=False) as server:
        wait_until_ready(control, [server], is_http=False)
        with contextlib.ExitStack() as between:
            entry = between.enter_context(link.to(control, folder)) if link is not None else control
            client_command = peer.client(entry, public, local)
            with running(f"{peer.name}-client", client_command, folder, is_output_read=False) as client:
                wait_until_ready(public, [server, client])
                yield Tunnel(public, server, client)
