"""What the switchboard's tests share: members that record what the board calls, and reading a socket to its end."""

import socket

import trio

from otun.switchboard import Endpoint, Switchboard


class Recorder:
    """A member that notes its calls, and does in each what a test wants done."""

    def __init__(self, name: str = "", log: list[str] | None = None) -> None:
        self.deadline_slot = 0
        self.name = name
        self.log = [] if log is None else log
        self.was_called = trio.Event()
        self.on_ready = lambda events: None
        self.on_flush = lambda: None
        self.on_deadline = lambda: None
        self.on_abort = lambda: None

    def __repr__(self) -> str:
        return f"<Recorder {self.name}>"

    def _note(self, call: str) -> None:
        self.log.append(f"{self.name}{call}")
        self.was_called.set()

    def ready(self, events: int) -> None:
        self._note("ready" if events else "again")
        self.on_ready(events)

    def flush(self) -> None:
        self._note("flush")
        self.on_flush()

    def deadline_passed(self) -> None:
        self._note("deadline")
        self.on_deadline()

    def abort(self) -> None:
        self._note("abort")
        self.on_abort()


class RecordingEndpoint(Endpoint):
    """An endpoint that reads everything at once and notes what happens to it."""

    __slots__ = ("changed", "drained_bytes", "errors", "has_ended", "is_done", "is_up", "received")

    def __init__(self, board: Switchboard, sock: socket.socket, *, is_connecting: bool = False) -> None:
        super().__init__(board, sock, is_connecting=is_connecting)
        self.received = bytearray()
        self.has_ended = False
        self.drained_bytes = 0
        self.is_done = False
        self.is_up = False
        self.errors: list[OSError] = []
        self.changed = trio.Event()
        board.add(sock, self)

    def _note_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait_until(self, holds) -> None:
        """Wait until *holds* does."""
        while not holds():
            await self.changed.wait()

    def pull(self) -> None:
        while not self.is_closed and (data := self.receive(65536)) is not None:
            if not data:
                self.has_ended = True
                break
            self.received += data
        self._note_change()

    def drained(self, size: int) -> None:
        self.drained_bytes += size
        self._note_change()

    def finished(self) -> None:
        self.is_done = True
        self._note_change()

    def connected(self) -> None:
        self.is_up = True
        self._note_change()

    def broken(self, error: OSError) -> None:
        self.errors.append(error)
        self.close()
        self._note_change()


def empty(board: Switchboard, sock: socket.socket) -> bytes:
    """Read all that is there and tell the board, as members do."""
    received = bytearray()
    try:
        while data := sock.recv(65536):
            received += data
    except BlockingIOError:
        board.emptied(sock)
    return bytes(received)


async def read_to_end(sock: socket.socket) -> bytes:
    """Read what comes until the other side's end; an error (a reset) is raised."""
    received = bytearray()
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(65536)
        if not data:
            return bytes(received)
        received += data
