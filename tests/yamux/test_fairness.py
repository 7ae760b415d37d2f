"""How streams share one connection: by turns, in small frames, and out of a queue that has an end."""

from collections import Counter, deque

import pytest

from otun.yamux import YamuxStream
from otun.yamux.limits import DEFAULT_LIMITS

from .dialogue import Dialogue
from .wire import FIN, HEADER_SIZE, KIB, MAX_UINT32, MIB, WINDOW, Frame, ack, data, fin, syn, update

SHARED = 64 * KIB
SOLE = 256 * KIB
BLOCK = bytes(SOLE)


class Writers:
    """Writers on some streams, each with *amount* bytes to send, and what has left.

    They ask for room again either within the call that says there may be some, or *later*, as tasks do that are woken
    by it: then one after another, in the order in which they were woken.
    """

    def __init__(self, count: int, amount: int, *, is_later: bool = False) -> None:
        self.dialogue = Dialogue()
        self.frames: list[Frame] = []
        self.most_queued = 0
        self.left: dict[YamuxStream, int] = {}
        self._untaken = 0
        self._is_later = is_later
        self._woken: deque[YamuxStream] = deque()
        self.dialogue.reactions["window_opened"] = self.wake
        for number in range(count):
            self.add(2 * number + 1, amount)

    def add(self, stream_id: int, amount: int) -> YamuxStream:
        stream = self.dialogue.accepted(stream_id)
        self.dialogue.hear(update(stream_id, MAX_UINT32 - WINDOW))
        self.left[stream] = amount
        return stream

    def wake(self, stream: YamuxStream) -> None:
        if self._is_later:
            self._woken.append(stream)
        else:
            self.write(stream)

    def write(self, stream: YamuxStream) -> None:
        connection = self.dialogue.connection
        while self.left[stream] and (allowance := stream.send_allowance()):
            size = min(allowance, self.left[stream])
            self.left[stream] -= size
            stream.send_data(memoryview(BLOCK)[:size])
            self._untaken += size
            assert self._untaken < 4 * MIB, "the queue has no end"
            self.most_queued = max(self.most_queued, connection.queued_bytes)

    def start(self) -> None:
        for stream in self.left:
            self.write(stream)

    def take(self) -> list[Frame]:
        """Let the transport take what is queued, and the writers go on."""
        self._untaken = 0
        frames = [frame._replace(body=b"") for frame in self.dialogue.say()]
        self.frames += frames
        self.dialogue.connection.refill()
        while self._woken:
            self.write(self._woken.popleft())
        return frames


@pytest.mark.conformance(54)
@pytest.mark.parametrize("is_later", [False, True])
def test_a_stream_alone_gets_frames_of_up_to_256_kib(is_later: bool) -> None:
    writers = Writers(1, 16 * MIB, is_later=is_later)
    writers.start()
    while writers.take():
        pass
    assert {frame.length for frame in writers.frames} == {SOLE}
    assert sum(frame.length for frame in writers.frames) == 16 * MIB
    assert writers.most_queued < DEFAULT_LIMITS.send_queue + SOLE + HEADER_SIZE


@pytest.mark.conformance(54)
@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("count", [2, 3, 10, 50])
def test_several_streams_take_turns_of_at_most_64_kib(count: int, is_later: bool) -> None:
    writers = Writers(count, 1000 * MIB, is_later=is_later)
    writers.start()
    for _ in range(count):  # The first one to write was alone, and nobody was known to send much.
        writers.take()
    writers.frames.clear()
    for _ in range(5 * count):
        writers.take()
    assert max(frame.length for frame in writers.frames) <= SHARED
    turns = Counter(frame.id for frame in writers.frames)
    assert len(turns) == count
    assert max(turns.values()) - min(turns.values()) <= 1


@pytest.mark.conformance(87)
@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_the_queue_stays_under_its_limit_and_one_frame(count: int, is_later: bool) -> None:
    writers = Writers(count, 1000 * MIB, is_later=is_later)
    writers.start()
    assert writers.most_queued >= DEFAULT_LIMITS.send_queue  # The transport must not idle.
    for _ in range(20):
        assert writers.take()
    assert writers.most_queued < DEFAULT_LIMITS.send_queue + SOLE + HEADER_SIZE


@pytest.mark.conformance(87)
def test_a_peer_that_takes_nothing_gets_nothing_more_queued() -> None:
    writers = Writers(100, 1000 * MIB)
    for _ in range(3):
        writers.start()
        assert writers.dialogue.connection.queued_bytes < DEFAULT_LIMITS.send_queue + SOLE + HEADER_SIZE


