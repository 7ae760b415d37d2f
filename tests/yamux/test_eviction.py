"""What a session holds in all: at the cap, the streams that hold most are reset."""

import gc
import tracemalloc

import pytest

from otun.yamux import Role, SessionLimits, YamuxStream

from .dialogue import Dialogue
from .wire import FIN, KIB, MIB, WINDOW, ack, data, data_header, fin, ping, pong, rst, syn


def holding(dialogue: Dialogue, sizes: list[int]) -> list[YamuxStream]:
    """Accept streams 1, 3, … on which so many bytes are unread."""
    streams = []
    for number, size in enumerate(sizes):
        stream = dialogue.accepted(2 * number + 1)
        if size:
            dialogue.hear(data(stream.id, bytes(size)))
        streams.append(stream)
    dialogue.say()
    dialogue.calls.clear()
    return streams


@pytest.mark.conformance(53)
def test_at_the_cap_the_stream_that_holds_most_is_reset_and_the_others_go_on() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=512 * KIB))
    small, largest, large, late = holding(dialogue, [1, 200 * KIB, 190 * KIB, 100 * KIB])
    used = 490 * KIB + 1
    assert dialogue.connection.windows.held == used
    assert dialogue.hear(data(late.id, bytes(512 * KIB - used))) == [("data", late.id, bytes(512 * KIB - used))]
    assert dialogue.hear(data(small.id, b"!")) == [("data", small.id, b"!"), ("evicted", largest.id)]
    assert dialogue.say() == [rst(largest.id)]
    assert largest.is_over
    assert [*dialogue.connection.streams.values()] == [small, large, late]
    assert dialogue.connection.windows.held == 312 * KIB + 1
    assert dialogue.hear(data(large.id, b"more"), data(largest.id, b"in flight"), fin(small.id), ping(1)) == [
        ("data", large.id, b"more"),
        ("ended", small.id),
    ]
    assert dialogue.say() == [pong(1)]


@pytest.mark.conformance(53)
def test_so_many_are_reset_that_an_eighth_is_free_and_no_more() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=MIB))
    streams = holding(dialogue, [50 * KIB + number for number in range(20)])
    dialogue.hear(data(streams[0].id, bytes(50 * KIB)))
    held = dialogue.connection.windows.held
    assert MIB * 7 // 8 - 51 * KIB < held <= MIB * 7 // 8
    evicted = [call[1] for call in dialogue.calls if call[0] == "evicted"]
    assert evicted == [streams[0].id, *(stream.id for stream in streams[:-3:-1])][: len(evicted)]
    assert 1 <= len(evicted) <= 3


@pytest.mark.conformance(53)
def test_streams_that_hold_nothing_are_never_reset() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    idle, filled, last = holding(dialogue, [0, WINDOW, 0])
    assert dialogue.hear(data(last.id, b"!")) == [("data", last.id, b"!"), ("evicted", filled.id)]
    assert not idle.is_over
    assert not last.is_over


@pytest.mark.conformance(53, 63)
@pytest.mark.parametrize("is_last", [False, True])
def test_a_stream_that_is_reset_within_its_own_frame_keeps_the_framing(is_last: bool) -> None:
    """The rest of the body is skipped, and a FIN behind it means nothing any more."""
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    other, big = holding(dialogue, [100 * KIB, 0])
    flags = FIN if is_last else 0
    dialogue.hear(data_header(big.id, WINDOW, flags), bytes(170 * KIB))
    assert dialogue.calls[-1] == ("evicted", big.id)
    assert dialogue.hear(bytes(86 * KIB), data(other.id, b"next")) == [("data", other.id, b"next")]
    assert dialogue.say() == [rst(big.id)]


