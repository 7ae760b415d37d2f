"""Two connections joined by two queues of bytes, with writers and readers on their streams."""

from typing import Final

from otun.yamux import Role, SessionLimits, YamuxConnection, YamuxStream

from .wire import WINDOW, fixed_window

PATTERN: Final = memoryview(bytes(range(251)) * 1300)
"""What all streams send, each from a place of its own: 251 is no size that anything else has."""


class Party:
    """One end of a stream.  It checks that it receives exactly what the other one sent."""

    def __init__(self, end: "End") -> None:
        self._end = end
        self.stream: YamuxStream
        self.unsent = 0
        self.sent = 0
        self.received = 0
        self.unread = 0
        self.is_finishing = False
        self.has_ended = False
        self.is_reset = False
        self.is_evicted = False

    def write(self, size: int) -> None:
        self.unsent += size
        self._pump()

    def finish(self) -> None:
        """Send FIN when everything has been sent."""
        self.is_finishing = True
        self._pump()

    def read(self, size: int) -> None:
        size = min(size, self.unread)
        self.unread -= size
        self.stream.consume(size)

    def leave(self) -> None:
        """Close the stream, whatever is unread or unsent."""
        self.unread = 0
        self.stream.close(self._end.now)

    def reset(self) -> None:
        self.unread = 0
        self.stream.reset()

    def _pump(self) -> None:
        if not self.stream.can_send:
            return
        while self.unsent and (allowance := self.stream.send_allowance()):
            size = min(self.unsent, allowance)
            place = (self.stream.id + self._end.role.value + self.sent) % 251
            self.stream.send_data(PATTERN[place : place + size])
            self.sent += size
            self.unsent -= size
        if self.is_finishing and not self.unsent:
            self.stream.send_eof()

    def data_received(self, data: memoryview) -> None:
        assert not self.has_ended, "data behind the end"
        assert not self.is_reset, "data behind a reset"
        assert not self.is_evicted, "data behind a reset of ours"
        place = (self.stream.id + self._end.other.role.value + self.received) % 251
        assert data == PATTERN[place : place + len(data)], "bytes that nobody sent"
        self.received += len(data)
        self.unread += len(data)

    def stream_ended(self) -> None:
        assert not self.has_ended, "a second end"
        self.has_ended = True

    def stream_reset(self, code: int) -> None:
        self.is_reset = True
        if not self.has_ended:
            self.unread = 0

    def evicted(self) -> None:
        windows, limits = self._end.connection.windows, self._end.connection.limits
        unread = [party.unread for party in self._end.parties.values()]
        assert self.unread == max(unread), "another stream holds more"
        assert sum(unread) + windows.granted + self.stream.window - WINDOW > limits.max_held * 7 // 8, "for nothing"
        self.is_evicted = True
        self.unread = 0

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None:
        self._pump()


class End:
    """One connection with its streams' parties, and the bytes on their way to the other."""

    other: "End"

    def __init__(self, role: Role, limits: SessionLimits) -> None:
        self.role = role
        self.connection = YamuxConnection(role, self, limits=limits)
        self.parties: dict[int, Party] = {}
        self.pongs: list[int] = []
        self.now = 0.0
        self.is_round_trip_wanted = False
        self.under_way = bytearray()
        self._has_output = False

    def open(self) -> Party:
        party = Party(self)
        party.stream = self.connection.open_stream(party)
        self.parties[party.stream.id] = party
        return party

    def flush(self) -> None:
        """Let the transport take the output."""
        while output := self._take():
            self.under_way += output

    def _take(self) -> bytes:
        output = b"".join(self.connection.data_to_send())
        assert self._has_output or not output, "output that was not announced"
        self._has_output = not self.connection.output.is_empty
        self.connection.refill()
        return output

    def deliver(self, size: int) -> None:
        """Bring at most *size* bytes to the other end."""
        arrived = bytes(self.under_way[:size])
        del self.under_way[:size]
        self.other.connection.receive_data(arrived, self.other.now)

    def stream_opened(self, stream: YamuxStream) -> None:
        party = Party(self)
        party.stream = stream
        stream.handler = party
        self.parties[stream.id] = party

    def slot_freed(self) -> None: ...

    def deadline_set(self) -> None: ...

    def current_time(self) -> float:
        return self.now

    def round_trip_wanted(self) -> None:
        assert not self.is_round_trip_wanted, "wanted twice"
        self.is_round_trip_wanted = True

    def pong_received(self, value: int) -> None:
        self.pongs.append(value)

    def went_away(self, code: int) -> None: ...

    def output_ready(self) -> None:
        assert not self._has_output, "output announced twice"
        self._has_output = True

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or under way."""
        return not self._has_output and not self.under_way


def make_pair(client_window: int, server_window: int) -> tuple[End, End]:
    """Return a client's and a server's end."""
    client, server = End(Role.CLIENT, fixed_window(client_window)), End(Role.SERVER, fixed_window(server_window))
    client.other, server.other = server, client
    return client, server


def settle(*ends: End, is_reading: bool = True) -> None:
    """Accept all streams and move bytes until none moves any more; when *is_reading*, read them, too."""
    for _ in range(1000):
        for end in ends:
            for party in end.parties.values():
                party.stream.acknowledge()
                if is_reading:
                    party.read(party.unread)
        if all(end.is_idle for end in ends):
            return
        for end in ends:
            end.flush()
            end.deliver(len(end.under_way))
    raise AssertionError("they do not come to rest")
