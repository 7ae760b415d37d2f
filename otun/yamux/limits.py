"""Everything that a session bounds, in one value, and what would happen without the bound."""

from typing import Final

import attrs

INITIAL_WINDOW: Final = 256 * 1024
"""Bytes that either side of a stream may send before any window update (yamux spec, "Window Update")."""

MAX_WINDOW: Final = 0xFFFF_FFFF
"""The largest window that the 32 bits of a window update can express."""


@attrs.frozen
class Allowance:
    """How often something may happen: *at_once*, and then *per_second*."""

    at_once: int
    per_second: float = attrs.field(kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not (self.at_once >= 0 and self.per_second >= 0):
            raise ValueError(f"an allowance cannot be negative: {self}")


@attrs.frozen(kw_only=True)
class SessionLimits:
    """What a peer may make a session keep, do and wait for.  Sizes are bytes, times are seconds.

    The peer of a session is somebody else's program: each limit says what a hostile or broken one could do without it.
    Where passing a limit ends the session, `Session` calls raise `SessionClosed` whose cause is a `LimitExceeded` with
    the limit's name.
    """

    receive_window: int = INITIAL_WINDOW
    """What the peer may send on a new stream before somebody reads; at least 256 KiB, which the specification promises.

    Without a window one stream that nobody reads would take all memory.  More of it in the beginning spares a long link
    a few round trips; but it is given to idle streams, too, as long as `max_held` allows.
    """

    max_receive_window: int = 16 * 1024 * 1024
    """How far the window of a stream grows whose reader empties it within a round trip; `receive_window`: not at all.

    It bounds the share of one stream in `max_held`: 16 MiB are 280 MB/s at a round trip of 60 ms.
    """

    max_held: int = 64 * 1024 * 1024
    """Bytes received and not read yet, on all streams, with what was granted to them beyond 256 KiB each.

    The attack is 10,000 streams with 256 KiB each that a stalled visitor or local service does not read: 2.5 GiB.  When
    the limit is reached, the streams that hold most are reset until an eighth of it is free.

    Windows do not grow into the 256 KiB that each stream is promised, so that up to 7/8 of the limit in streams (224 by
    default) are safe from each other, whoever stalls.  The last eighth is for growth, however many streams are idle.
    """

    max_streams: int = 65_536
    """Live streams beyond which the peer's opens are refused with RST.

    An idle stream costs 400 bytes and a socket behind it; a peer could open two thousand million.
    """

    accept_backlog: int = 256
    """Streams that the peer has opened and nobody has accepted; more are refused with RST.

    256 is what all implementations of yamux allow; a peer that keeps to it is never refused.
    """

    resets: Allowance = Allowance(20_000, per_second=5_000)
    """Streams that the peer opens in vain: those that it resets, and those that are refused.  More end the session.

    Rapid reset (CVE-2023-44487 in HTTP/2): opening and resetting is cheap to send and dear to handle, and passes by the
    other limits.  An honest server passes on what its own visitors do, so that this is more than visitors can cause.
    """

    empty_frames: Allowance = Allowance(10_000, per_second=1_000)
    """Frames that say nothing: no data, no credit, no change of state.  More end the session.

    They cost time, pass by all windows, and count as signs of life (CVE-2019-9518 in HTTP/2).
    """

    send_queue: int = 512 * 1024
    """Bytes queued for the peer from which on the writers of all streams wait.

    For a peer that does not read.  Two of the largest frames, so that the transport never idles.
    """

    max_pongs: int = 32
    """Answers to pings that wait to leave; beyond that pings are ignored.

    For a peer that pings and does not read.  An honest one has one ping under way, or a few.
    """

    max_refusals: int = 1024
    """Refusals of streams that wait to leave; one more ends the session.

    For a peer that opens streams beyond `accept_backlog` and does not read.
    """

    max_ends: int = 48 * 1024
    """FINs and RSTs that wait to leave; more streams opened by the peer then end the session.

    For a peer that opens streams and does not read how they end.
    """

    max_waiting_opens: int = 4096
    """Visitors that wait for a free slot, because 256 opens are without an answer; others are turned away.

    For a peer that answers no opens while visitors keep coming.
    """

    close_timeout: float = 300.0
    """How long a stream closed on this side waits for the peer's FIN before it is reset, as in hashicorp/yamux.

    For a peer that never finishes: its streams would stay in the table.
    """

    stall_timeout: float = 10.0
    """How long the transport may take no bytes at all before the session fails, as in hashicorp/yamux.

    For a peer that does not read: everybody who writes would wait for ever.
    """

    keepalive_interval: float = 30.0
    """How long the peer may be silent before it is pinged, as in hashicorp/yamux."""

    ping_timeout: float = 10.0
    """How long it may be silent after that before the session fails, as in hashicorp/yamux.

    For a peer that has vanished without a word, or withholds the rest of a frame.
    """

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(SessionLimits):
            value = getattr(self, field.name)
            if not (isinstance(value, Allowance) or value >= 0):
                raise ValueError(f"{field.name} must not be {value}")
        if self.send_queue == 0:
            raise ValueError("send_queue must not be 0: nobody could ever send")
        if not INITIAL_WINDOW <= self.receive_window <= self.max_receive_window <= MAX_WINDOW:
            raise ValueError(
                f"a receive window must be between {INITIAL_WINDOW} and {MAX_WINDOW} bytes, and not above its maximum"
            )
        if self.max_held < INITIAL_WINDOW:
            raise ValueError(f"max_held must be at least {INITIAL_WINDOW} bytes: what one stream may send unasked")


DEFAULT_LIMITS: Final = SessionLimits()
