"""What must hold of a connection in `fuzz_connection.py` between any two calls."""

from typing import TYPE_CHECKING

from ledger import HEADER, INITIAL_WINDOW

from otun.yamux import YamuxConnection

if TYPE_CHECKING:
    from conversation import Owner
    from listener import Listener

LARGEST_FRAME = 256 * 1024 + HEADER.size
"""Bytes of data that may be queued beyond the queue's limit."""


def check_memory(connection: YamuxConnection) -> None:
    """What the session holds is counted to the byte, each stream is within its window, and all of them in the limit."""
    windows, limits = connection.windows, connection.limits
    live, ended = connection.streams.values(), windows.ended_unread
    assert all(stream.is_over and stream.unread for stream in ended), "a stream is kept though nothing is unread"
    assert windows.held == sum(stream.unread for stream in (*live, *ended)), "bytes are held that nobody counts"
    assert windows.granted == sum(stream.window - INITIAL_WINDOW for stream in live), "windows that nobody counts"
    assert windows.held + windows.granted <= limits.max_held, "the session holds too much"
    for stream in live:
        assert not stream.is_over, "the table has a stream that is over"
        assert stream.unread >= 0
        assert stream.unread == stream.handler.unread, "the reader holds something else than is counted"
        assert INITIAL_WINDOW <= stream.window <= limits.max_receive_window, "a window beyond its limits"
        if not stream.is_read_closed:
            # A header takes the credit of its whole body.
            coming = connection._decoder._body_missing if stream is connection._body_stream else 0
            known = stream.receive_credit + coming + stream.unread + stream.ungranted
            assert known == stream.window, "credit was lost or won"


def check_output(owner: "Owner") -> None:
    """What waits to leave is bounded, whatever the peer does and does not read."""
    connection, limits, output = owner.connection, owner.connection.limits, owner.connection.output
    peers = sum(not listener.stream.is_local for listener in owner.listeners)
    own = len(owner.listeners) - peers
    ends = min(2 * peers, limits.max_ends + 2 * limits.max_streams) + 2 * own + 1
    assert 0 <= connection.queued_bytes <= limits.send_queue + LARGEST_FRAME + ends * HEADER.size, "an endless queue"
    assert len(output._pongs) <= limits.max_pongs
    assert len(output._refusals) <= limits.max_refusals
    # Of a stream that is over, only what has its SYN or ACK may stay.
    assert all(stream.owed_flags or not stream.is_over for stream in output._updates), "updates of what is over"


def check_budgets(owner: "Owner") -> None:
    """A peer that was let through has not done too often what it may do only so often."""
    limits = owner.connection.limits
    refused = owner.ledger.opens_heard - owner.peers_opens
    for count, allowance in (
        (refused + owner.resets_with_code, limits.resets),
        (owner.ledger.nothings_heard, limits.empty_frames),
    ):
        assert count <= allowance.at_once + allowance.per_second * owner.now + 1e-6, "a budget has no end"


def check_tables(connection: YamuxConnection, listeners: list["Listener"]) -> None:
    """The connection has the streams that are not over, and the slots and places of those that wait."""
    live = {id(listener.stream) for listener in listeners if not listener.stream.is_over}
    assert {id(stream) for stream in connection.streams.values()} == live, "the table has the wrong streams"
    assert all(listener.unread == listener.stream.unread for listener in listeners)
    nobodys = [one for one in listeners if not (one.stream.is_over or one.stream.is_local or one.is_taken)]
    assert connection.patience.unaccepted_count == len(nobodys) <= connection.limits.accept_backlog, "a place leaked"
    # A stream that was reset before its answer holds its slot until the RST has left.
    waiting = sum(one.stream.is_local and not one.stream.is_acknowledged for one in listeners)
    assert connection._unacknowledged == waiting <= 256, "a slot has leaked"


def check_lost(connection: YamuxConnection) -> None:
    """Nothing is left to wait for."""
    assert not connection.streams
    assert not connection.patience.unaccepted_count
    assert connection.next_deadline == float("inf")
