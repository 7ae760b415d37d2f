"""A yamux stream as a Trio program uses it."""

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..addresses import TcpAddress
from ..yamux import StreamState, YamuxConnection, YamuxStream
from .errors import SessionClosed, StreamReset

if TYPE_CHECKING:
    from .session import Session


class Stream(trio.abc.HalfCloseableStream):
    """One stream of a `Session`: bytes in both directions, each with its own window and its own end.

    At most one task may send and one receive at a time; another one gets `trio.BusyResourceError`.

    *visitor* is the address of the visitor whose stream it is, where a tunnel's server tells it.
    """

    # Idle streams must be small: no instance dictionary, no buffer and no waiting room before they are needed.
    __slots__ = (
        "_core",
        "_error",
        "_has_ended",
        "_is_closed",
        "_is_sending",
        "_reader",
        "_session",
        "_unread",
        "_writer",
        "visitor",
    )

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._core: YamuxStream
        self._unread: bytearray | None = None
        self._has_ended = False
        self._is_closed = False
        self._is_sending = False
        self._error: StreamReset | SessionClosed | None = None
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self.visitor: TcpAddress | None = None

    @classmethod
    def opened_by_us(cls, session: "Session", connection: YamuxConnection) -> "Stream":
        """Open a stream on *connection*, which must be able to open one."""
        stream = cls(session)
        stream._core = connection.open_stream(stream)
        return stream

    @classmethod
    def opened_by_peer(cls, session: "Session", core: YamuxStream) -> "Stream":
        """Take the part of *core*'s handler."""
        stream = cls(session)
        stream._core = core
        core.handler = stream
        return stream

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.state.name}>"

    @property
    def id(self) -> int:
        """The stream's number in its session."""
        return self._core.id

    @property
    def state(self) -> StreamState:
        """Which directions are still open."""
        return self._core.state

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, waiting for the peer's window as needed.

        Raises `StreamReset` or `SessionClosed` when the peer or the session has ended the stream, and
        `trio.ClosedResourceError` after `send_eof` or `aclose`.  Cancelled half-way, an unknown prefix has been sent;
        the session and its other streams are unharmed.
        """
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            with memoryview(data) as view, view.cast("B") as left:
                await self._send_pieces(left, is_immutable=isinstance(data, bytes))
        finally:
            self._is_sending = False

    async def _send_pieces(self, data: memoryview, *, is_immutable: bool) -> None:
        self._check_can_send()
        position, end = 0, len(data)
        while position < end:
            allowance = await self._wait_for_allowance()
            piece = data[position : position + allowance]
            self._core.send_data(piece if is_immutable else bytes(piece))
            position += len(piece)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` could send something.  Raises what `send_all` raises."""
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint()
            await self._wait_for_allowance()
        finally:
            self._is_sending = False

    async def _wait_for_allowance(self) -> int:
        while True:
            self._check_can_send()
            allowance = self._core.send_allowance()
            if allowance:
                return allowance
            self._writer = trio.lowlevel.current_task()
            await _sleep_until_woken(self._forget_writer)

    def _check_can_send(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._error is not None:
            raise self._error.with_traceback(None)
        if not self._core.can_send:
            raise trio.ClosedResourceError("nothing can be sent after send_eof()")

    async def send_eof(self) -> None:
        """Tell the peer, behind all data, that no more will come; receiving goes on.  A second call does nothing."""
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._is_closed:
            raise trio.ClosedResourceError("this stream was closed")
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error.with_traceback(None)
        self._core.send_eof()

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at least one byte; b"" after the peer's end.

        Raises `StreamReset` or `SessionClosed` when the stream was cut short: never b"".  Cancelled, no byte is lost.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._reader is not None:
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._unread or self._has_ended or self._is_closed or self._error is not None:
            await trio.lowlevel.checkpoint()
        while True:
            if self._is_closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self._unread:
                return self._take_unread(max_bytes)
            if self._has_ended:
                return b""
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._reader is not None:
                raise trio.BusyResourceError("another task is receiving from this stream")
            self._reader = trio.lowlevel.current_task()
            await _sleep_until_woken(self._forget_reader)

    def acknowledge(self) -> None:
        """Tell the peer that somebody has taken the stream it opened."""
        self._core.acknowledge()

    def hand_over(self, on_stream: Callable[[YamuxStream], None]) -> None:
        """Give the stream to a handler that *on_stream* sets, with all that has arrived for it.

        The session may have ended, or end while it answers: then the handler that the stream has at last is told.
        """
        core = self._core
        on_stream(core)
        if self._unread and core.handler is not self:
            core.handler.data_received(memoryview(self._unread))
        if self._has_ended:
            core.handler.stream_ended()
        if self._session.is_closed and core.handler is not self:
            core.handler.connection_lost()

    def _take_unread(self, max_bytes: int | None) -> bytes:
        unread = self._unread
        assert unread is not None
        if max_bytes is None or max_bytes >= len(unread):
            data = bytes(unread)
            self._unread = None
        else:
            with memoryview(unread) as view:
                data = bytes(view[:max_bytes])
            del unread[:max_bytes]
        self._core.consume(len(data))
        return data

    # Ending

    def reset(self, code: int = 0) -> None:
        """End the stream at once, both ways: the peer sees an error; our own waiting tasks get `ClosedResourceError`.

        *code* is passed on to peers that understand one.  Does not wait; what is unread is gone.
        """
        self._core.reset(code)
        self._close()

    async def aclose(self) -> None:
        """Send the end behind what was sent, and receive no more: what the peer still sends is answered with a reset.

        Never waits for the peer.  Cancelled, it has the same effect.
        """
        if not self._is_closed:
            self._close()
            self._core.close(trio.current_time())
        await trio.lowlevel.checkpoint()

    def _close(self) -> None:
        self._is_closed = True
        self._unread = None
        self._wake_reader()
        self._wake_writer()

    # What the connection calls (`otun.yamux.StreamHandler`)

    def data_received(self, data: memoryview) -> None:
        """Keep *data* for the reader."""
        if self._unread is None:
            self._unread = bytearray(data)
        else:
            self._unread += data
        self._wake_reader()

    def stream_ended(self) -> None:
        """Let the reader see the end once it has read everything."""
        self._has_ended = True
        self._wake_reader()

    def stream_reset(self, code: int) -> None:
        """Wake everybody.  What is unread is gone, unless the end had arrived before: then it is whole."""
        reason = f" with code {code}" if code else ""
        self._error = StreamReset(f"stream {self.id} was reset by the peer{reason}", code=code)
        if not self._has_ended:
            self._unread = None
        self._session.forget_unaccepted(self)
        self._wake_reader()
        self._wake_writer()

    def evicted(self) -> None:
        """Wake everybody.  What is unread is gone."""
        self._error = StreamReset(f"stream {self.id} was reset: the session holds too much, and this stream most")
        self._unread = None
        self._has_ended = False
        self._session.forget_unaccepted(self)
        self._wake_reader()
        self._wake_writer()

    def connection_lost(self) -> None:
        """Wake everybody.  What arrived can still be read, and then the end if that had arrived, too."""
        self._error = self._session.end_error()
        self._wake_reader()
        self._wake_writer()

    def window_opened(self) -> None:
        """Let the writer look again, if it still wants to."""
        if self._writer is None:
            self._core.decline()
        self._wake_writer()

    # Waiting: at most one task reads and one writes, so that each needs a place and no waiting room.

    def _wake_reader(self) -> None:
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    def _wake_writer(self) -> None:
        if self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None

    def _forget_reader(self) -> None:
        self._reader = None

    def _forget_writer(self) -> None:
        self._writer = None


async def _sleep_until_woken(forget: Callable[[], None]) -> None:
    def abort(_raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        forget()
        return trio.lowlevel.Abort.SUCCEEDED

    await trio.lowlevel.wait_task_rescheduled(abort)
