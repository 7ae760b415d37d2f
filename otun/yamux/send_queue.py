"""What a connection has to send: in which order it leaves, whose turn it is, and how much may wait.

Three kinds of output have places of their own.  Pings and GoAways of a broken connection overtake everything.  What is
owed to the peer (a window update, with the SYN or ACK that rides on it) is one slot for each stream, and pongs and
refusals are few: a peer that does not read cannot make them grow.  Data, and the FIN or RST behind it, is a queue.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .frames import ACK, DATA, HEADER_SIZE, PING, RST, WINDOW_UPDATE, encode_header
from .limits import SessionLimits

if TYPE_CHECKING:
    from .stream import YamuxStream

SHARED_FRAME_SIZE: Final = 64 * 1024
"""The largest body of a data frame while other streams wait: what one turn in the round is worth."""

SOLE_FRAME_SIZE: Final = 256 * 1024
"""The largest body while no other stream waits.  64 KiB alone cost a fifth of the bulk throughput."""

SPARSE_FRAME_SIZE: Final = 4 * 1024
"""The largest body of a frame whose stream is not taken for a sender of bulk."""

TAKE_SIZE: Final = 256 * 1024
"""Queued bytes that leave at once.  More would be out of reach for pings, and count as room that is not there."""


class SendQueue:
    """The output of one connection.  *output_ready* is called when there is some and was none."""

    def __init__(self, output_ready: Callable[[], None], limits: SessionLimits) -> None:
        self.queued_bytes: int = 0
        self._leaving_bytes = 0  # Were taken last, and have left when somebody takes more.
        self._limits = limits
        self._output_ready = output_ready
        self._is_announced = False
        self._urgent: list[bytes] = []
        self._pongs: deque[int] = deque()
        self._updates: dict[YamuxStream, None] = {}
        self._refusals: list[int] = []
        self._queue: list[bytes | memoryview] = []
        self._queued_ends = 0
        # The round: who waits for room, who has been told that there is some and has not come yet, who came last.
        self._waiting: deque[YamuxStream] = deque()
        self._waiting_sparse: deque[YamuxStream] = deque()  # Those whose last frame was small.
        self._was_sparse = False
        self._invited: set[YamuxStream] = set()
        self._last_sender: YamuxStream | None = None
        self._is_refilling = False

    # What is to leave

    def send_data(self, header: bytes, body: bytes | memoryview, size: int) -> None:
        """Queue a data frame."""
        queue = self._queue
        queue.append(header)
        queue.append(body)
        self.queued_bytes += size + HEADER_SIZE
        if not self._is_announced:
            self._announce()

    def send_last(self, header: bytes) -> None:
        """Queue a FIN, an RST or a GoAway, behind the data."""
        self._queue.append(header)
        self.queued_bytes += HEADER_SIZE
        self._queued_ends += 1
        self._announce()

    def send_urgent(self, header: bytes) -> None:
        """Let a frame overtake everything."""
        self._urgent.append(header)
        self._announce()

    def send_pong(self, value: int) -> None:
        """Answer a ping, unless too many answers wait already."""
        if len(self._pongs) < self._limits.max_pongs:
            self._pongs.append(value)
            self._announce()

    def refuse(self, stream_id: int) -> None:
        """Answer the opening of a stream that does not exist here with RST.  See `limit_passed`."""
        self._refusals.append(stream_id)
        self._announce()

    def owe_update(self, stream: "YamuxStream") -> None:
        """Remember that *stream* has a window update to send."""
        self._updates[stream] = None
        self._announce()

    def forget_update(self, stream: "YamuxStream") -> None:
        """Nobody waits for *stream*'s window update any more."""
        self._updates.pop(stream, None)

    @property
    def limit_passed(self) -> str:
        """Say which limit does not allow the peer to cause any more answers, by opening streams; "" if none."""
        if len(self._refusals) >= self._limits.max_refusals:
            return "max_refusals"
        return "max_ends" if self._queued_ends >= self._limits.max_ends else ""

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            self._output_ready()

    def take(self) -> list[bytes | memoryview]:
        """Return what must leave now, in that order, and forget it.  What was taken before has left.

        That is everything, but of the queue only some `TAKE_SIZE` bytes: what is not empty may be followed by more.
        """
        output: list[bytes | memoryview] = []
        if self._urgent:
            output.extend(self._urgent)
            self._urgent.clear()
        while self._pongs:
            output.append(encode_header(PING, ACK, 0, self._pongs.popleft()))
        if self._updates:
            output.extend([stream.take_update() for stream in self._updates])
            self._updates.clear()
        if self._refusals:
            output.extend([encode_header(WINDOW_UPDATE, RST, stream_id, 0) for stream_id in self._refusals])
            self._refusals.clear()
        queued, self._leaving_bytes = self.queued_bytes, self.queued_bytes
        if queued > TAKE_SIZE:
            output.extend(self._take_first())
            self._leaving_bytes -= self.queued_bytes
        else:
            if not output:
                output, self._queue = self._queue, output
            elif self._queue:
                output.extend(self._queue)
                self._queue.clear()
            self.queued_bytes = self._queued_ends = 0
        self._is_announced = bool(self._queue)
        return output

    def _take_first(self) -> list[bytes | memoryview]:
        """Cut the first frames off the queue."""
        queue = self._queue
        count = size = 0
        while size < TAKE_SIZE:
            has_body = queue[count][1] == DATA
            size += HEADER_SIZE
            if has_body:
                size += len(queue[count + 1])
            else:
                self._queued_ends -= 1
            count += 1 + has_body
        first = queue[:count]
        del queue[:count]
        self.queued_bytes -= size
        return first

    @property
    def is_empty(self) -> bool:
        """Whether everything has been taken."""
        return not self._queue

    # Whose turn it is

    def frame_size_for(self, stream: "YamuxStream") -> int:
        """Return the largest body that *stream* may queue now; 0 puts it at the end of the round."""
        is_invited = stream in self._invited
        self._invited.discard(stream)
        if self._leaving_bytes + self.queued_bytes < self._limits.send_queue:
            if not self._waiting and not self._waiting_sparse and not self._invited:
                return SOLE_FRAME_SIZE
            if is_invited or stream is not self._last_sender:  # Otherwise it has just had its turn.
                self._last_sender = stream
                return SHARED_FRAME_SIZE
        if not stream.is_waiting_for_room:
            stream.is_waiting_for_room = True
            (self._waiting_sparse if stream.is_sparse else self._waiting).append(stream)
        return 0

    def refill(self) -> None:
        """Invite the streams that wait for room to send one frame each in turn, until the queue is full again.

        Every other turn is for those that send little, as long as there are any: whoever answers in a few bytes does
        not wait until all bulk has had its turn, nor can many of them keep bulk waiting for ever.

        A handler that is a task sends later: until it asks for its allowance, or leaves the round, room is kept for its
        frame.
        """
        invited = self._invited
        self._is_refilling = True
        try:
            # What leaves may grow meanwhile: a handler's frame can make the transport take everything at once.
            while self._leaving_bytes + self.queued_bytes + len(invited) * SHARED_FRAME_SIZE < self._limits.send_queue:
                self._was_sparse = bool(self._waiting_sparse) and not (self._was_sparse and self._waiting)
                waiting = self._waiting_sparse if self._was_sparse else self._waiting
                if not waiting:
                    break
                stream = waiting.popleft()
                stream.is_waiting_for_room = False
                if stream.can_send:
                    invited.add(stream)
                    stream.handler.window_opened()
        finally:
            self._is_refilling = False

    def leave_round(self, stream: "YamuxStream") -> None:
        """*stream* does not want the turn to which it was invited: the next one may have it."""
        if stream in self._invited:
            self._invited.discard(stream)
            if not self._is_refilling:
                self.refill()

    def end_round(self) -> None:
        """Nobody gets a turn any more."""
        self._waiting.clear()
        self._waiting_sparse.clear()
        self._invited.clear()
