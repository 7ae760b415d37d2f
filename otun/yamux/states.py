"""The life of a stream as one table.

Whether a stream has been acknowledged is a separate matter (`YamuxStream.is_acknowledged`): both ends may send, and
even finish, before the ACK.
"""

from enum import Enum, auto
from typing import Final


class StreamState(Enum):
    """Which directions of a stream are still open."""

    OPEN = auto()
    LOCAL_CLOSED = auto()
    REMOTE_CLOSED = auto()
    CLOSED = auto()
    RESET = auto()


class StreamInput(Enum):
    """What can happen to a stream's directions."""

    SEND_FIN = auto()
    RECEIVE_FIN = auto()
    SEND_RST = auto()
    RECEIVE_RST = auto()


TRANSITIONS: Final[dict[tuple[StreamState, StreamInput], StreamState]] = {
    (StreamState.OPEN, StreamInput.SEND_FIN): StreamState.LOCAL_CLOSED,
    (StreamState.OPEN, StreamInput.RECEIVE_FIN): StreamState.REMOTE_CLOSED,
    (StreamState.OPEN, StreamInput.SEND_RST): StreamState.RESET,
    (StreamState.OPEN, StreamInput.RECEIVE_RST): StreamState.RESET,
    (StreamState.LOCAL_CLOSED, StreamInput.RECEIVE_FIN): StreamState.CLOSED,
    (StreamState.LOCAL_CLOSED, StreamInput.SEND_RST): StreamState.RESET,
    (StreamState.LOCAL_CLOSED, StreamInput.RECEIVE_RST): StreamState.RESET,
    (StreamState.REMOTE_CLOSED, StreamInput.SEND_FIN): StreamState.CLOSED,
    # Some peers send FIN twice, and a second one changes nothing.
    (StreamState.REMOTE_CLOSED, StreamInput.RECEIVE_FIN): StreamState.REMOTE_CLOSED,
    (StreamState.REMOTE_CLOSED, StreamInput.SEND_RST): StreamState.RESET,
    (StreamState.REMOTE_CLOSED, StreamInput.RECEIVE_RST): StreamState.RESET,
}
"""(state, input) -> state.  A missing row cannot happen: in CLOSED and RESET a stream is no longer in the table."""
