"""Who sends little does not wait behind those who send much, and cannot keep them waiting either."""

import pytest

from otun.yamux import YamuxStream
from otun.yamux.limits import DEFAULT_LIMITS

from .test_fairness import BLOCK, SHARED, Writers
from .wire import HEADER_SIZE, KIB, MIB, Frame, parse

CHATTER = 1 * KIB
"""Bytes that a chatterer sends at once."""


class MixedWriters(Writers):
    """Some writers of bulk, and some who send small pieces.  The transport takes one piece of output at a time."""

    def __init__(self, bulk: int, chatterers: int, *, is_later: bool) -> None:
        super().__init__(bulk, 1000 * MIB, is_later=is_later)
        self.chatterers = [self.add(2 * (bulk + number) + 1, 0) for number in range(chatterers)]

    def write(self, stream: YamuxStream) -> None:
        if stream not in self.chatterers:
            super().write(stream)
            return
        while self.left[stream] and (allowance := stream.send_allowance()):
            size = min(allowance, self.left[stream], CHATTER)
            self.left[stream] -= size
            stream.send_data(BLOCK[:size])

    def take(self) -> list[Frame]:
        self._untaken = 0
        frames = parse(b"".join(self.dialogue.connection.data_to_send()))
        self.dialogue.connection.refill()
        while self._woken:
            self.write(self._woken.popleft())
        return frames


@pytest.mark.parametrize("is_later", [False, True])
@pytest.mark.parametrize("bulk", [1, 8, 100])
def test_a_small_frame_waits_for_what_is_queued_and_not_for_everybodys_turn(bulk: int, is_later: bool) -> None:
    writers = MixedWriters(bulk, 1, is_later=is_later)
    writers.start()
    for _ in range(2 * bulk + 10):  # Until it is known who sends much.
        writers.take()
    [chatterer] = writers.chatterers
    writers.left[chatterer] = 64
    writers.write(chatterer)
    ahead = 0
    while True:
        frames = writers.take()
        ids = [frame.id for frame in frames]
        if chatterer.id in ids:
            ahead += sum(frame.length for frame in frames[: ids.index(chatterer.id)])
            break
        ahead += sum(frame.length for frame in frames)
    assert ahead <= DEFAULT_LIMITS.send_queue + 2 * SHARED


@pytest.mark.parametrize("is_later", [False, True])
def test_many_who_send_little_do_not_keep_bulk_waiting(is_later: bool) -> None:
    writers = MixedWriters(2, 500, is_later=is_later)
    for chatterer in writers.chatterers:
        writers.left[chatterer] = 100 * MIB
    writers.start()
    for _ in range(500):
        writers.take()
    turns = [frame for _ in range(50) for frame in writers.take()]
    bulk = [frame for frame in turns if frame.length > CHATTER]
    assert len(bulk) >= len(turns) // 4
    assert sum(len(frame.body) + HEADER_SIZE for frame in turns) <= 50 * (2 * DEFAULT_LIMITS.send_queue)
