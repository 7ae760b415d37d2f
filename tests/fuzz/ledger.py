"""A second opinion on a yamux conversation: what was on the wire, and who may still send how much.

It reads hashicorp's `spec.md` once more and knows nothing of `otun.yamux`; it keeps every byte and is slow.
"""

import struct
from collections import defaultdict, deque
from typing import Final

import attrs

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER: Final = struct.Struct(">BBHII")
INITIAL_WINDOW: Final = 256 * 1024


@attrs.define
class Account:
    """One stream id, in all its lives: what may have been sent, and what was."""

    lives: int = 0
    """Of the peer's streams: counted by whoever accepts them.  Of ours: 1 from SYN on, as ids are not used again."""

    granted_by_us: int = 0
    granted_by_peer: int = 0
    widened_by: int = 0
    """By how much our windows have been larger than the first one, in all its lives."""

    heard: int = 0
    """Bytes announced in the headers of the peer's data, whether there was a stream or not."""

    received: int = 0
    consumed: int = 0
    sent: int = 0
    acks: int = 0
    fins: int = 0
    resets: int = 0
    has_said_syn: bool = False
    is_odd: bool = False
    """The peer has spoken of a stream of ours before it could know of it.  What we say then is for a peer that lies."""


class Ledger:
    """Both directions of one connection.  It asserts what holds at any time."""

    def __init__(self, own_parity: int, *, max_pongs: int) -> None:
        self.accounts: defaultdict[int, Account] = defaultdict(Account)
        self.is_broken = False
        self.pings_heard = 0
        self.opens_heard = 0
        """SYNs, without RST, for ids that are the peer's to use."""
        self.nothings_heard = 0
        """Frames for such ids that say nothing, whatever the state of the stream."""
        self._own_parity = own_parity
        self._max_pongs = max_pongs
        self._rest = b""
        self._body_id = 0
        self._body_missing = 0
        self._bodies: deque[tuple[int, bytes]] = deque()

    # From the peer

    @property
    def is_between_frames(self) -> bool:
        return not self._rest and not self._body_missing

    def hear(self, data: bytes) -> None:
        """Read what the peer is about to say."""
        self._bodies.clear()
        data, self._rest = self._rest + data, b""
        position = 0
        while position < len(data) and not self.is_broken:
            if self._body_missing:
                body = data[position : position + self._body_missing]
                self._body_missing -= len(body)
                self._bodies.append((self._body_id, body))
                position += len(body)
            elif len(data) - position < HEADER.size:
                self._rest = data[position:]
                return
            else:
                self._hear_header(*HEADER.unpack_from(data, position))
                position += HEADER.size

    def _hear_header(self, version: int, kind: int, flags: int, stream_id: int, length: int) -> None:
        self.is_broken = version != 0 or kind > GO_AWAY
        if kind == DATA:
            self._body_id, self._body_missing = stream_id, length
            self.accounts[stream_id].heard += length
        if kind == WINDOW_UPDATE and not flags & RST:
            self.accounts[stream_id].granted_by_peer += length
        if kind in (DATA, WINDOW_UPDATE) and stream_id % 2 == self._own_parity:
            self.accounts[stream_id].is_odd |= not self.accounts[stream_id].has_said_syn
        if kind == PING and flags & SYN:
            self.pings_heard += 1
        if kind in (DATA, WINDOW_UPDATE) and stream_id % 2 != self._own_parity:
            self.opens_heard += bool(flags & SYN and not flags & RST)
            self.nothings_heard += not length and not flags & (SYN | ACK | FIN | RST)

    def delivered(self, stream_id: int, data: memoryview) -> None:
        """The stream's handler was given *data*: it must be what comes next for it, and within its window."""
        assert len(data), "an empty piece"
        while self._bodies:
            if self._bodies.popleft() == (stream_id, data):
                break
        else:
            raise AssertionError(f"stream {stream_id} was given bytes that were not sent on it")
        account = self.accounts[stream_id]
        account.received += len(data)
        # A stream of ours whose SYN has not left yet is promised nothing, but may be spoken to.
        overrun = account.received - max(account.lives, 1) * INITIAL_WINDOW - account.granted_by_us
        assert overrun <= 0, f"stream {stream_id} was given {overrun} bytes beyond its window"

    def check_overrun(self, stream_id: int) -> None:
        """The peer is said to have overrun a window: it must have."""
        account = self.accounts[stream_id]
        allowed = INITIAL_WINDOW + account.granted_by_us
        assert account.lives > 1 or account.heard > allowed, f"the window of stream {stream_id} was not overrun"

    # To the peer

    def speak(self, output: bytes) -> list[tuple[int, int, int, int]]:
        """Check what leaves in one go, and return its headers."""
        headers = []
        position = 0
        while position < len(output):
            version, kind, flags, stream_id, length = HEADER.unpack_from(output, position)
            assert version == 0
            position += HEADER.size + (length if kind == DATA else 0)
            headers.append((kind, flags, stream_id, length))
            if kind in (DATA, WINDOW_UPDATE):
                self._speak_header(kind, flags, stream_id, length)
            else:
                assert stream_id == 0
        assert position == len(output), "a torn frame"
        pongs = sum(header[:2] == (PING, ACK) for header in headers)
        assert pongs <= self._max_pongs
        self.pings_heard -= pongs
        assert self.pings_heard >= 0, "a pong for no ping"
        return headers

    def _speak_header(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        account = self.accounts[stream_id]
        is_own = stream_id % 2 == self._own_parity
        if is_own:
            is_first = not account.has_said_syn
            assert bool(flags & SYN) is is_first or account.is_odd, "SYN must come first, and once"
            account.has_said_syn = True
            account.lives = 1
            assert not account.resets, "nothing may stand behind RST"
            assert not (account.fins and kind == DATA), "no data may stand behind FIN"
        assert not flags & SYN or is_own
        assert flags & RST or account.lives, "a frame for a stream that never was"
        account.resets += bool(flags & RST)
        account.fins += bool(flags & FIN)
        account.acks += bool(flags & ACK)
        assert account.fins <= account.lives, "a second FIN"
        assert account.acks <= (0 if is_own else account.lives), "a second ACK"
        if kind == DATA:
            account.sent += length
            overrun = account.sent - account.lives * INITIAL_WINDOW - account.granted_by_peer
            assert overrun <= 0, f"we sent {overrun} bytes beyond the window of stream {stream_id}"
        elif not flags & RST:
            account.granted_by_us += length
            # To a peer whose window is empty, a closed stream grants one byte more.
            allowed = account.consumed + account.widened_by + account.lives
            assert account.granted_by_us <= allowed, f"the window of stream {stream_id} grew without any reason"
