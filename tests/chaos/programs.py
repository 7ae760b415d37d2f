"""Programs as processes of their own, which are looked at, hurt and restarted."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import attrs
import trio

from .lines import lines_of

T = TypeVar("T")

ROOT: Final = Path(__file__).resolve().parents[2]

CLOCK: Final = "otun-clock"
"""The file that a program's clock of its own is read from."""

START_LIMIT: Final = 60.0
"""Seconds in which a program must say that it is ready.  It takes one, on a machine with nothing else to do."""

RESTART_DELAY: Final = 0.1
"""Seconds until a program that has ended by itself is started again, as systemd does it."""

STOP_LIMIT: Final = 15.0


class ProgramFailed(Exception):
    """A program has ended, or not said what it should have."""


Descriptors: TypeAlias = "Counter[str]"
"""How many a process has of each kind: sockets, pipes, files by their names."""


@attrs.frozen
class Usage:
    """What a process has of the system; memory in KiB."""

    descriptors: Descriptors
    rss: int


@attrs.define(eq=False)
class Program:
    """A command that runs; whoever supervises it starts it again when it ends.

    Its standard error goes to a file, *log*, and the lines of its output are kept.  It inherits *sockets*.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = attrs.field(factory=dict)
    is_supervised: bool = False
    sockets: Sequence[socket.socket] = ()
    on_line: Callable[[str], object] = bool
    lines: list[str] = attrs.field(factory=list)
    endings: list[int] = attrs.field(factory=list)
    _process: trio.Process | None = None
    _is_ending: bool = False
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run it until `end`, or, unless it is supervised, until it ends; cancelled, it is killed."""
        while not self._is_ending:
            with self.log.open("ab") as log:
                self._process = await trio.lowlevel.open_process(
                    list(self.command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    pass_fds=[sock.fileno() for sock in self.sockets],
                    env=environment_of_programs() | dict(self.environment),
                )
            self._news.unpark_all()
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            try:
                await self._follow(self._process)
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    with trio.CancelScope(shield=True):
                        await self._process.wait()
            status = await self._process.wait()
            self.endings.append(status)
            self._news.unpark_all()
            if not self.is_supervised:
                break
            if status >= 0:  # Nobody has killed it.
                await trio.sleep(RESTART_DELAY)

    async def _follow(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        async with process.stdin, process.stdout:
            async for line in lines_of(process.stdout):
                self.lines.append(line)
                self.on_line(line)
                self._news.unpark_all()
            await process.wait()

    async def read_line(self, number: int, start: str = "") -> str:
        """Wait for the line of this number, from 0, among those that begin with *start*.  Raises `ProgramFailed`."""
        with trio.move_on_after(START_LIMIT):
            while True:
                found = [line for line in self.lines if line.startswith(start)]
                if len(found) > number:
                    return found[number]
                if not self.is_running and not self.is_supervised:
                    break
                await self._news.park()
        raise ProgramFailed(f"{self.name} did not say {start!r}, but {self.lines!r} and {self.last_words()}")

    async def send_line(self, line: str) -> None:
        """Write to its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; only while it runs."""
        assert self._process is not None
        self._process.send_signal(number)

    async def fail_when_it_ends(self) -> None:
        """Wait until it has ended and nobody starts it again; raise `ProgramFailed` then."""
        while self.is_running or self.is_supervised:
            await self._news.park()
        raise ProgramFailed(f"the {self.name} has ended with {self.endings}: {self.last_words()}")

    async def kill(self) -> None:
        """Kill it; with a supervisor, wait until it runs again."""
        await self._end_by(signal.SIGKILL)

    async def restart(self) -> None:
        """Have it end in order, and wait until its supervisor has started it again.  Raises `ProgramFailed`."""
        await self._end_by(signal.SIGTERM)
        self._check_ending()

    async def wait_until_ended_well(self) -> None:
        """Wait until it has ended.  Raises `ProgramFailed` if that was not a good end, or does not come."""
        with trio.move_on_after(START_LIMIT):
            while not self.endings:
                await self._news.park()
        self._check_ending()

    def _check_ending(self) -> None:
        if self.endings[-1:] != [0]:
            raise ProgramFailed(f"the {self.name} should have ended well, but: {self.endings}, {self.last_words()}")

    async def _end_by(self, number: signal.Signals) -> None:
        ended = len(self.endings)
        before = self._process
        self.send_signal(number)
        while len(self.endings) == ended or (self.is_supervised and self._process is before):
            await self._news.park()

    async def end(self) -> None:
        """Ask it to end, and make it if it does not."""
        self._is_ending = True
        if self.is_running:
            ended = len(self.endings)
            self.send_signal(signal.SIGCONT)
            self.send_signal(signal.SIGTERM)
            with trio.move_on_after(STOP_LIMIT):
                while len(self.endings) == ended:
                    await self._news.park()
            if self.is_running:
                await self.kill()

    def said(self, text: str) -> int:
        """Count how often it has written *text* to its log."""
        return self.log.read_text(errors="replace").count(text)

    def last_words(self) -> str:
        """Return the end of what it has written to its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text.strip().splitlines()[-5:]) or "nothing"

    def usage(self) -> Usage:
        """Look at the process.  Raises `ProgramFailed` if there is none."""
        try:
            memory = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
            descriptors = self.descriptors()
        except OSError as error:
            raise ProgramFailed(f"the {self.name} has gone: {self.last_words()}") from error
        kib = {name: int(value) for name, value in re.findall(r"^(Rss):\s+(\d+) kB", memory, re.M)}
        return Usage(descriptors, kib["Rss"])

    def descriptors(self) -> Descriptors:
        """Count its descriptors."""
        folder = Path(f"/proc/{self.pid}/fd")
        kinds: Descriptors = Counter()
        for name in os.listdir(folder):
            try:
                target = os.readlink(folder / name)
            except FileNotFoundError:
                continue  # Closed meanwhile.
            if Path(target).name == CLOCK:
                continue  # libfaketime's, which opens it whenever somebody asks for the time.
            kinds[re.sub(r":\[\d+\]$", "", target)] += 1
        return kinds


def run(work: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Do what `trio.run` does; SIGTERM and SIGINT end it in an orderly way, with all programs that it has started.

    Raises `SystemExit` then.
    """

    async def main() -> T | None:
        result: T | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            result = await work(*arguments)
            nursery.cancel_scope.cancel()
        return result

    result = trio.run(main)
    if result is None:
        sys.exit("ended by a signal")
    return result


def environment_of_programs() -> dict[str, str]:
    """Return this process's environment without what would change our programs' settings."""
    own = ("OTUN_", "XDG_", "STATE_DIRECTORY")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(own) and not name.lower().endswith("_proxy")
    }
    ours = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "OTUN_CONFIG": os.devnull}
    return inherited | ours


def python(*words: object) -> list[str]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", *map(str, words)]


def first_of(error: BaseException) -> BaseException:
    """Return an error that is no group, of those in a group."""
    return first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
