"""When the control stream must have something said on it.  All times are seconds on one clock, which the caller reads.

A deadline has passed when the clock reaches it, as in Trio: `scope.deadline = silence_deadline(trio.current_time())`.
"""

from typing import Final

HEARTBEAT_INTERVAL: Final = 30.0
"""Seconds between a client's heartbeats: shorter than the minute after which many NATs and proxies forget an idle
connection."""

SILENCE_LIMIT: Final = 90.0
"""Seconds without a message after which the other end is taken for dead: three intervals, so that one lost on a bad
link, or a laptop's short sleep, does not cost the tunnel."""

REGISTRATION_LIMIT: Final = 10.0
"""Seconds that a new connection has until its `Register` is there whole.  Generous for a slow mobile link, and short
enough that strangers who connect and say nothing do not pile up."""


def silence_deadline(last_received: float, *, limit: float = SILENCE_LIMIT) -> float:
    """Return when to give up on the peer, its last message, of any kind, having come in at *last_received*."""
    return last_received + limit


def registration_deadline(connected: float, *, limit: float = REGISTRATION_LIMIT) -> float:
    """Return when to give up on a connection accepted at *connected*; bytes short of a whole message do not help."""
    return connected + limit
