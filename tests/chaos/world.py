"""A server, a client, a local service and visitors as processes, and the link between client and server: a world."""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import attrs
import trio

from otun.cli.running_server import Answer, ask, rows_of
from otun.errors import OtunError

from .links import Link
from .outcomes import Visit, Visits
from .programs import CLOCK, ROOT, START_LIMIT, Descriptors, Program, ProgramFailed, Usage

TRAFFIC: Final[Mapping[str, int]] = {"probe": 10, "chain": 2, "download": 1, "upload": 1, "websocket": 2, "echo": 2}
"""What the visitors do: probes a second, and visitors of each other kind."""

SETTLE_LIMIT: Final = 40.0
"""Seconds in which everything that the visitors caused must have gone: closing may wait for a peer for some."""

REST: Final = 1.0
"""Seconds in which nothing changes in programs that are idle."""

POLL_INTERVAL: Final = 0.1
"""Seconds between two looks at what tells nobody when it changes: another process's descriptors, for one."""

LinkKind = Literal["machines", "relay"]

TUNNELS: Final = 2
"""Those of the client's file."""


@attrs.frozen(kw_only=True)
class Setting:
    """What kind of world it is to be.

    *has_small_disk* gives the server a state folder on a disk of its own, where namespaces can be made, and
    *server_descriptors* that many descriptors; with *has_own_clock*, `World.set_clock` sets that of server and client.
    A server that *has_socket_units* finds its listening sockets open, as systemd opens them; that takes a relay.
    *package* is the folder that `otun` is taken from.
    """

    link: LinkKind = "machines"
    is_encrypted: bool = True
    is_client_supervised: bool = False
    is_server_supervised: bool = False
    has_small_disk: bool = False
    has_own_clock: bool = False
    has_socket_units: bool = False
    server_descriptors: int | None = None
    package: Path = ROOT
    seed: int = 0


@attrs.define(eq=False, kw_only=True)
class World:
    """Everything that there is."""

    setting: Setting
    folder: Path
    link: Link
    state: Path
    server: Program
    client: Program
    service: Program
    visitors: Program
    visits: Visits
    http_port: int
    start_successor: Callable[[], Awaitable[Program]]
    _waves: int = 0

    @property
    def programs(self) -> tuple[Program, Program]:
        """Those that are under test."""
        return self.server, self.client

    async def let_visitors_in(self, traffic: Mapping[str, int] = TRAFFIC) -> None:
        """Have visitors come until `send_visitors_home`."""
        await self.visitors.send_line(json.dumps(dict(traffic)))

    async def send_visitors_home(self) -> None:
        """Have all visits come to their end, and wait for that."""
        await self.visitors.send_line("")
        await self.visitors.read_line(self._waves, "null")
        self._waves += 1

    async def wait_until_served(self, *, since: float, limit: float = START_LIMIT) -> Visit:
        """Wait for the first good answer to a visitor who came after *since*.

        Raises `ProgramFailed`, also when the server or the client ends; it comes in groups.
        """
        visit: Visit | None = None
        async with self._while_they_run(limit, "no visitor was served"):
            visit = await self.visits.wait_for_probe(since=since)
        assert visit is not None
        return visit

    @asynccontextmanager
    async def _while_they_run(self, limit: float, complaint: str) -> AsyncIterator[None]:
        """Raise `ProgramFailed`, in a group, when the body takes longer, or the server or the client ends in it."""
        async with trio.open_nursery() as nursery:
            for program in self.programs:
                nursery.start_soon(program.fail_when_it_ends)
            with trio.move_on_after(limit) as scope:
                yield
            nursery.cancel_scope.cancel()
            if scope.cancelled_caught:
                raise ProgramFailed(
                    f"{complaint} within {limit:.0f} s; the server said {self.server.last_words()}, "
                    f"the client {self.client.last_words()}"
                )

    def set_clock(self, offset: str) -> None:
        """Let server and client read a clock that is wrong by *offset*, such as `+1d`.  Raises `ProgramFailed`."""
        for program in self.programs:
            if "libfaketime" not in Path(f"/proc/{program.pid}/maps").read_text():
                raise ProgramFailed(f"the {program.name} has no clock of its own: install libfaketime")
        write_at_one_blow(self.folder / CLOCK, offset)

    async def replace_server(self) -> None:
        """Have another server take the place of this one, and wait until this one has ended.  Raises `ProgramFailed`.

        It must end well.
        """
        old, self.server = self.server, await self.start_successor()
        await old.wait_until_ended_well()

    async def reload_server(self, setting: str, answer: str) -> None:
        """Have the server read its file again, with this *setting* in it, until *answer* is in its log.

        Raises `ProgramFailed`.
        """
        write_at_one_blow(self.folder / "server.toml", f"[server]\n{setting}\n")
        before = self.server.said(answer)
        self.server.send_signal(signal.SIGHUP)
        with trio.move_on_after(START_LIMIT):
            while self.server.said(answer) == before:  # noqa: ASYNC110 -- a file tells nobody
                await trio.sleep(POLL_INTERVAL)
            return
        raise ProgramFailed(f"the server did not say {answer!r} at SIGHUP, but {self.server.last_words()}")

    async def status(self) -> Answer:
        """Ask the server how it is.  Raises `ProgramFailed`."""
        return await self._ask("status")

    async def _ask(self, what: str) -> Answer:
        try:
            return await ask(self.state, what)
        except OtunError as error:
            raise ProgramFailed(f"the server did not answer: {error}; {self.server.last_words()}") from error

    async def client_port(self) -> int:
        """Return the port from which the client has connected.  Raises `ProgramFailed`."""
        sessions = rows_of(await self._ask("sessions"), "sessions")
        if not sessions:
            raise ProgramFailed(f"no client is connected: {self.client.last_words()}")
        return int(str(sessions[-1]["address"]).rpartition(":")[2])

    async def wait_until_open(self) -> Mapping[str, Descriptors]:
        """Wait until the tunnels are there, and return the descriptors that server and client have then."""
        async with self._while_they_run(START_LIMIT, "there were no tunnels"):
            while (await self.status())["tunnels"] != TUNNELS:  # noqa: ASYNC110 -- the server tells nobody
                await trio.sleep(POLL_INTERVAL)
            found: dict[str, Descriptors] = {}
            since = trio.current_time()
            while trio.current_time() < since + REST:  # Our own question may be among them.
                await trio.sleep(POLL_INTERVAL)
                before, found = found, {program.name: program.descriptors() for program in self.programs}
                if found != before:
                    since = trio.current_time()
        return found

    async def settle(self, idle: Mapping[str, Descriptors]) -> dict[str, Usage]:
        """Wait until nothing of the visitors is left, and return what the programs have of the system.

        If the descriptors do not get to be the *idle* ones, that is returned as it is.
        """
        until = trio.current_time() + SETTLE_LIMIT
        while True:
            usages = {program.name: program.usage() for program in self.programs}
            is_idle = all(its.descriptors == idle[name] for name, its in usages.items())
            if (is_idle and not (await self.status())["visitors"]) or trio.current_time() > until:
                return usages
            await trio.sleep(POLL_INTERVAL)


def write_at_one_blow(file: Path, text: str) -> None:
    """Write what another program may read at any time."""
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text)
    draft.rename(file)
