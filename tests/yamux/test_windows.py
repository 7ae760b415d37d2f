"""Receive windows that grow with their readers, and shrink when they are not used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.yamux import Role, SessionLimits, YamuxStream

from .dialogue import Dialogue
from .wire import FIN, KIB, MIB, WINDOW, Frame, ack, data, data_header, rst, syn, update

ROUND_TRIP = 0.1


def growing(**limits: int) -> Dialogue:
    """Return a dialogue whose round trips take `ROUND_TRIP`, by the ping that has been answered."""
    dialogue = Dialogue(limits=SessionLimits(**limits))
    dialogue.now = 1000.0
    dialogue.connection.round_trip_ended(ROUND_TRIP)
    return dialogue


def use_half(dialogue: Dialogue, stream: YamuxStream, after: float, *, unread: int = 0) -> list[Frame]:
    """Let half of the stream's window arrive and be consumed in *after* seconds; return what is said of it."""
    half = -(-stream.window // 2)
    dialogue.hear(data(stream.id, bytes(half + unread - stream.unread)))
    dialogue.now += after
    stream.consume(half)
    return [frame for frame in dialogue.say() if frame.id == stream.id]


def check_credit(dialogue: Dialogue, stream: YamuxStream) -> None:
    """Show that the peer may send exactly what is left of the stream's window."""
    assert stream.receive_credit + stream.unread + stream.ungranted == stream.window
    dialogue.hear(data(stream.id, bytes(stream.receive_credit)))
    assert dialogue.is_violated_by(data_header(stream.id, 1))


@pytest.mark.conformance(52)
@pytest.mark.parametrize("opener", ["peer", "we"])
def test_a_window_half_of_which_is_used_up_within_a_round_trip_is_doubled_and_the_peer_told(opener: str) -> None:
    dialogue = growing()
    stream = dialogue.accepted(1) if opener == "peer" else dialogue.established()
    use_half(dialogue, stream, 1.0)
    assert use_half(dialogue, stream, ROUND_TRIP * 0.9) == [update(stream.id, 128 * KIB + WINDOW)]
    assert stream.window == 2 * WINDOW
    assert use_half(dialogue, stream, ROUND_TRIP * 0.9) == [update(stream.id, WINDOW + 2 * WINDOW)]
    assert stream.window == 4 * WINDOW
    check_credit(dialogue, stream)


@pytest.mark.conformance(52)
def test_a_window_half_of_which_lasts_a_round_trip_stays() -> None:
    dialogue = growing()
    stream = dialogue.accepted(1)
    for _ in range(10):
        assert use_half(dialogue, stream, ROUND_TRIP * 1.1) == [update(1, 128 * KIB)]
    assert stream.window == WINDOW
    check_credit(dialogue, stream)


@pytest.mark.conformance(52)
def test_what_is_used_up_beyond_half_counts_too() -> None:
    """A whole window at once: it lasts a round trip when two halves would have lasted one half each."""
    dialogue = growing()
    quick, slow = dialogue.accepted(1), dialogue.accepted(3)
    for stream, after in ((quick, ROUND_TRIP * 1.9), (slow, ROUND_TRIP * 2.1)):
        use_half(dialogue, stream, 0.0)
        dialogue.hear(data(stream.id, bytes(WINDOW)))
        dialogue.now += after
        stream.consume(WINDOW)
        dialogue.say()
    assert (quick.window, slow.window) == (2 * WINDOW, WINDOW)


@pytest.mark.conformance(52)
def test_a_window_does_not_grow_while_much_is_unread() -> None:
    """It is not the window that keeps such a stream back."""
    dialogue = growing()
    stream = dialogue.accepted(1)
    use_half(dialogue, stream, 0.01)
    assert use_half(dialogue, stream, 0.01, unread=65 * KIB) == [update(1, 128 * KIB)]
    assert stream.window == WINDOW
    assert use_half(dialogue, stream, 0.01, unread=64 * KIB) == [update(1, 128 * KIB + WINDOW)]


@pytest.mark.conformance(52)
@pytest.mark.parametrize("most", [WINDOW + 1, 3 * WINDOW, 4 * WINDOW])
def test_no_window_grows_beyond_max_receive_window(most: int) -> None:
    dialogue = growing(max_receive_window=most)
    stream = dialogue.accepted(1)
    for _ in range(6):
        use_half(dialogue, stream, 0.01)
        assert stream.window <= most
    assert stream.window == most
    check_credit(dialogue, stream)


@pytest.mark.conformance(52)
@pytest.mark.parametrize("window", [WINDOW, MIB])
def test_windows_that_are_fixed_do_not_grow_and_want_no_round_trip(window: int) -> None:
    dialogue = growing(receive_window=window, max_receive_window=window)
    stream = dialogue.accepted(1)
    for _ in range(5):
        assert use_half(dialogue, stream, 0.01) == [update(1, window // 2)]
    assert stream.window == window
    assert ("round_trip_wanted",) not in dialogue.calls


@pytest.mark.conformance(52)
def test_round_trips_are_wanted_one_at_a_time_and_only_where_windows_are_used() -> None:
    dialogue = Dialogue(limits=SessionLimits())
    streams = [dialogue.accepted(stream_id) for stream_id in (1, 3)]
    for stream in streams:
        dialogue.hear(data(stream.id, bytes(WINDOW // 2 - 1)))
        stream.consume(WINDOW // 2 - 1)
    assert dialogue.calls.count(("round_trip_wanted",)) == 0
    for expected in (1, 2):
        for stream in streams * 3:
            use_half(dialogue, stream, 0.01)
        assert dialogue.calls.count(("round_trip_wanted",)) == expected
        dialogue.connection.round_trip_ended(ROUND_TRIP)


@pytest.mark.conformance(52)
def test_no_window_grows_for_a_peer_that_answers_no_ping() -> None:
    dialogue = Dialogue(limits=SessionLimits())
    stream = dialogue.accepted(1)
    for _ in range(20):
        assert use_half(dialogue, stream, 0.001) == [update(1, 128 * KIB)]
    assert stream.window == WINDOW
    assert dialogue.calls.count(("round_trip_wanted",)) == 1


@pytest.mark.conformance(52)
def test_a_peer_that_falls_silent_about_pings_leaves_the_last_round_trip_in_force() -> None:
    dialogue = growing()
    stream = dialogue.accepted(1)
    use_half(dialogue, stream, 0.01)
    for _ in range(20):
        use_half(dialogue, stream, ROUND_TRIP * 1.1)
    assert stream.window == WINDOW


# Idle windows


def grown(dialogue: Dialogue, times: int = 4) -> YamuxStream:
    stream = dialogue.accepted(1)
    use_half(dialogue, stream, 0.01)
    for _ in range(times):
        use_half(dialogue, stream, 0.01)
    assert stream.window == WINDOW << times
    return stream


@pytest.mark.conformance(52)
@pytest.mark.parametrize("round_trip", [0.01, 0.1, 2.0])
def test_a_window_not_used_for_long_is_halved_by_withholding_updates(round_trip: float) -> None:
    dialogue = growing()
    stream = grown(dialogue)
    dialogue.connection.round_trip_ended(round_trip)
    idle = max(1.0, 10 * round_trip)
    credit = stream.receive_credit
    for times in (3, 2, 1, 0):
        # It has kept its credit, and is given none for what was consumed.
        assert use_half(dialogue, stream, idle * 1.01) == []
        assert stream.window == WINDOW << times
        credit -= stream.window
        assert stream.receive_credit == credit
    assert dialogue.connection.windows.granted == 0
    assert use_half(dialogue, stream, idle * 100) == [update(1, 128 * KIB)]
    assert stream.window == WINDOW
    check_credit(dialogue, stream)


@pytest.mark.conformance(52)
def test_a_pause_between_two_requests_is_no_reason_to_halve_a_window() -> None:
    dialogue = growing()
    stream = grown(dialogue)
    use_half(dialogue, stream, 0.99)
    assert stream.window == 16 * WINDOW


@pytest.mark.conformance(52)
def test_no_window_shrinks_below_the_one_that_streams_begin_with() -> None:
    dialogue = growing(receive_window=3 * WINDOW)
    stream = dialogue.accepted(1)
    use_half(dialogue, stream, 0.01)
    use_half(dialogue, stream, 0.01)
    assert stream.window == 6 * WINDOW
    for _ in range(5):
        use_half(dialogue, stream, 100.0)
        assert stream.window == 3 * WINDOW
    check_credit(dialogue, stream)


# What all windows may come to


@pytest.mark.conformance(53)
def test_what_windows_grow_by_is_bounded_by_max_held_and_leaves_some_for_others() -> None:
    dialogue = growing(max_held=33 * MIB)
    windows = dialogue.connection.windows
    streams = [dialogue.accepted(stream_id) for stream_id in range(1, 201, 2)]  # 25 MiB are promised to them.
    growth = []
    for _ in range(12):
        for stream in streams:
            before = windows.granted
            use_half(dialogue, stream, 0.0)
            growth.append(windows.granted - before)
            assert windows.granted == sum(stream.window - WINDOW for stream in streams) <= 4 * MIB
    assert max(growth) <= 2 * MIB
    assert sum(growth) > 3 * MIB
    assert sum(stream.window > WINDOW for stream in streams) > 5
    # Who grew first has not taken everything: those who came next have grown, too.


@pytest.mark.conformance(53)
def test_when_more_streams_come_grown_windows_shrink_as_they_are_used() -> None:
    dialogue = growing(max_held=8 * MIB)
    windows = dialogue.connection.windows
    stream = grown(dialogue, 3)
    others = [dialogue.accepted(stream_id) for stream_id in range(3, 57, 2)]
    windows_seen = [stream.window]
    for _ in range(4):
        use_half(dialogue, stream, 0.01)
        windows_seen.append(stream.window)
    assert windows_seen == [8 * WINDOW, 4 * WINDOW, 2 * WINDOW, 2 * WINDOW + 128 * KIB, 2 * WINDOW + 192 * KIB]
    for other in others:
        dialogue.hear(data(other.id, bytes(WINDOW)))
    check_credit(dialogue, stream)
    assert windows.held == 28 * WINDOW + windows.granted
    assert not [call for call in dialogue.calls if call[0] == "evicted"]


@pytest.mark.conformance(52, 53)
def test_however_many_streams_are_idle_an_eighth_of_max_held_is_there_to_grow_into() -> None:
    dialogue = growing(max_held=16 * MIB)
    stream = dialogue.accepted(1)
    for stream_id in range(3, 1003, 2):
        dialogue.accepted(stream_id)
    for _ in range(40):
        use_half(dialogue, stream, 0.01)
    assert MIB * 99 // 100 <= dialogue.connection.windows.granted <= MIB  # Each byte counts twice.


@pytest.mark.conformance(53)
def test_a_large_receive_window_is_given_only_while_max_held_allows() -> None:
    dialogue = Dialogue(Role.SERVER, limits=SessionLimits(receive_window=MIB, max_held=4 * MIB))
    for stream_id in range(1, 101, 2):
        dialogue.hear(syn(stream_id))
        dialogue.opened[stream_id].acknowledge()
        dialogue.open()
    deltas = [frame.length for frame in dialogue.say()]
    assert deltas[:2] == [768 * KIB, 512 * KIB]  # The first is not cut, the second is given a quarter of what is free.
    assert sum(deltas) == dialogue.connection.windows.granted <= 2 * MIB
    assert deltas[-1] < KIB


@pytest.mark.conformance(53)
@pytest.mark.parametrize("end", ["reset", "peer resets", "both finish", "evicted"])
def test_the_end_of_a_stream_gives_its_window_back(end: str) -> None:
    dialogue = growing(max_held=32 * MIB)
    stream = grown(dialogue)
    windows = dialogue.connection.windows
    assert windows.granted == 15 * WINDOW
    if end == "reset":
        stream.reset()
    elif end == "peer resets":
        dialogue.hear(update(1, 0, 8))
    elif end == "both finish":
        dialogue.hear(update(1, 0, FIN))
        stream.send_eof()
    else:
        stream.evict()
    assert windows.granted == 0


class Reader:
    """One stream as hypothesis drives it: what it may be sent, what it has not read."""

    def __init__(self, stream: YamuxStream) -> None:
        self.stream = stream

    @property
    def credit(self) -> int:
        """What the peer may send, by the frames that have left."""
        return self.stream.receive_credit - self.stream.owed_window if self.stream.is_expecting_data else 0


OPS = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("send"), st.integers(0, 9), st.integers(1, 100)),
    st.tuples(st.just("send"), st.integers(0, 9), st.integers(1, 100)),
    st.tuples(st.just("send and end"), st.integers(0, 9), st.integers(1, 100)),
    st.tuples(st.just("consume"), st.integers(0, 9), st.integers(1, 100)),
    st.tuples(st.just("consume"), st.integers(0, 9), st.just(100)),
    st.tuples(st.sampled_from(["finish", "reset", "be reset", "close"]), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("round trip"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("wait"), st.integers(0, 20), st.just(0)),
)


class Session:
    """A connection with small limits, and a peer that uses all of its credit that it likes to."""

    def __init__(self, max_held: int) -> None:
        self.max_held = max_held
        limits = SessionLimits(receive_window=WINDOW + 50 * KIB, max_receive_window=2 * MIB, max_held=max_held)
        self.dialogue = Dialogue(limits=limits)
        self.readers: list[Reader] = []
        self._next_id = 1

    def do(self, name: str, pick: int, percent: int) -> None:
        dialogue = self.dialogue
        if name == "open":
            self.readers.append(Reader(dialogue.accepted(self._next_id)))
            self._next_id += 2
        elif name == "round trip":
            dialogue.connection.round_trip_ended(pick / 10)
        elif name == "wait":
            dialogue.now += pick
        elif self.readers:
            self._do_with(self.readers[pick % len(self.readers)], name, percent)
        dialogue.say()
        dialogue.calls.clear()

    def _do_with(self, reader: Reader, name: str, percent: int) -> None:
        stream = reader.stream
        if name.startswith("send"):
            size = reader.credit * percent // 100
            self.dialogue.hear(data(stream.id, bytes(size), FIN if name == "send and end" else 0))
        elif name == "consume":
            stream.consume(stream.unread * percent // 100)
        elif name == "finish":
            stream.send_eof()
        elif name == "reset":
            stream.reset()
        elif name == "close":
            stream.close(0.0)
        else:
            self.dialogue.hear(update(stream.id, 0, 8))

    def check(self) -> None:
        windows, live = self.dialogue.connection.windows, self.dialogue.connection.streams.values()
        assert windows.held + windows.granted <= self.max_held
        assert windows.held == sum(reader.stream.unread for reader in self.readers)
        assert windows.held == sum(stream.unread for stream in (*live, *windows.ended_unread))
        assert windows.granted == sum(stream.window - WINDOW for stream in live)
        assert all(stream.unread and stream.is_over for stream in windows.ended_unread)
        for stream in live:
            if not stream.is_read_closed:
                assert stream.receive_credit + stream.unread + stream.ungranted == stream.window


@pytest.mark.conformance(53)
@settings(max_examples=200, deadline=None)
@given(max_held=st.sampled_from([WINDOW, 500 * KIB, MIB, 5 * MIB]), ops=st.lists(OPS, min_size=20, max_size=60))
def test_whatever_is_granted_consumed_and_ended_the_session_stays_under_max_held(
    max_held: int, ops: list[tuple[str, int, int]]
) -> None:
    session = Session(max_held)
    for _ in range(5):
        session.do("open", 0, 0)
    for op in ops:
        session.do(*op)
        session.check()


def test_the_ack_of_a_stream_that_has_been_read_already_grants_no_more_than_its_window() -> None:
    dialogue = growing(receive_window=MIB)
    dialogue.hear(syn(1), data(1, bytes(WINDOW)))
    stream = dialogue.opened[1]
    stream.consume(WINDOW)
    stream.acknowledge()
    said = dialogue.say()
    assert said in ([ack(1, MIB)], [update(1, WINDOW), ack(1, MIB - WINDOW)])
    assert stream.receive_credit == stream.window == MIB


def test_a_handler_may_use_up_more_or_reset_the_stream_when_a_round_trip_is_wanted() -> None:
    dialogue = Dialogue(limits=SessionLimits())
    stream = dialogue.accepted(1)
    dialogue.hear(data(1, bytes(WINDOW)))
    dialogue.reactions["round_trip_wanted"] = lambda stream: stream.consume(WINDOW // 2)
    stream.consume(WINDOW // 2)
    assert sum(frame.length for frame in dialogue.say()) == WINDOW

    dialogue = Dialogue(limits=SessionLimits())
    stream = dialogue.accepted(1)
    dialogue.hear(data(1, bytes(WINDOW // 2)))
    dialogue.reactions["round_trip_wanted"] = YamuxStream.reset
    stream.consume(WINDOW // 2)
    assert dialogue.say() == [rst(1)]
    assert dialogue.connection.windows.granted == 0