@pytest.mark.conformance(53, 77)
@pytest.mark.parametrize("finisher", ["we first", "peer first"])
def test_a_stream_that_is_over_but_unread_counts_and_is_dropped_in_its_turn(finisher: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    over, other = holding(dialogue, [200 * KIB, 50 * KIB])
    if finisher == "we first":
        over.send_eof()
    dialogue.hear(fin(over.id))
    over.send_eof()
    dialogue.say()
    assert [*dialogue.connection.streams] == [other.id]
    assert [*dialogue.connection.windows.ended_unread] == [over]
    assert dialogue.hear(data(other.id, bytes(7 * KIB))) == [
        ("data", other.id, bytes(7 * KIB)),
        ("evicted", over.id),
    ]
    assert dialogue.say() == []  # For the peer it has ended.
    assert dialogue.connection.windows.held == 57 * KIB
    assert not dialogue.connection.windows.ended_unread


@pytest.mark.conformance(53)
@pytest.mark.parametrize("end", ["read", "reset", "close"])
def test_a_stream_that_is_over_counts_until_it_is_read_or_given_up(end: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    (over,) = holding(dialogue, [200 * KIB])
    dialogue.hear(fin(over.id))
    over.send_eof()
    windows = dialogue.connection.windows
    if end == "read":
        over.consume(100 * KIB)
        assert windows.held == 100 * KIB
        assert [*windows.ended_unread] == [over]
        over.consume(100 * KIB)
    elif end == "reset":
        over.reset()
    else:
        over.close(0.0)
    assert windows.held == 0
    assert not windows.ended_unread


@pytest.mark.conformance(53)
def test_an_end_that_a_reset_follows_leaves_what_had_arrived_and_it_counts() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    whole, cut = holding(dialogue, [1000, 2000])
    dialogue.hear(fin(whole.id), rst(whole.id), rst(cut.id))
    assert dialogue.connection.windows.held == 1000
    whole.consume(1000)
    assert dialogue.connection.windows.held == 0
    assert not dialogue.connection.windows.ended_unread


@pytest.mark.parametrize("end", ["read", "reset"])
def test_what_came_before_a_reset_counts_for_a_handler_that_keeps_it(end: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    (kept,) = holding(dialogue, [1000])
    kept.keeps_unread = True
    dialogue.hear(rst(kept.id))
    windows = dialogue.connection.windows
    assert (windows.held, [*windows.ended_unread]) == (1000, [kept])
    if end == "read":
        kept.consume(1000)
    else:
        kept.reset()
    assert (windows.held, [*windows.ended_unread]) == (0, [])


@pytest.mark.conformance(53)
def test_a_stream_nobody_has_taken_can_be_reset_and_leaves_the_backlog() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW, accept_backlog=2))
    dialogue.hear(syn(1), data(1, bytes(WINDOW)), syn(3), data(3, b"!"))
    assert dialogue.calls[-1] == ("evicted", 1)
    assert dialogue.say() == [rst(1)]
    assert dialogue.hear(syn(5), syn(7))[-1] == ("opened", 5)
    assert dialogue.connection.next_deadline == 30.0


@pytest.mark.conformance(53)
def test_a_stream_of_ours_that_is_reset_before_its_answer_gives_its_slot_back() -> None:
    dialogue = Dialogue(Role.CLIENT, limits=SessionLimits(max_held=WINDOW))
    first, second = dialogue.open(), dialogue.open()
    dialogue.hear(ack(first.id), ack(second.id), data(first.id, bytes(WINDOW)), data(second.id, b"!"))
    assert dialogue.calls[-1] == ("evicted", first.id)
    assert dialogue.connection.can_open
    assert rst(first.id) in dialogue.say()


@pytest.mark.conformance(53)
@pytest.mark.parametrize("reaction", ["reset", "close", "consume"])
def test_a_handler_may_call_back_when_its_stream_is_reset(reaction: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_held=WINDOW))
    first, second, third = holding(dialogue, [100 * KIB, 90 * KIB, 60 * KIB])

    def react(stream: YamuxStream) -> None:
        if reaction == "consume":  # Another one, that would have been the next.
            second.consume(second.unread)
        elif reaction == "close":
            stream.close(0.0)
        else:
            stream.reset()

    dialogue.reactions["evicted"] = react
    dialogue.hear(data(third.id, bytes(10 * KIB)))
    assert first.is_over
    windows = dialogue.connection.windows
    assert windows.held == first.unread + second.unread + third.unread
    assert windows.held + windows.granted <= WINDOW
    assert dialogue.say()[0] == rst(first.id)


