"""Two machines on one: network namespaces with a link between them, which only they know.

They need Linux with `ip`, `nft`, `unshare` and `nsenter`, and root or user namespaces.  A namespace lasts for as long
as the process that holds it, and that one for as long as this program: nothing is left behind, however this ends.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import attrs
import trio

SERVER_ADDRESS: Final = "10.77.0.1"
CLIENT_ADDRESS: Final = "10.77.0.2"

_LINK: Final = "otun0"

_NO_FILTER: Final = """
add table inet chaos
delete table inet chaos
"""

_FILTER: Final = """
table inet chaos {{
    chain arriving {{ type filter hook input priority 0; iifname "{link}" {rule} }}
}}
"""


class NoNamespaces(Exception):
    """This machine has none for us; the text says why."""


@attrs.frozen
class Machine:
    """A namespace, and how commands are run in it."""

    pid: int
    entering: tuple[str, ...]

    def command(self, *words: str) -> list[str]:
        """Return the command that runs *words* here."""
        return [*self.entering, *words]

    async def run(self, *words: str, stdin: str = "") -> str:
        """Run a command here, to its good end, and return its output.  Raises `NoNamespaces` with what it said."""
        try:
            done = await trio.run_process(
                self.command(*words), stdin=stdin.encode(), capture_stdout=True, capture_stderr=True, check=False
            )
        except FileNotFoundError as error:
            raise NoNamespaces(f"{error.filename} is not installed") from error
        if done.returncode:
            raise NoNamespaces(f"{' '.join(words[:3])}: {done.stderr.decode().strip() or done.returncode}")
        return str(done.stdout.decode())


@attrs.frozen
class Machines:
    """The server's machine, on which the visitors are, too, and the client's with the local service; and their link."""

    server: Machine
    client: Machine

    async def take_down(self) -> None:
        """Take the link down at the server's end; the client's has no carrier then."""
        await self.server.run("ip", "link", "set", _LINK, "down")

    async def bring_up(self) -> None:
        await self.server.run("ip", "link", "set", _LINK, "up")

    async def lose(self, percent: int) -> None:
        """Lose so many of the packets, by chance, in either direction."""
        await self._filter(f"numgen random mod 100 < {percent} drop;")

    async def lose_all(self) -> None:
        """Lose all packets: nobody is told."""
        await self._filter("drop;")

    async def forget(self, client_port: int) -> None:
        """Lose the packets of one connection, as a NAT does that has forgotten it."""
        await self._filter(f"tcp sport {client_port} drop; iifname {_LINK} tcp dport {client_port} drop;")

    async def reset(self) -> None:
        """Answer each packet of TCP with an RST, and let those pass."""
        await self._filter("tcp flags & rst != rst reject with tcp reset;")

    async def heal(self) -> None:
        """Let all packets pass."""
        for machine in (self.server, self.client):
            await machine.run("nft", "-f", "-", stdin=_NO_FILTER)

    async def _filter(self, rule: str) -> None:
        for machine in (self.server, self.client):
            await machine.run("nft", "-f", "-", stdin=_NO_FILTER + _FILTER.format(link=_LINK, rule=rule))


@asynccontextmanager
async def open_machines() -> AsyncIterator[Machines]:
    """Make two machines with a link.  Raises `NoNamespaces`."""
    is_root = os.geteuid() == 0
    async with _namespace([] if is_root else ["--user", "--map-root-user"], ()) as server:
        inside = () if is_root else server.entering
        async with _namespace([], inside) as client:
            machines = Machines(server, client)
            veth = ("type", "veth", "peer", "name", _LINK, "netns", str(client.pid))
            await server.run("ip", "link", "add", _LINK, *veth)
            for machine, address in ((server, SERVER_ADDRESS), (client, CLIENT_ADDRESS)):
                await machine.run("ip", "address", "add", f"{address}/24", "dev", _LINK)
                for link in ("lo", _LINK):
                    await machine.run("ip", "link", "set", link, "up")
            for begin in (partial(machines.lose, 1), machines.reset, machines.heal):  # Not each kernel can do all.
                await begin()
            yield machines


@asynccontextmanager
async def _namespace(options: Sequence[str], inside: Sequence[str]) -> AsyncIterator[Machine]:
    """Make one; its process waits for the end of its input, and so ends with us at the latest."""
    command = [*inside, "unshare", *options, "--net", "--mount", "sh", "-c", "echo $$; exec cat"]
    try:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise NoNamespaces(f"{error.filename} is not installed") from error
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        try:
            pid = (await process.stdout.receive_some()).decode().strip()
            if not pid:
                raise NoNamespaces("the system does not let us make network namespaces")
            users = ("--user", "--preserve-credentials") if options or inside else ()
            yield Machine(int(pid), ("nsenter", "--target", pid, *users, "--net", "--mount"))
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()
