"""One conversation for `fuzz_connection.py`: a connection, its peer and the owner of its streams, as a script says."""

import math
import re
from typing import Final
from zlib import crc32

from invariants import check_budgets, check_lost, check_memory, check_output, check_tables
from ledger import DATA, GO_AWAY, HEADER, PING, SYN, Ledger
from listener import Listener
from pieces import cut
from profiles import KIB, PROFILES
from script import ACTIONS, CALLS, DELAYS, LIMITS, PIECES, ROUND_TRIPS, Script, Step

from otun.errors import RemoteProtocolError
from otun.yamux import Role, StreamState, YamuxConnection, YamuxStream

PATTERN: Final = memoryview(bytes(range(251)) * 1500)

LARGEST_BODY: Final = 368_640
"""Bytes: a little more than the large window.  Of a longer body only the beginning comes."""

MAX_FRAMES: Final = 1600
"""Frames from the peer in one input: more than any backlog."""

MAX_BYTES: Final = 1024 * KIB
"""Bytes of frames from the peer in one input …"""

MAX_SENT: Final = 4 * 1024 * KIB
"""… and of data from us: more than any queue."""

MAX_DEPTH: Final = 4
"""Calls back within calls back.  An owner that never stops would be no fault of the connection's."""

VIOLATION: Final = GO_AWAY, 0, 0, 1
"""What is said when the peer broke the rules, and never else."""

MODEST: Final = {"nothing", "acknowledge", "send_eof", "answer", "fill", "decline", "open", "ping", "go_away"}
"""What changes nothing about how much any stream holds."""


