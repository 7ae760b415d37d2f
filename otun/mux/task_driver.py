"""A session's bytes moved by two tasks, over any Trio stream."""

from typing import TYPE_CHECKING, Final

import trio

from ..switchboard import unsent_bytes
from .drivers import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from .session import Session

READ_SIZE: Final = 64 * 1024
"""Bytes read between two checkpoints: some 5,000 of the smallest frames, a few milliseconds' work."""

WRITE_SIZE: Final = 64 * 1024
"""Bytes in one `send_all`, which must be done within `SessionLimits.stall_timeout`."""


class TaskDriver:
    """One task reads and one writes.  Only the writer touches the transport's sending side."""

    def __init__(self, transport: trio.abc.Stream, session: "Session") -> None:
        self._transport = transport
        self._session = session
        self._stall_timeout = session.limits.stall_timeout
        self._has_output = trio.Event()
        self._has_read_all = trio.Event()
        self._is_closed = trio.Event()
        self._tasks = trio.CancelScope()
        self._patience = trio.CancelScope()
        self.is_backlogged: bool = False
        session.attach(self)

    def start(self, nursery: trio.Nursery) -> None:
        """Begin, in *nursery*."""
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            with self._tasks:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    if await self._write():
                        await self._close_gently()
                    nursery.cancel_scope.cancel()
        finally:
            self._session.fail("the session was cancelled")
            await trio.aclose_forcefully(self._transport)
            self._is_closed.set()

    async def _read(self) -> None:
        session = self._session
        try:
            while data := await self._transport.receive_some(READ_SIZE):
                session.feed(data)
            session.feed_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            session.fail(_lost(error))
        self._has_read_all.set()

    async def _write(self) -> bool:
        """Send the session's output until the session has ended and nothing is left.  False: the transport failed."""
        while True:
            await self._has_output.wait()
            self._has_output = trio.Event()
            while output := self._session.take_output():
                self.is_backlogged = True
                for piece in _cut(b"".join(output)):
                    if not await self._send(piece):
                        return False
            self.is_backlogged = False
            if self._session.is_closed:
                return True

    async def _send(self, piece: memoryview) -> bool:
        with trio.move_on_after(CLOSE_TIMEOUT if self._session.is_closed else self._stall_timeout) as self._patience:
            try:
                await self._transport.send_all(piece)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self._read_rest()
                self._session.fail(_lost(error))
                return False
            return True
        self._session.fail(f"the peer took no bytes for {self._stall_timeout:g} seconds")
        return False

    async def _read_rest(self) -> None:
        """Let the reader have what has arrived: a peer that is gone may have said something last."""
        with trio.move_on_after(CLOSE_TIMEOUT):
            await self._has_read_all.wait()

    async def _close_gently(self) -> None:
        """Finish writing, and read on until the peer closes: closing over unread bytes would destroy sent ones."""
        with trio.move_on_after(CLOSE_TIMEOUT) as scope:
            try:
                if isinstance(self._transport, trio.abc.HalfCloseableStream):
                    await self._transport.send_eof()
                    await self._wait_until_read(scope)
                else:
                    await self._transport.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                return

    async def _wait_until_read(self, scope: trio.CancelScope) -> None:
        """Wait for the peer's end; longer while a slow link still takes what the kernel holds."""
        sock = self._transport.socket if isinstance(self._transport, trio.SocketStream) else None
        left = unsent_bytes(sock)
        while not self._has_read_all.is_set():
            with trio.move_on_after(CLOSE_TIMEOUT / 2):
                await self._has_read_all.wait()
            if unsent_bytes(sock) < left:
                left = unsent_bytes(sock)
                scope.deadline = trio.current_time() + CLOSE_TIMEOUT

    def output_ready(self) -> None:
        """Wake the writer."""
        self._has_output.set()

    def session_ended(self) -> None:
        """Wake the writer, which sees to the rest."""
        self._patience.deadline = min(self._patience.deadline, trio.current_time() + CLOSE_TIMEOUT)
        self._has_output.set()

    def abort(self) -> None:
        """End both tasks; the transport is closed on the way."""
        self._tasks.cancel()

    async def aclose(self) -> None:
        """Wait for the writer."""
        try:
            await self._is_closed.wait()
        finally:
            self.abort()


def _cut(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + WRITE_SIZE] for start in range(0, len(data), WRITE_SIZE)]


def _lost(error: Exception) -> str:
    reason = error.__cause__ or error
    return f"the connection to the peer was lost: {reason}" if str(reason) else "the connection to the peer was lost"
