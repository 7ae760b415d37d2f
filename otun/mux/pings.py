"""Round trips: pings that are under way, how long the last one took, and whether the peer is there at all."""

from collections.abc import Callable
from enum import Enum, auto

import trio

from ..yamux import KeepAlive, YamuxConnection
from ..yamux.keepalive import KeepAliveAction

OnAnswer = Callable[[float | None], None]
"""Called with a round trip in seconds, or with None when there will be no answer: the session has ended."""


class Pings:
    """The pings of one session.  `round_trip` is the last one that was measured, in seconds; None before."""

    def __init__(self, connection: YamuxConnection) -> None:
        self.round_trip: float | None = None
        self._connection = connection
        self._under_way: dict[int, tuple[float, OnAnswer]] = {}  # One for the windows, and one for each task that asks.

    def send(self, on_answer: OnAnswer) -> int:
        """Send a ping, and return its value."""
        value = self._connection.ping()
        self._under_way[value] = (trio.current_time(), on_answer)
        return value

    async def measure(self) -> float | None:
        """Send a ping and wait for the answer.  Cancelled, a late one is ignored."""
        answered = trio.Event()
        answer: float | None = None

        def on_answer(seconds: float | None) -> None:
            nonlocal answer
            answer = seconds
            answered.set()

        value = self.send(on_answer)
        try:
            await answered.wait()
        finally:
            self._under_way.pop(value, None)
        return answer

    def answered(self, value: int) -> None:
        """Take a pong.  Those that nobody waits for are ignored."""
        if value in self._under_way:
            sent_at, on_answer = self._under_way.pop(value)
            self.round_trip = trio.current_time() - sent_at
            on_answer(self.round_trip)

    def session_ended(self) -> None:
        """Tell everybody who waits."""
        for _, on_answer in self._under_way.values():
            on_answer(None)


class _KeepAlivePing(Enum):
    """Where the keep-alive's ping is while the peer cannot have it yet."""

    QUEUED = auto()
    TAKEN = auto()  # By the driver, and alone, so that it is known when it has left.


class Pulse:
    """Finds out that a peer is dead, however much is queued for it: the time-out counts from when its ping has left."""

    def __init__(self, connection: YamuxConnection) -> None:
        limits = connection.limits
        self._connection = connection
        self._keepalive = KeepAlive(
            trio.current_time(), interval=limits.keepalive_interval, timeout=limits.ping_timeout
        )
        self._ping: _KeepAlivePing | None = None
        self._behind_ping: list[bytes | memoryview] = []

    @property
    def deadline(self) -> float:
        """When `check` should be called next."""
        return self._keepalive.deadline

    @property
    def last_heard(self) -> float:
        """When the peer has sent something."""
        return self._keepalive.last_heard

    def bytes_received(self, now: float) -> None:
        """The peer is alive."""
        self._keepalive.bytes_received(now)

    def check(self, now: float, *, is_backlogged: bool) -> bool:
        """Ping the peer if that is due.  False: it is dead.  *is_backlogged*: not all output has left."""
        action = self._keepalive.check(now)
        if action is KeepAliveAction.SEND_PING:
            self._ping = _KeepAlivePing.QUEUED
            self._connection.ping()
        elif action is KeepAliveAction.GIVE_UP:
            if self._ping is None or not is_backlogged:
                return False
            self._keepalive.postpone(now)  # Our ping still stands in the queue of a slow link.
        return True

    def take_output(self) -> list[bytes | memoryview]:
        """Return what must leave now; our own ping alone, ahead of the rest."""
        if self._ping is _KeepAlivePing.TAKEN:  # It has left: the transport has had everything before this.
            self._ping = None
            self._keepalive.postpone(trio.current_time())
            if self._behind_ping:
                output, self._behind_ping = self._behind_ping, []
                return output
        output = self._connection.data_to_send()
        self._connection.refill()
        if not output:
            output = self._connection.data_to_send()
        if self._ping is _KeepAlivePing.QUEUED:
            self._ping = _KeepAlivePing.TAKEN
            self._behind_ping = output[1:]
            return output[:1]
        return output
