"""What a session and its streams hold at one moment."""

import attrs

from ..yamux import StreamState, YamuxConnection


@attrs.frozen
class StreamStatistics:
    """One stream: *send_credit* and *receive_credit* are bytes that may still be sent and received.

    *buffered* are bytes that were received and not read.  *receive_window* is what *receive_credit* may come to: it
    grows with a reader that keeps up, see `SessionLimits.max_receive_window`.
    """

    id: int
    state: StreamState
    send_credit: int
    receive_credit: int
    receive_window: int
    buffered: int


@attrs.frozen
class SessionStatistics:
    """A session: *round_trip* is the last one measured, in seconds; None when none has been.

    *buffered* are the bytes received and not read on all streams, those that have ended included; *queued* are the
    bytes that wait to leave.  The credits and *receive_window* are the sums over *streams*, which has the live ones.
    """

    round_trip: float | None
    send_credit: int
    receive_credit: int
    receive_window: int
    buffered: int
    queued: int
    streams: tuple[StreamStatistics, ...]


def statistics_of(connection: YamuxConnection, round_trip: float | None) -> SessionStatistics:
    """Take stock of a connection."""
    streams = tuple(
        StreamStatistics(
            id=stream.id,
            state=stream.state,
            send_credit=stream.send_credit,
            receive_credit=stream.receive_credit,
            receive_window=stream.window,
            buffered=stream.unread,
        )
        for stream in connection.streams.values()
    )
    return SessionStatistics(
        round_trip=round_trip,
        send_credit=sum(stream.send_credit for stream in streams),
        receive_credit=sum(stream.receive_credit for stream in streams),
        receive_window=sum(stream.receive_window for stream in streams),
        buffered=connection.windows.held,
        queued=connection.queued_bytes,
        streams=streams,
    )
