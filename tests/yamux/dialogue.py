"""A connection under test, all handler calls written down, and a tongue to speak to it in frames."""

from collections.abc import Callable
from typing import TypeAlias

from otun.errors import RemoteProtocolError
from otun.yamux import Role, SessionLimits, YamuxConnection, YamuxStream

from .wire import WINDOW, Frame, fixed_window, parse

Call: TypeAlias = tuple[str | int | bytes, ...]
"""The name of a handler's method, the stream's id if there is one, and what was said."""

Reaction: TypeAlias = Callable[[YamuxStream], object]


class Dialogue:
    """The connection, its `ConnectionHandler`, and what the handlers of all streams have heard.

    `calls` has what one read brings of one body as one piece.  `output_ready` is counted apart from the calls.
    `reactions` maps the name of a call to what the handler does then: with the stream, or for the connection's own
    calls with every stream there is.
    """

    def __init__(
        self, role: Role = Role.SERVER, *, receive_window: int = WINDOW, limits: SessionLimits | None = None
    ) -> None:
        self.connection = YamuxConnection(role, self, limits=limits or fixed_window(receive_window))
        self.calls: list[Call] = []
        self.announcements = 0
        self.now = 0.0
        self.opened: dict[int, YamuxStream] = {}
        self.reactions: dict[str, Reaction] = {}
        self._known = 0

    # Speaking

    def hear(self, *frames: Frame | bytes, now: float = 0.0) -> list[Call]:
        """Feed all *frames* in one read, and return the calls that this causes."""
        self._known = len(self.calls)
        wire = b"".join(frame.encode() if isinstance(frame, Frame) else frame for frame in frames)
        self.connection.receive_data(wire, now)
        return self.calls[self._known :]

    def wire(self) -> bytes:
        """Take all that wants to leave."""
        wire = b""
        while output := self.connection.data_to_send():
            wire += b"".join(output)
        return wire

    def say(self) -> list[Frame]:
        """Take all that wants to leave, as frames."""
        return parse(self.wire())

    def is_violated_by(self, *frames: Frame | bytes) -> bool:
        """Whether the connection dies of *frames*, and says so with GoAway 1 before all else."""
        self.say()
        try:
            self.hear(*frames)
        except RemoteProtocolError:
            assert self.say()[0] == Frame(3, 0, 0, 1), "no GoAway 1"
            return True
        return False

    # Streams

    def open(self) -> YamuxStream:
        """Open a stream of ours."""
        handler = RecordingStreamHandler(self)
        handler.stream = self.connection.open_stream(handler)
        return handler.stream

    def established(self) -> YamuxStream:
        """Open a stream of ours, which the peer acknowledges; nothing is left to say."""
        stream = self.open()
        self.hear(Frame(1, 2, stream.id, 0))
        self.say()
        self.calls.clear()
        return stream

    def accepted(self, stream_id: int) -> YamuxStream:
        """Let the peer open a stream, and acknowledge it; nothing is left to say."""
        self.hear(Frame(1, 1, stream_id, 0))
        self.opened[stream_id].acknowledge()
        self.say()
        self.calls.clear()
        return self.opened[stream_id]

    # Hearing (`otun.yamux.ConnectionHandler`)

    def stream_opened(self, stream: YamuxStream) -> None:
        stream.handler = RecordingStreamHandler(self, stream)
        self.opened[stream.id] = stream
        self.note(stream, "opened")

    def slot_freed(self) -> None:
        self.note(None, "slot_freed")

    def deadline_set(self) -> None: ...

    def current_time(self) -> float:
        return self.now

    def round_trip_wanted(self) -> None:
        self.note(None, "round_trip_wanted")

    def pong_received(self, value: int) -> None:
        self.note(None, "pong", value)

    def went_away(self, code: int) -> None:
        self.note(None, "went_away", code)

    def output_ready(self) -> None:
        self.announcements += 1

    def note(self, stream: YamuxStream | None, name: str, *details: int | bytes) -> None:
        last = self.calls[-1] if len(self.calls) > self._known else None
        if stream is None:
            self.calls.append((name, *details))
        elif name == "data" and last is not None and last[:2] == (name, stream.id):
            self.calls[-1] = (name, stream.id, bytes(last[2]) + bytes(details[0]))
        else:
            self.calls.append((name, stream.id, *details))
        if name in self.reactions:
            for one in [*self.connection.streams.values()] if stream is None else [stream]:
                self.reactions[name](one)


class RecordingStreamHandler:
    """Writes down what the handler of a stream is told (`otun.yamux.StreamHandler`)."""

    def __init__(self, dialogue: Dialogue, stream: YamuxStream | None = None) -> None:
        self.stream = stream
        self._dialogue = dialogue

    def data_received(self, data: memoryview) -> None:
        assert len(data)
        self._dialogue.note(self.stream, "data", bytes(data))

    def stream_ended(self) -> None:
        self._dialogue.note(self.stream, "ended")

    def stream_reset(self, code: int) -> None:
        self._dialogue.note(self.stream, "reset", code)

    def evicted(self) -> None:
        self._dialogue.note(self.stream, "evicted")

    def connection_lost(self) -> None:
        self._dialogue.note(self.stream, "lost")

    def window_opened(self) -> None:
        self._dialogue.note(self.stream, "window_opened")