@pytest.mark.conformance(53, 84)
@pytest.mark.parametrize("end", ["none", "both finish", "peer finishes"])
@pytest.mark.parametrize("read_size", [4 * KIB, WINDOW])
def test_ten_thousand_streams_with_256_kib_each_never_make_the_session_hold_more_than_its_cap(
    end: str, read_size: int
) -> None:
    """2.5 GiB by promise.  The handlers keep what they are told, as `otun.mux` does."""
    count = 10_000
    limits = SessionLimits(max_held=8 * MIB)
    dialogue = Dialogue(limits=limits)
    connection = dialogue.connection
    keepers: list[Keeper] = []

    def take(stream: YamuxStream) -> None:
        keeper = Keeper(stream)
        stream.handler = keeper
        keepers.append(keeper)
        stream.acknowledge()

    dialogue.reactions["opened"] = take
    body = memoryview(bytes(read_size))
    frames_each = WINDOW // read_size if read_size == WINDOW else 1
    tracemalloc.start()
    for number in range(count):
        stream_id = 2 * number + 1
        dialogue.hear(syn(stream_id), now=float(number))
        for _ in range(frames_each):
            connection.receive_data(data_header(stream_id, read_size).encode(), 0.0)
            connection.receive_data(body, 0.0)
            assert connection.windows.held + connection.windows.granted <= limits.max_held
        if end != "none":
            connection.receive_data(fin(stream_id).encode(), 0.0)
        if end == "both finish":
            keepers[-1].stream.send_eof()
        dialogue.calls.clear()
        dialogue.opened.clear()
        dialogue.wire()
    gc.collect()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert connection.windows.held == sum(len(keeper.kept) for keeper in keepers)
    assert limits.max_held * 3 // 4 < connection.windows.held <= limits.max_held
    assert peak < limits.max_held + read_size + 3 * KIB * count  # The streams themselves, and the tests' handlers.
    for keeper in keepers:  # Nobody is held up by what others have done.
        if keeper.kept:
            keeper.stream.consume(len(keeper.kept))
    assert connection.windows.held == 0
    assert not connection.windows.ended_unread


class Keeper:
    """Keeps what arrives until it is told to drop it."""

    def __init__(self, stream: YamuxStream) -> None:
        self.stream = stream
        self.kept = b""

    def data_received(self, data: memoryview) -> None:
        self.kept += bytes(data)

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def evicted(self) -> None:
        assert self.kept
        self.kept = b""

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...


@pytest.mark.conformance(53)
@pytest.mark.parametrize(("count", "growth"), [(5, 5 * MIB), (50, 1 * MIB), (56, 512 * KIB)])
def test_readers_that_all_stall_with_grown_windows_cost_nobody_a_stream(count: int, growth: int) -> None:
    """What windows have grown by is set aside twice, and 256 KiB for each stream: filling them is not too much."""
    dialogue = Dialogue(limits=SessionLimits(max_held=16 * MIB))
    dialogue.connection.round_trip_ended(1.0)
    streams = [dialogue.accepted(stream_id) for stream_id in range(1, 2 * count, 2)]
    for _ in range(8):
        for stream in streams:
            half = -(-stream.window // 2)
            dialogue.hear(data(stream.id, bytes(half)))
            stream.consume(half)
            dialogue.say()
    assert dialogue.connection.windows.granted > growth
    dialogue.calls.clear()
    for stream in streams:
        dialogue.hear(data(stream.id, bytes(stream.receive_credit)))
    assert not [call for call in dialogue.calls if call[0] == "evicted"]
