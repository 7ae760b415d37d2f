"""What a peer can cause, as calls.

A handler may call back into the connection and its streams from within any of these calls, except `receive_data`.
"""

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .stream import YamuxStream


class ConnectionHandler(Protocol):
    """Whoever owns a `YamuxConnection`."""

    def stream_opened(self, stream: "YamuxStream") -> None:
        """The peer opened *stream*.

        Its `handler` must be set before this returns, and `YamuxStream.acknowledge` be called when somebody takes it.
        """

    def slot_freed(self) -> None:
        """One of our own opens was answered, so that another one may be made."""

    def deadline_set(self) -> None:
        """`YamuxConnection.next_deadline` may have become earlier."""

    def current_time(self) -> float:
        """Return the time, in seconds, on the clock from which all times come."""

    def round_trip_wanted(self) -> None:
        """Send a ping, and call `YamuxConnection.round_trip_ended` when it is answered.  Or not: no window grows then.

        Called at most once before that call.
        """

    def pong_received(self, value: int) -> None:
        """The peer answered the ping that carried *value* (or invented one: check)."""

    def went_away(self, code: int) -> None:
        """The peer sent GoAway.  0: it takes no new streams.  Anything else: the session is over."""

    def output_ready(self) -> None:
        """`data_to_send` was empty, and is not any longer."""


class StreamHandler(Protocol):
    """Whoever uses a stream."""

    def data_received(self, data: memoryview) -> None:
        """Bytes have arrived.  Copy what is kept; call `YamuxStream.consume` for what has been used up."""

    def stream_ended(self) -> None:
        """The peer sent FIN: no more data will come."""

    def stream_reset(self, code: int) -> None:
        """The peer reset the stream, or broke its rules; some peers give a *code*.  It is out of the table."""

    def evicted(self) -> None:
        """The session holds more than it may, and this stream most: it has been reset.  Drop all that is unread.

        The stream may have been over before, both ways, with only its data left.
        """

    def connection_lost(self) -> None:
        """The connection ended while the stream was in its table."""

    def window_opened(self) -> None:
        """`YamuxStream.send_allowance` returned 0 before: ask again, now or soon, or `YamuxStream.decline`."""


class _Nobody:
    """The handler of a stream before its owner is known."""

    def data_received(self, data: memoryview) -> None:
        raise AssertionError("stream_opened must set a handler")

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def evicted(self) -> None: ...

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...


NOBODY: Final = _Nobody()