@pytest.mark.parametrize("is_later", [False, True])
def test_a_small_frame_waits_for_one_turn_of_the_others_at_most(is_later: bool) -> None:
    writers = Writers(8, 1000 * MIB, is_later=is_later)
    late = writers.add(101, 0)
    writers.start()
    for _ in range(10):
        writers.take()
    writers.frames.clear()
    writers.left[late] = 4
    writers.write(late)
    for _ in range(10):
        writers.take()
    ids = [frame.id for frame in writers.frames]
    ahead = Counter(ids[: ids.index(late.id)])
    assert max(ahead.values()) <= 3  # One turn in the round, and two in the queue that was full already.


@pytest.mark.parametrize("is_later", [False, True])
def test_when_the_others_have_finished_frames_are_large_again(is_later: bool) -> None:
    writers = Writers(3, 1 * MIB, is_later=is_later)
    writers.left[next(iter(writers.left))] = 8 * MIB
    writers.start()
    while writers.take():
        pass
    assert writers.frames[-1].length == SOLE
    assert sum(frame.length for frame in writers.frames) == 10 * MIB


def test_a_stream_that_ends_while_it_waits_does_not_hold_up_the_others() -> None:
    writers = Writers(4, 10 * MIB)
    writers.start()
    gone, finished, *others = writers.left
    writers.dialogue.hear(Frame(1, 8, gone.id, 0))
    finished.send_eof()
    for _ in range(100):
        writers.take()
    assert [writers.left[stream] for stream in others] == [0, 0]
    assert fin(finished.id) in writers.frames


def test_a_window_that_ends_is_what_a_stream_waits_for_and_not_room() -> None:
    writers = Writers(2, 10 * MIB)
    dialogue = writers.dialogue
    dialogue.hear(syn(101))
    narrow = dialogue.opened[101]
    narrow.acknowledge()
    writers.left[narrow] = WINDOW + 5
    writers.start()
    while writers.take():
        pass
    assert sum(frame.length for frame in writers.frames if frame.is_data and frame.id == 101) == WINDOW
    dialogue.hear(update(101, 100))
    writers.take()
    assert writers.frames[-1] == data(101, bytes(5))._replace(body=b"")
    assert ack(101) in writers.frames


def test_an_end_waits_behind_its_own_data_in_the_round() -> None:
    writers = Writers(2, MIB)
    writers.start()
    while writers.take():
        pass
    for stream in writers.left:
        stream.send_eof()
    writers.take()
    for stream in writers.left:
        own = [frame for frame in writers.frames if frame.id == stream.id]
        assert [frame.flags for frame in own] == [0] * (len(own) - 1) + [FIN]


def test_invitations_that_find_no_credit_keep_no_room() -> None:
    """A writer that is cancelled while it waits, and writes again, asks out of turn, and may use up its window."""
    writers = Writers(0, 0, is_later=True)
    bulk = writers.add(1001, MIB)
    thin = [writers.dialogue.accepted(2 * number + 1) for number in range(16)]
    for stream in thin:
        stream.send_data(bytes(WINDOW - SHARED))
        writers.dialogue.wire()
        writers.left[stream] = SHARED + 1
    writers.write(bulk)
    for stream in thin:
        assert stream.send_allowance() == 0
    writers.dialogue.wire()
    writers.dialogue.connection.refill()
    for stream in reversed(thin):  # Those that were not invited yet ask first.
        writers.write(stream)
    for _ in range(50):
        writers.take()
    assert writers.left[bulk] == 0
    assert [writers.left[stream] for stream in thin] == [1] * 16


@pytest.mark.parametrize("leave", ["decline", "send_eof", "reset", "close", "peer resets"])
def test_a_stream_that_does_not_want_its_turn_leaves_it_to_the_next(leave: str) -> None:
    writers = Writers(0, 0)
    dialogue = writers.dialogue
    bulk = writers.add(1001, MIB)
    idle = [dialogue.accepted(2 * number + 1) for number in range(20)]
    last = writers.add(1003, 5)
    writers.write(bulk)
    for stream in (*idle, last):
        assert stream.send_allowance() == 0

    def go(stream: YamuxStream) -> None:
        if stream in writers.left:
            writers.write(stream)
        elif leave == "peer resets":
            dialogue.hear(Frame(1, 8, stream.id, 0))
        elif leave == "close":
            stream.close(0.0)
        else:
            getattr(stream, leave)()

    invited: list[YamuxStream] = []
    dialogue.reactions["window_opened"] = invited.append
    while dialogue.wire():
        dialogue.connection.refill()
        while invited:
            go(invited.pop(0))
    assert writers.left == {bulk: 0, last: 0}