class Owner:
    """The connection's handler, the owner of all its streams, and the peer: all that is not the connection."""

    def __init__(self, script: Script, piece_size: int | None = None) -> None:
        choices = script.number()
        self.role = Role.SERVER if choices & 1 else Role.CLIENT
        self.is_cut_twice = bool(choices & 2)
        limits = PROFILES[LIMITS[script.number() % len(LIMITS)]]
        halves = [half for byte in script.take(5) for half in (byte >> 4, byte & 15)]
        self.reactions = dict(zip(CALLS, [ACTIONS[half] for half in halves], strict=False))
        if self.is_cut_twice:
            # They would be done once for each piece, or after each.
            self.reactions["data"] = self.reactions["window_opened"] = "nothing"
        self.listeners: list[Listener] = []
        self.ledger = Ledger(self.role.value % 2, max_pongs=limits.max_pongs)
        self.events: list[tuple[str | int, ...]] = []
        self.wire = 0
        """A checksum of all that has left."""
        self.now = 0.0
        self.is_over = False
        self.has_evicted = False
        self.peers_opens = 0
        self.resets_with_code = 0
        self._script = script
        self._is_eager = bool(choices & 4)
        self._piece_size = piece_size or PIECES[choices >> 3 & 7]
        self._is_round_trip_wanted = False
        self._deadline = math.inf
        self._has_output = False
        self._is_taking = False
        self._depth = 0
        self._frames_left = MAX_FRAMES
        self._bytes_left = MAX_BYTES
        self._sendable = MAX_SENT
        self._last_words: list[tuple[int, int, int, int]] | None = None
        self.connection = YamuxConnection(self.role, self, limits=limits)

    # The peer

    def run(self) -> None:
        while not (self._script.is_done or self.is_over):
            self._do(*self._script.step())
            if not self.is_over:
                check_memory(self.connection)
                check_output(self)
                check_budgets(self)
                assert self.connection.next_deadline >= self._deadline, "a deadline that nobody was told of"
        check_tables(self.connection, self.listeners)

    def _do(self, step: Step, argument: int) -> None:
        match step:
            case Step.RAW:
                self._hear(self._script.take(self._script.number()))
            case Step.FRAME:
                self._hear_frames(argument & 3, count=1)
            case Step.FLOOD:
                self._hear_frames(argument & 3, id_step=2 if argument & 4 else 0)
            case Step.SPEAK:
                self._speak()
            case Step.ACT:
                self._act_on_one(ACTIONS[argument], self._script.number())
            case Step.PASS_TIME:
                self._pass_time(DELAYS[argument % len(DELAYS)])
            case Step.END:
                self._end(is_broken=bool(argument & 1))
            case Step.ROUND_TRIP:
                self._end_round_trip(ROUND_TRIPS[argument % len(ROUND_TRIPS)])

    def _hear_frames(self, kind: int, *, count: int | None = None, id_step: int = 0) -> None:
        flags, stream_id, length = self._script.number(), self._script.stream_id(), self._script.length()
        flags = flags & 15 | (flags >> 4) * 0x1110  # Unknown flags mean nothing.
        if count is None:
            count = self._script.count()
        size = length if kind == DATA else 0
        body = PATTERN[stream_id % 251 :][: size if size <= LARGEST_BODY else 100]
        count = min(count, self._frames_left, self._bytes_left // (HEADER.size + len(body)))
        self._frames_left -= count
        self._bytes_left -= count * (HEADER.size + len(body))
        ids = [stream_id + number * id_step & 0xFFFFFFFF for number in range(count)]
        self._hear(b"".join(HEADER.pack(0, kind, flags, number, length) + body for number in ids))

    def _hear(self, data: bytes) -> None:
        for piece in cut(data, self._piece_size):
            self.ledger.hear(piece)
            try:
                self.connection.receive_data(piece, self.now)
            except RemoteProtocolError as error:
                self.note(str(error))
                if overrun := re.match(r"stream (\d+) overran its window", str(error)):
                    self.ledger.check_overrun(int(overrun[1]))
                self._say_last_words()
                return
            assert not self.ledger.is_broken, "a frame of an unknown version or type was let through"

    def _say_last_words(self) -> None:
        if self._has_output:
            self._speak()
        assert self._last_words is not None, "no GoAway 1"
        assert {header[:2] for header in self._last_words} <= {(PING, SYN)}, "it is not ahead of all else"
        self._lose()

    def _end(self, *, is_broken: bool) -> None:
        if not is_broken:
            try:
                self.connection.receive_eof()
            except RemoteProtocolError:
                assert not self.ledger.is_between_frames
            else:
                assert self.ledger.is_between_frames
        self._lose()

    def _lose(self) -> None:
        live = [listener for listener in self.listeners if not (listener.is_over or listener.stream.is_over)]
        self.connection.connection_lost()
        assert all(listener.is_over for listener in live)
        check_lost(self.connection)
        self.is_over = True

    def _pass_time(self, delay: float) -> None:
        self.now += delay
        live = [listener for listener in self.listeners if not listener.stream.is_over]
        self.connection.handle_timeouts(self.now)
        self._deadline = self.connection.next_deadline
        assert self._deadline > self.now
        for listener in live:
            if listener.stream.state is StreamState.RESET:
                listener.unread = 0  # We had finished with it, and the handler is not told.

    def _end_round_trip(self, seconds: float) -> None:
        if self._is_round_trip_wanted:
            self._is_round_trip_wanted = False
            self.connection.round_trip_ended(seconds)

    def _speak(self) -> None:
        was_announced, self._has_output = self._has_output, False
        self._is_taking = True
        for stream in self.connection.output._updates:
            stream.handler.note_window(stream)
        output = b"".join(self.connection.data_to_send())
        self._is_taking = False
        assert was_announced or not output, "output that was not announced"
        self.wire = crc32(output, self.wire)
        headers = self.ledger.speak(output)
        if VIOLATION in headers:
            self._last_words = headers[: headers.index(VIOLATION)]
        self._has_output |= not self.connection.output.is_empty
        self.connection.refill()
        self._speak_at_once()  # What came up meanwhile.

    def _speak_at_once(self) -> None:
        if self._is_eager and self._has_output and not self._is_taking and self._depth < MAX_DEPTH:
            self._depth += 1
            self._speak()
            self._depth -= 1

    # The connection's handler

    def note(self, name: str, *details: int) -> None:
        """Write down a call that does not depend on how the bytes are cut; and pieces of data as one."""
        last = self.events[-1] if self.events else None
        if name == "data" and last is not None and last[:2] == (name, details[0]):
            self.events[-1] = (name, details[0], int(last[2]) + details[1])
        else:
            self.events.append((name, *details))

    def stream_opened(self, stream: YamuxStream) -> None:
        assert not self.is_over
        limits = self.connection.limits
        assert len(self.connection.streams) <= limits.max_streams, "too many streams"
        assert self.connection.patience.unaccepted_count <= limits.accept_backlog, "too many that nobody takes"
        stream.handler = listener = Listener(self)
        self.peers_opens += 1
        self.ledger.accounts[stream.id].lives += 1
        listener.attach(stream)
        self.note("opened", stream.id)
        self.react("opened", listener)

    def slot_freed(self) -> None:
        self.note("slot_freed")
        self.react("slot_freed")

    def deadline_set(self) -> None:
        self._deadline = self.connection.next_deadline

    def current_time(self) -> float:
        return self.now

    def round_trip_wanted(self) -> None:
        assert not self._is_round_trip_wanted, "a second round trip, while one is under way"
        self._is_round_trip_wanted = True
        self.note("round_trip_wanted")
        self.react("round_trip_wanted")

    def pong_received(self, value: int) -> None:
        self.note("pong", value)
        self.react("pong")

    def went_away(self, code: int) -> None:
        self.note("went_away", code)
        self.react("went_away")

    def output_ready(self) -> None:
        assert not self._has_output, "output announced twice"
        self._has_output = True
        self._speak_at_once()

    def check_eviction(self, listener: Listener) -> None:
        """Assert that it holds most, unless others may just have been made to hold less."""
        if {self.reactions.get(call, "nothing") for call in ("window_opened", "evicted")} <= MODEST:
            windows, streams = self.connection.windows, self.connection.streams.values()
            most = max((stream.unread for stream in (*streams, *windows.ended_unread)), default=0)
            assert listener.unread >= max(most, 1), "a stream was evicted that does not hold most"

    # The streams' owner

    def react(self, call: str, listener: Listener | None = None) -> None:
        if self._depth >= MAX_DEPTH:
            return
        self._depth += 1
        if listener is None and self.listeners:
            listener = self.listeners[-1]
        self._act(self.reactions.get(call, "nothing"), listener)
        self._depth -= 1

    def _act_on_one(self, action: str, pick: int) -> None:
        self._act(action, self.listeners[pick % len(self.listeners)] if self.listeners else None)

    def _act(self, action: str, listener: Listener | None) -> None:
        match action:
            case "open":
                self._open()
            case "ping":
                self.connection.ping()
            case "go_away":
                self.connection.go_away()
            case _ if listener is not None:
                self._use(action, listener)

    def _open(self) -> None:
        if self.connection.can_open and self.connection.may_ever_open:
            listener = Listener(self)
            listener.attach(self.connection.open_stream(listener))

    def _use(self, action: str, listener: Listener) -> None:
        stream = listener.stream
        match action:
            case "acknowledge" | "take":
                listener.is_taken = True
                stream.acknowledge()
                if action == "take":
                    listener.consume(listener.unread)
            case "consume":
                listener.consume(listener.unread)
            case "consume_half":
                listener.consume(listener.unread // 2)
            case "consume_1":
                listener.consume(1)
            case "reset" | "close":
                listener.unread = 0
                stream.reset(7) if action == "reset" else stream.close(self.now)
            case "send_eof":
                stream.send_eof()
            case "finish":
                stream.finish(self.now)
            case "decline":
                stream.decline()
            case "answer":
                self._send(stream, 5)
            case "fill":
                self._send(stream, 1_000_000)

    def _send(self, stream: YamuxStream, most: int) -> None:
        most = min(most, self._sendable)
        while most > 0 and stream.can_send and (allowance := stream.send_allowance()):
            size = min(most, allowance)
            stream.send_data(PATTERN[:size])
            most -= size
            self._sendable -= size
