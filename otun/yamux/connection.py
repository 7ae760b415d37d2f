"""A yamux connection without I/O: `receive_data` takes what arrived, `data_to_send` gives what must leave.

Everything that is kept has a bound: the send queue, the replies to a peer that does not read, the streams nobody has
taken yet.  A peer that breaks the rules gets GoAway 1, and `receive_data` raises `RemoteProtocolError`.
"""

from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Final

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from .budget import Budget
from .frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    MAX_UINT32,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    FrameDecoder,
    GoAwayCode,
    encode_header,
)
from .handler import NOBODY, ConnectionHandler, StreamHandler
from .limits import DEFAULT_LIMITS, SessionLimits
from .patience import Patience
from .send_queue import SendQueue
from .states import StreamState
from .stream import YamuxStream
from .windows import ReceiveWindows

OPEN_BACKLOG: Final = 256
"""Opens of our own without an answer: what all yamux implementations accept."""


class Role(Enum):
    """Which end of the connection this is.  Streams opened by the client have odd ids, the server's even ones."""

    CLIENT = 1
    SERVER = 2


class YamuxConnection:
    """The rules of one connection.

    Nothing here waits, and nothing reads a clock: where time matters, it is an argument in seconds.
    """

    def __init__(self, role: Role, handler: ConnectionHandler, *, limits: SessionLimits = DEFAULT_LIMITS) -> None:
        self.role: Role = role
        self.limits: SessionLimits = limits
        self.streams: dict[int, YamuxStream] = {}
        self.windows: ReceiveWindows = ReceiveWindows(limits, self.streams)
        self.output: SendQueue = SendQueue(handler.output_ready, limits)
        self.patience: Patience = Patience(limits.close_timeout, handler.deadline_set)
        self.has_gone_away: bool = False
        self.has_peer_gone_away: bool = False
        self.on_stream_over: Callable[[], None] | None = None
        self._refuses_streams = False
        self._handler = handler
        self._resets = Budget(limits.resets, "resets", "opened streams in vain")
        self._empty_frames = Budget(limits.empty_frames, "empty_frames", "sent frames that say nothing")
        self._decoder = FrameDecoder(self)
        self._is_over = False
        self._now = 0.0
        self._next_id = role.value
        self._next_ping = 0
        self._unacknowledged = 0
        self._reset_unanswered: list[YamuxStream] = []
        # Inbound: where the body that is arriving goes, and whether a FIN stands behind it.
        self._body_stream: YamuxStream | None = None
        self._body_has_fin = False
        self._credited: list[YamuxStream] = []

    def __repr__(self) -> str:
        return f"<YamuxConnection {self.role.name} streams={len(self.streams)} queued={self.output.queued_bytes}>"

    # Streams of our own

    @property
    def can_open(self) -> bool:
        """Whether `open_stream` may be called now: fewer than `OPEN_BACKLOG` opens wait for an answer."""
        return self._unacknowledged < OPEN_BACKLOG

    @property
    def may_ever_open(self) -> bool:
        """Whether waiting for `can_open` makes sense: the peer has not gone away, and there are ids left."""
        return not (self.has_peer_gone_away or self._next_id > MAX_UINT32)

    @property
    def streams_left(self) -> int:
        """How many ids there are for further streams of our own."""
        return (MAX_UINT32 + 2 - self._next_id) // 2

    def open_stream(self, handler: StreamHandler) -> YamuxStream:
        """Open a stream.  Its data may be sent at once, before the peer acknowledges it.

        Raises `LocalProtocolError` after the peer's GoAway, while `can_open` is false, and when all ids are used.
        """
        if self.has_peer_gone_away:
            raise LocalProtocolError("no stream can be opened: the peer is going away")
        if not self.can_open:
            raise LocalProtocolError(f"no stream can be opened: {OPEN_BACKLOG} opens wait for the peer's answer")
        if self._next_id > MAX_UINT32:
            raise LocalProtocolError("no stream can be opened: the session has used all its stream ids")
        stream = YamuxStream(self, self._next_id, handler, is_local=True)
        self._next_id += 2
        self._unacknowledged += 1
        self.streams[stream.id] = stream
        delta = self.windows.first_delta(stream)
        stream.receive_credit += delta
        stream.owed_flags, stream.owed_window = SYN, delta
        self.output.owe_update(stream)
        return stream

    # The session

    def ping(self) -> int:
        """Queue a ping ahead of all data, and return the value that its pong will carry."""
        value = self._next_ping
        self._next_ping = (value + 1) & MAX_UINT32
        self.output.send_urgent(encode_header(PING, SYN, 0, value))
        return value

    def go_away(self, code: int = GoAwayCode.NORMAL, *, refuses_streams: bool = True) -> None:
        """Queue a GoAway, once.  With code 0 the streams that are open go on; the peer's new ones are refused.

        It says nothing of our own: they can still be opened.

        Unless *refuses_streams*, those that the peer opens all the same are taken: it may have done so before it heard.
        The GoAway leaves behind the data that is queued, because some peers stop reading there.
        """
        self._refuses_streams = self._refuses_streams or refuses_streams
        if not self.has_gone_away:
            self.has_gone_away = True
            self.output.send_last(encode_header(GO_AWAY, 0, 0, code))

    def connection_lost(self) -> None:
        """Forget all streams, and tell each one's handler.  What the peer says from now on is ignored."""
        self._is_over = True
        streams = list(self.streams.values())
        self.streams.clear()
        self.output.end_round()
        self.patience.end()
        self._body_stream = None
        for stream in streams:
            stream.state = StreamState.RESET
        for stream in streams:
            stream.handler.connection_lost()

    # Time

    @property
    def next_deadline(self) -> float:
        """When `handle_timeouts` should be called next, in seconds; infinity when nothing is due."""
        return self.patience.deadline

    def handle_timeouts(self, now: float) -> None:
        """Acknowledge what nobody took in time, and reset closed streams whose peer never finished."""
        for stream in self.patience.take_unacknowledged(now):
            stream.send_ack()
        for stream in self.patience.unfinished(now):
            stream.reset()

    # Output

    @property
    def queued_bytes(self) -> int:
        """Bytes of data, and of FINs and RSTs, that wait to leave."""
        return self.output.queued_bytes

    def data_to_send(self) -> list[bytes | memoryview]:
        """Return what must leave now, and forget it: pings first, then what is owed, then some of the data.

        To be called again when all of it has left, until there is nothing.
        """
        output = self.output.take()
        while self._reset_unanswered and self.output.is_empty:
            self._free_slot(self._reset_unanswered.pop())
        return output

    def refill(self) -> None:
        """Let the streams that wait for room in the queue send.  To be called after every `data_to_send`.

        The room of what was taken is free when it has left: when `data_to_send` is called again, even if for nothing.
        """
        self.output.refill()

    # Input

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Apply the next bytes from the peer, in the calls that they cause.

        Raises `RemoteProtocolError` when the peer breaks the protocol, and `LimitExceeded`, which is one, when it has
        passed a limit; GoAway 1 is then in `data_to_send`, and nothing may be fed any more.
        """
        self._now = now
        try:
            self._decoder.feed(data)
        except RemoteProtocolError:
            self.has_gone_away = True
            self.output.send_urgent(encode_header(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR))
            raise
        if self._credited:
            self._send_on_credit()

    def receive_eof(self) -> None:
        """Take note that the peer's bytes have ended.  Raises `RemoteProtocolError` when that cuts a frame."""
        if not self._decoder.is_between_frames:
            raise RemoteProtocolError("the connection ended in the middle of a frame")

    def header_received(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """For the `FrameDecoder`."""
        if self._is_over:
            return
        if kind > WINDOW_UPDATE:
            self._session_header_received(kind, flags, length)
            return
        is_opening = flags & SYN and not flags & RST
        stream = self._syn_received(stream_id) if is_opening else self.streams.get(stream_id)
        if kind == DATA:
            self._body_stream = stream
        if not length and not flags & (SYN | RST):
            self._check_empty(stream, flags)
        if stream is None:
            return  # Unknown, refused or ended: never answered, and a body is skipped.
        if not stream.is_acknowledged and stream.is_local:
            self._free_slot(stream)  # Any frame is an answer to our SYN: not all peers send ACK before their data.
        if flags & RST:
            stream.receive_rst(length if kind == WINDOW_UPDATE else 0)
            if not stream.is_local:
                self._resets.spend(self._now)
            return
        if length:
            if kind == DATA:
                overrun = length - (stream.receive_credit - stream.owed_window)
                if overrun > 0:
                    raise RemoteProtocolError(f"stream {stream_id} overran its window by {overrun} bytes")
                stream.receive_credit -= length
                self._body_has_fin = bool(flags & FIN)
                return
            self._credit(stream, length)
        if flags & FIN:
            stream.receive_fin()

    def _check_empty(self, stream: YamuxStream | None, flags: int) -> None:
        """Count a frame without length that changes nothing.

        The end of a stream that we have reset is none, nor is a second FIN, which some peers send.
        """
        if stream is None:
            is_empty = not flags & (ACK | FIN)
        elif flags & FIN:
            is_empty = stream.has_second_fin
            stream.has_second_fin = stream.has_peer_finished
        else:
            is_empty = stream.is_acknowledged or not stream.is_local
        if is_empty:
            self._empty_frames.spend(self._now)

    def _session_header_received(self, kind: int, flags: int, value: int) -> None:
        if kind == GO_AWAY:
            self.has_peer_gone_away = True
            self._handler.went_away(value)
        elif flags & SYN:
            self.output.send_pong(value)
        elif flags & ACK:
            self._handler.pong_received(value)

    def _syn_received(self, stream_id: int) -> YamuxStream | None:
        if stream_id == 0 or stream_id % 2 == self.role.value % 2:
            raise RemoteProtocolError(f"the peer opened stream {stream_id}, an id that is not its to use")
        if stream_id in self.streams:
            raise RemoteProtocolError(f"the peer opened stream {stream_id} twice")
        if limit := self.output.limit_passed:
            raise LimitExceeded(
                "the peer opens streams without end and does not read what becomes of them", limit=limit
            )
        if self._refuses_streams or self._is_full:
            self._resets.spend(self._now)
            self.output.refuse(stream_id)
            return None
        stream = YamuxStream(self, stream_id, NOBODY, is_local=False)
        self.streams[stream_id] = stream
        self.patience.opened(stream, self._now)
        self._handler.stream_opened(stream)
        return None if stream.is_over else stream

    @property
    def _is_full(self) -> bool:
        limits = self.limits
        return self.patience.unaccepted_count >= limits.accept_backlog or len(self.streams) >= limits.max_streams

    def _free_slot(self, stream: YamuxStream) -> None:
        stream.is_acknowledged = True
        self._unacknowledged -= 1
        self._handler.slot_freed()

    def _credit(self, stream: YamuxStream, delta: int) -> None:
        stream.send_credit += delta
        if stream.send_credit > MAX_UINT32:
            raise RemoteProtocolError(f"the peer raised the window of stream {stream.id} above {MAX_UINT32} bytes")
        if stream.is_waiting_for_window:
            stream.is_waiting_for_window = False
            self._credited.append(stream)

    def _send_on_credit(self) -> None:
        """Let streams send whose window was empty: after the whole read, so that credit in drops makes no small frames.

        They are none any more if the connection has been lost in the meantime.
        """
        credited, self._credited = self._credited, []
        for stream in credited:
            if stream.can_send:
                stream.handler.window_opened()

    def body_received(self, data: memoryview, missing: int) -> None:
        """For the `FrameDecoder`."""
        stream = self._body_stream
        if stream is None:
            return
        if not stream.is_expecting_data:
            stream.refuse()  # Data after FIN, or after our reader left.
            return
        size, windows = len(data), self.windows
        stream.unread += size
        windows.held += size
        stream.handler.data_received(data)
        if windows.held + windows.granted > windows.most:
            self._evict()
        # The handler may have reset the stream: then there is no body stream any more.
        if not missing and self._body_has_fin and self._body_stream is not None:
            stream.receive_fin()

    def _evict(self) -> None:
        """Reset the streams that hold most, until the session holds clearly less than it may."""
        holders = [stream for stream in (*self.streams.values(), *self.windows.ended_unread) if stream.unread]
        holders.sort(key=attrgetter("unread"))
        while holders and self.windows.excess > 0:
            holders.pop().evict()

    # Round trips

    def round_trip_ended(self, seconds: float) -> None:
        """Answer `ConnectionHandler.round_trip_wanted`: the ping has come back after so many seconds."""
        self.windows.round_trip_ended(seconds)

    # For the streams

    def resize_window(self, stream: YamuxStream) -> int:
        """Return by how much the window of *stream* changes, now that half of it has been used up again."""
        return self.windows.resize(stream, self._handler.current_time()) if self.windows.can_grow else 0

    def measure_round_trip(self) -> None:
        """Have one measured, if it is of interest and none is under way."""
        windows = self.windows
        if windows.can_grow and not windows.is_round_trip_under_way:
            windows.is_round_trip_under_way = True
            self._handler.round_trip_wanted()

    def forget(self, stream: YamuxStream) -> None:
        """Take an ended stream out of all tables."""
        self.streams.pop(stream.id, None)
        if self.on_stream_over is not None:
            self.on_stream_over()
        self.windows.release(stream)
        self.patience.forget(stream)
        if stream.is_local and not stream.is_acknowledged:
            # The peer may never answer now, but holds the slot until our RST is out: a SYN would overtake it.
            self._reset_unanswered.append(stream)
        if not stream.owed_flags:
            self.output.forget_update(stream)
        if self._body_stream is stream:
            self._body_stream = None
