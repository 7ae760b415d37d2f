"""One stream's rules: its state, its two windows, and what it still owes the peer."""

from typing import TYPE_CHECKING

from ..errors import LocalProtocolError
from .frames import ACK, DATA, FIN, RST, WINDOW_UPDATE, encode_header
from .limits import INITIAL_WINDOW
from .send_queue import SPARSE_FRAME_SIZE
from .states import TRANSITIONS, StreamInput, StreamState

if TYPE_CHECKING:
    from .connection import YamuxConnection
    from .handler import StreamHandler


class YamuxStream:
    """A stream as the protocol sees it.  Made by `YamuxConnection` only.

    *handler* hears of what the peer does.  Sending is in two steps, so that nobody reads what cannot be sent yet: ask
    `send_allowance`, then `send_data` at most so much.

    A handler that has not passed everything on yet says that it *keeps_unread* bytes: those that have come before a
    reset by the peer then count until they are consumed, or until `reset`.

    Between two bodies, and for as long as the reader wants anything, `receive_credit` + `unread` + `ungranted` ==
    `window`.
    """

    # Ten thousand of them may be idle at once: no instance dictionary.
    __slots__ = (
        "_connection",
        "handler",
        "has_second_fin",
        "id",
        "is_acknowledged",
        "is_local",
        "is_read_closed",
        "is_sparse",
        "is_waiting_for_room",
        "is_waiting_for_window",
        "keeps_unread",
        "owed_flags",
        "owed_window",
        "receive_credit",
        "send_credit",
        "state",
        "ungranted",
        "unread",
        "window",
        "window_used_at",
    )

    def __init__(
        self, connection: "YamuxConnection", stream_id: int, handler: "StreamHandler", *, is_local: bool
    ) -> None:
        self._connection = connection
        self.id: int = stream_id
        self.handler: StreamHandler = handler
        self.state: StreamState = StreamState.OPEN
        self.is_local: bool = is_local
        self.is_acknowledged: bool = False
        self.has_second_fin: bool = False
        self.is_read_closed: bool = False
        self.is_sparse: bool = True
        self.is_waiting_for_room: bool = False
        self.is_waiting_for_window: bool = False
        self.keeps_unread: bool = False
        self.owed_flags: int = 0
        self.owed_window: int = 0
        self.send_credit: int = INITIAL_WINDOW
        self.receive_credit: int = INITIAL_WINDOW
        self.ungranted: int = 0
        self.unread: int = 0
        self.window: int = INITIAL_WINDOW
        self.window_used_at: float = 0.0  # When half of it had last been used up.

    def __repr__(self) -> str:
        return f"<YamuxStream {self.id} {self.state.name}>"

    @property
    def can_send(self) -> bool:
        """Whether our direction is open: no FIN or RST has been sent, and no RST received."""
        return self.state is StreamState.OPEN or self.state is StreamState.REMOTE_CLOSED

    @property
    def has_peer_finished(self) -> bool:
        """Whether a FIN has come while we are not done yet: what has arrived is whole, and no reset takes it back."""
        return self.state is StreamState.REMOTE_CLOSED

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended both ways and is out of its connection's table."""
        return self.state is StreamState.CLOSED or self.state is StreamState.RESET

    # Sending

    def send_allowance(self) -> int:
        """Return how many bytes `send_data` takes now.

        0 when the peer's window is empty or the connection's send queue full; `StreamHandler.window_opened` then says
        when to ask again.  Streams that wait for room in the queue get it in turn.
        """
        credit = self.send_credit
        if credit <= 0:
            self.is_waiting_for_window = True
            self.decline()
            return 0
        most = self._connection.output.frame_size_for(self)
        return most if most < credit else credit

    def decline(self) -> None:
        """Give up the turn that `StreamHandler.window_opened` announced: there is nothing to send any more."""
        self._connection.output.leave_round(self)

    def send_data(self, data: bytes | memoryview) -> None:
        """Queue *data*, at most `send_allowance` bytes, as one frame.  It must not change afterwards.

        The window is debited here, not when the bytes leave.  Raises `LocalProtocolError` after FIN or RST.
        """
        if not (self.state is StreamState.OPEN or self.state is StreamState.REMOTE_CLOSED):
            raise LocalProtocolError(f"stream {self.id} cannot send in state {self.state.name}")
        size = len(data)
        self.send_credit -= size
        self.is_sparse = size <= SPARSE_FRAME_SIZE
        self._connection.output.send_data(encode_header(DATA, 0, self.id, size), data, size)

    def send_eof(self) -> None:
        """Queue a FIN behind the data.  Does nothing when our direction is closed already: two FINs kill some peers."""
        if self.can_send:
            # The state first: queueing may make the transport take everything and invite streams to send.
            self._advance(StreamInput.SEND_FIN)
            self._connection.output.send_last(encode_header(WINDOW_UPDATE, FIN, self.id, 0))

    def reset(self, code: int = 0) -> None:
        """End the stream both ways at once, and count what is unread as gone.  The handler is not called."""
        self._discard_unread()
        self._reset(code)

    def _reset(self, code: int) -> None:
        if not self.is_over:
            self._advance(StreamInput.SEND_RST)
            self._connection.output.send_last(encode_header(WINDOW_UPDATE, RST, self.id, code))

    # Receiving

    def acknowledge(self) -> None:
        """Tell the peer, once, that the stream it opened is taken, and how large our window is."""
        if not self.is_local:
            self._connection.patience.accepted(self)
            self.send_ack()

    def consume(self, size: int) -> None:
        """Say that *size* received bytes are used up.  From half a window on the peer is given it anew."""
        windows = self._connection.windows
        windows.held -= size
        self.unread -= size
        self.ungranted += size
        if self.ungranted * 2 >= self.window and self.is_expecting_data:
            self._renew_window()
        elif windows.ended_unread and not self.unread:
            windows.ended_unread.pop(self, None)

    def _renew_window(self) -> None:
        delta = self.ungranted + self._connection.resize_window(self)
        self.ungranted = 0
        if delta:
            self.receive_credit += delta
            self._owe(0, delta)
        self._connection.measure_round_trip()  # At last: the handler may call back.

    def _discard_unread(self) -> None:
        windows = self._connection.windows
        windows.held -= self.unread
        windows.ended_unread.pop(self, None)
        self.unread = 0

    @property
    def is_expecting_data(self) -> bool:
        """Whether the peer may still send data that somebody wants."""
        return (self.state is StreamState.OPEN or self.state is StreamState.LOCAL_CLOSED) and not self.is_read_closed

    def close(self, now: float) -> None:
        """Finish both ways: FIN after what is queued; data that still comes is answered with RST.

        It is not reset at once, because hashicorp/yamux drops data it has not read when RST comes.  A peer whose window
        is empty is given one byte, so that it tries and finds out.  A peer that neither sends nor finishes is reset
        after `SessionLimits.close_timeout` (see `YamuxConnection.handle_timeouts`).
        """
        self._discard_unread()
        if self.is_over or self.is_read_closed:
            return
        self.is_read_closed = True
        self.finish(now)
        if self.receive_credit == 0 and not self.is_over:
            self.receive_credit = 1
            self._owe(0, 1)

    def finish(self, now: float) -> None:
        """Send FIN after what is queued, and wait `SessionLimits.close_timeout` at most for the peer's."""
        self.send_eof()
        if not self.is_over:
            self._connection.patience.closed(self, now)

    # For the connection

    def send_ack(self) -> None:
        """Queue the ACK and the credit that comes with it, once."""
        if not self.is_acknowledged and not self.is_over:
            self.is_acknowledged = True
            delta = self._connection.windows.first_delta(self)
            self.receive_credit += delta
            self._owe(ACK, delta)

    def _owe(self, flags: int, delta: int) -> None:
        """Merge a window update into the one that is still to be sent: however slow the peer reads, it is one."""
        self.owed_flags |= flags
        self.owed_window += delta
        self._connection.output.owe_update(self)

    def take_update(self) -> bytes:
        """Return the window update that is owed, as its frame."""
        frame = encode_header(WINDOW_UPDATE, self.owed_flags, self.id, self.owed_window)
        self.owed_flags = self.owed_window = 0
        return frame

    def _advance(self, event: StreamInput) -> None:
        self.state = TRANSITIONS[self.state, event]
        if self.is_over:
            self._connection.forget(self)
        self._connection.output.leave_round(self)

    def receive_fin(self) -> None:
        """Apply a FIN from the peer.  A second one means nothing, nor does one for a stream that was just reset."""
        if self.state is StreamState.OPEN or self.state is StreamState.LOCAL_CLOSED:
            self._advance(StreamInput.RECEIVE_FIN)
            self.handler.stream_ended()

    def receive_rst(self, code: int) -> None:
        """Apply an RST from the peer, unless the stream has just ended by one of ours."""
        if not self.is_over:
            self.owed_flags = 0  # An ACK that has not left yet is of no interest any more.
            if not (self.has_peer_finished or self.keeps_unread):
                self._discard_unread()
            self._advance(StreamInput.RECEIVE_RST)
            self.handler.stream_reset(code)

    def refuse(self) -> None:
        """Reset the stream because of what the peer did to it, and tell the handler."""
        if not self.has_peer_finished:
            self._discard_unread()
        self._reset(0)
        self.handler.stream_reset(0)

    def evict(self) -> None:
        """Reset the stream because the session holds too much, and tell the handler to drop what it has."""
        self.reset()
        self.handler.evicted()
