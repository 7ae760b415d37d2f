"""A yamux session as a Trio program uses it.

A `Session` is passive towards bytes: a driver feeds it what arrived and takes what must leave.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

from ..errors import RemoteProtocolError
from ..yamux import Role, SessionLimits, StreamHandler, YamuxConnection, YamuxStream
from .drivers import Driver
from .errors import SessionClosed
from .pings import Pings, Pulse
from .serving import serve_streams
from .statistics import SessionStatistics, statistics_of
from .stream import Stream

logger: logging.Logger = logging.getLogger(__name__)


class Opener(Protocol):
    """Whoever waits for a stream without being a task."""

    def slot_granted(self, session: "Session") -> None:
        """`Session.open_core` may be called now."""

    def connection_lost(self) -> None:
        """The session ended first."""


class Session(trio.abc.Listener[Stream]):
    """Many streams over one connection.  Made by `open_session`.

    It is a `trio.abc.Listener` of the streams that the peer opens.  When it ends, for whatever reason, all its calls
    and those of its streams raise `SessionClosed`.
    """

    def __init__(self, role: Role, limits: SessionLimits) -> None:
        self.limits: SessionLimits = limits
        self.on_stream: Callable[[YamuxStream], None] | None = None
        self._connection = YamuxConnection(role, self, limits=limits)
        self._pings = Pings(self._connection)
        self._pulse = Pulse(self._connection)
        self._timer = trio.CancelScope()
        self._driver: Driver | None = None
        self._error: SessionClosed | None = None
        self._ended = trio.Event()
        self._peer_left = trio.Event()
        self._stream_ends = trio.lowlevel.ParkingLot()
        self._unaccepted: deque[Stream] = deque()  # Bounded by `SessionLimits.accept_backlog`.
        self._acceptors = trio.lowlevel.ParkingLot()
        self._openers = trio.lowlevel.ParkingLot()
        self._waiting_openers: dict[Opener, None] = {}
        self._is_granting = False

    def __repr__(self) -> str:
        state = "open" if self._error is None else "ended"
        return f"<Session {self._connection.role.name} {state} streams={len(self._connection.streams)}>"

    # Streams

    async def open_stream(self) -> Stream:
        """Open a stream, waiting while 256 opens are without an answer.

        Raises `SessionClosed`, also when the peer takes no new streams any more (GoAway).  Cancelled, nothing is open.
        """
        await trio.lowlevel.checkpoint()
        while True:
            self._check_can_open()
            if self._connection.can_open:
                return Stream.opened_by_us(self, self._connection)
            await self._openers.park()

    def open_core(self, handler: StreamHandler) -> YamuxStream:
        """Open a stream for a handler that is no task.  Raises as `otun.yamux.YamuxConnection.open_stream` does."""
        return self._connection.open_stream(handler)

    def open_soon(self, opener: Opener) -> bool:
        """Grant *opener* a stream: at once, or when an earlier open is answered.

        False when it cannot be: the session has ended, the peer goes away, or too many wait already.
        """
        if self.is_going_away:
            return False
        if self._connection.can_open:
            opener.slot_granted(self)
            return True
        if len(self._waiting_openers) >= self.limits.max_waiting_opens:
            return False
        self._waiting_openers[opener] = None
        return True

    @property
    def is_going_away(self) -> bool:
        """Whether the peer takes no new streams any more, or the session has ended."""
        return self._error is not None or not self._connection.may_ever_open

    @property
    def streams_left(self) -> int:
        """How many streams can be opened at this end before the session has used up its ids, which are 32 bits."""
        return self._connection.streams_left

    @property
    def has_said_goodbye(self) -> bool:
        """Whether the peer has said that it leaves, and not because of an error."""
        is_error = self._error is not None and self._error.code
        return self._connection.has_peer_gone_away and not is_error

    def forget_opener(self, opener: Opener) -> None:
        """*opener* does not want its stream any longer."""
        self._waiting_openers.pop(opener, None)

    def deliver_to(self, on_stream: Callable[[YamuxStream], None]) -> None:
        """Call *on_stream* for each stream that the peer opens, instead of keeping it for `accept`.

        It is called at once for those that nobody has accepted yet, and must set the stream's handler.  Raises
        `trio.BusyResourceError` when somebody else gets the streams already.
        """
        if self.on_stream is not None:
            raise trio.BusyResourceError("the peer's streams are being delivered to somebody else")
        self.on_stream = on_stream
        while self._unaccepted:
            self._unaccepted.popleft().hand_over(on_stream)

    def stop_delivery(self) -> None:
        """Keep the streams that the peer opens for `accept` again."""
        self.on_stream = None

    async def accept(self) -> Stream:
        """Wait for the next stream that the peer opens, and acknowledge it.

        Raises `SessionClosed` when the session has ended, after the streams that had arrived before: they may be whole.
        Cancelled, no stream is lost.
        """
        if self._unaccepted:
            await trio.lowlevel.checkpoint()
        while True:
            if self._unaccepted:
                stream = self._unaccepted.popleft()
                stream.acknowledge()
                return stream
            self._check_open()
            await self._acceptors.park()

    async def serve(self, handler: Callable[[Stream], Awaitable[object]]) -> None:
        """Call *handler* in a task for each stream that the peer opens, until the session ends.

        A stream is closed when its handler returns, and reset when it raises.  Returns when the session has ended in an
        orderly way and all handlers are done; raises `SessionClosed` when it failed.  An exception of a handler ends
        the serving and is raised as it is, except for `StreamReset` and `SessionClosed`, which end that handler only.
        """
        await serve_streams(self, handler)

    # The session

    async def ping(self) -> float:
        """Return the round trip to the peer, in seconds; pings go ahead of data.

        Raises `SessionClosed`.  It waits for as long as the session lives: use `trio.fail_after`.  Cancelled, a late
        answer is ignored.
        """
        self._check_open()
        round_trip = await self._pings.measure()
        if round_trip is None:
            raise self.end_error()
        return round_trip

    def statistics(self) -> SessionStatistics:
        """Take stock of the session: round trip, credit and buffered bytes, in all and for each stream."""
        return statistics_of(self._connection, self._pings.round_trip)

    def go_away(self) -> None:
        """Tell the peer that no new streams are taken: those that exist go on, and we can open others.

        It does not wait.
        """
        self._check_open()
        self._connection.go_away()

    async def drain(self) -> None:
        """Have the peer open no more streams, and wait until all are over but those that were opened here.

        Those that it has opened before it heard of that are taken still.  Returns as well when the session has ended;
        cancelled, the peer goes on keeping to what it was told.
        """
        if self._error is None:
            self._connection.go_away(refuses_streams=False)
        while self._error is None:
            await self._wait_served()
            with suppress(SessionClosed):
                await self.ping()  # What the peer had opened before is here with the answer.
            if not self._has_peers_streams:
                return

    async def _wait_served(self) -> None:
        self._connection.on_stream_over = self._stream_over
        while self._error is None and self._has_peers_streams:
            await self._stream_ends.park()

    def _stream_over(self) -> None:
        self._stream_ends.unpark_all()

    @property
    def _has_peers_streams(self) -> bool:
        return not all(stream.is_local for stream in self._connection.streams.values())

    async def aclose(self) -> None:
        """End the session.  What was sent before is delivered first, for as long as the peer takes it.

        A peer that takes nothing for `CLOSE_TIMEOUT` seconds, or does not close in that time when it has everything,
        is not waited for.  Streams that have not finished are cut short.  Cancelled, the transport is closed at once.
        """
        if self._error is None:
            self._connection.go_away()
            self._unaccepted.clear()
            self._end(SessionClosed("the session was closed on this side", is_clean=True))
        if self._driver is not None:
            await self._driver.aclose()
        else:
            await trio.lowlevel.checkpoint()

    async def wait_closed(self) -> None:
        """Wait until the session has ended, for whatever reason."""
        await self._ended.wait()

    async def wait_peer_left(self) -> None:
        """Wait until the peer has said that it takes no new streams any more (GoAway), or the session has ended."""
        await self._peer_left.wait()

    @property
    def last_heard(self) -> float:
        """When the peer's last bytes came, on Trio's clock; at first, when the session began."""
        return self._pulse.last_heard

    @property
    def is_closed(self) -> bool:
        """Whether the session has ended."""
        return self._error is not None

    def end_error(self) -> SessionClosed:
        """Return why the session ended, as a fresh exception.  It must have ended."""
        error = self._error
        assert error is not None
        again = SessionClosed(str(error), is_clean=error.is_clean, code=error.code)
        again.__cause__ = error.__cause__
        return again

    def _check_open(self) -> None:
        if self._error is not None:
            raise self.end_error()

    def _check_can_open(self) -> None:
        self._check_open()
        if self._connection.has_peer_gone_away:
            raise SessionClosed("the peer takes no new streams: it is going away", is_clean=True, code=0)

    def _end(self, error: SessionClosed) -> None:
        if self._error is not None:
            return
        self._error = error
        self._connection.connection_lost()
        self._refuse_openers()
        self._pings.session_ended()
        self._acceptors.unpark_all()
        self._stream_ends.unpark_all()
        self._peer_left.set()
        self._ended.set()
        self._timer.cancel()
        if self._driver is not None:
            self._driver.session_ended()

    # What drivers call

    def attach(self, driver: Driver) -> None:
        """Let *driver* move the bytes from now on."""
        self._driver = driver

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Apply bytes from the peer.  After the session's end they are ignored."""
        if self._error is not None:
            return
        now = trio.current_time()
        self._pulse.bytes_received(now)
        try:
            self._connection.receive_data(data, now)
        except RemoteProtocolError as error:
            ended = SessionClosed(f"the peer broke the yamux protocol: {error}")
            ended.__cause__ = error
            self._end(ended)

    def feed_eof(self) -> None:
        """Apply the end of the peer's bytes."""
        try:
            self._connection.receive_eof()
        except RemoteProtocolError as error:
            self.fail(str(error))
        else:
            self._end(SessionClosed("the peer closed the connection", is_clean=True))

    def fail(self, reason: str, *, cause: OSError | None = None) -> None:
        """End the session because the transport does not work any more."""
        error = SessionClosed(reason)
        error.__cause__ = cause
        self._end(error)

    def take_output(self) -> list[bytes | memoryview]:
        """Return what must leave now.  Streams that waited for room have sent again when this returns."""
        return self._pulse.take_output()

    async def keep_time(self) -> None:
        """See to everything that is a matter of time, until the session ends."""
        while not self._ended.is_set():
            deadline = min(self._pulse.deadline, self._connection.next_deadline)
            with trio.CancelScope(deadline=deadline) as self._timer:
                await trio.sleep_forever()
            if self._ended.is_set():
                return
            now = trio.current_time()
            self._connection.handle_timeouts(now)
            if self._driver is not None and not self._pulse.check(now, is_backlogged=self._driver.is_backlogged):
                self.fail("the peer has not been heard for too long")
                self._driver.abort()

    # What the connection calls (`otun.yamux.ConnectionHandler`)

    def stream_opened(self, stream: YamuxStream) -> None:
        """Hand the stream to `on_stream`, or keep it for `accept`."""
        if self.on_stream is not None:
            try:
                self.on_stream(stream)
            except Exception:
                logger.exception("stream %d could not be taken", stream.id)
                stream.reset()
            return
        self._unaccepted.append(Stream.opened_by_peer(self, stream))
        self._acceptors.unpark()

    def forget_unaccepted(self, stream: Stream) -> None:
        """The peer reset *stream*; if nobody has accepted it yet, nobody will."""
        if stream in self._unaccepted:
            self._unaccepted.remove(stream)

    def slot_freed(self) -> None:
        """Let the next one open a stream."""
        if not self._waiting_openers:
            self._openers.unpark()
        elif not self._is_granting:  # An opener may end its stream at once, which frees a slot again.
            self._is_granting = True
            try:
                while self._waiting_openers and self._connection.can_open:
                    opener = next(iter(self._waiting_openers))
                    del self._waiting_openers[opener]
                    try:
                        opener.slot_granted(self)
                    except Exception:
                        logger.exception("%r could not use its stream", opener)
            finally:
                self._is_granting = False

    def pong_received(self, value: int) -> None:
        """Wake whoever sent the ping."""
        self._pings.answered(value)

    def deadline_set(self) -> None:
        """Have `keep_time` wake up in time."""
        deadline = self._connection.next_deadline
        if deadline < self._timer.deadline:
            self._timer.deadline = deadline

    def current_time(self) -> float:
        """Return Trio's time."""
        return trio.current_time()

    def round_trip_wanted(self) -> None:
        """Measure one for the windows."""
        self._pings.send(self._round_trip_ended)

    def _round_trip_ended(self, seconds: float | None) -> None:
        if seconds is not None:
            self._connection.round_trip_ended(seconds)

    def went_away(self, code: int) -> None:
        """Open nothing more; end at once unless the peer only drains."""
        if code:
            self._end(SessionClosed(f"the peer ended the session with GoAway code {code}", code=code))
            return
        self._peer_left.set()
        self._refuse_openers()

    def _refuse_openers(self) -> None:
        self._openers.unpark_all()
        openers, self._waiting_openers = self._waiting_openers, {}
        for opener in openers:
            opener.connection_lost()

    def output_ready(self) -> None:
        """Have the driver take the output."""
        if self._driver is not None:
            self._driver.output_ready()
