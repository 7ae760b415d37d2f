"""What a peer can make us keep has an end, and then the session has one."""

import tracemalloc
from collections.abc import Iterable

import pytest

from otun.errors import RemoteProtocolError
from otun.yamux import YamuxStream

from .dialogue import Dialogue
from .wire import FIN, KIB, MAX_UINT32, MIB, SYN, WINDOW, Frame, data, data_header, fin, go_away, rst, syn, update

UNREAD_LIMIT = 768 * KIB
"""More is not kept for a peer that sends and does not read: a full send queue, and one of the largest frames."""


def size_of_output_to(dialogue: Dialogue, frames: Iterable[list[Frame]]) -> int:
    """Return how much waits when the peer has sent all *frames* without reading, or has been thrown out on the way."""
    for read in frames:
        try:
            dialogue.hear(*read)
        except RemoteProtocolError:
            wire = dialogue.wire()
            assert wire.startswith(go_away(1).encode())
            return len(wire)
        dialogue.calls.clear()
        dialogue.opened.clear()
    return len(dialogue.wire())


@pytest.mark.conformance(81)
def test_a_flood_of_streams_nobody_takes_ends_the_session() -> None:
    dialogue = Dialogue()
    assert size_of_output_to(dialogue, ([syn(stream_id)] for stream_id in range(1, 20_001, 2))) < UNREAD_LIMIT
    assert dialogue.connection.has_gone_away
    assert len(dialogue.connection.streams) == 256


@pytest.mark.conformance(81)
def test_a_peer_that_reads_its_refusals_may_go_on() -> None:
    dialogue = Dialogue()
    dialogue.hear(*[syn(2 * number + 1) for number in range(256)])
    for number in range(256, 5000):
        dialogue.hear(syn(2 * number + 1))
        assert dialogue.say() == [rst(2 * number + 1)]


@pytest.mark.conformance(82)
@pytest.mark.parametrize("reaction", ["none", "acknowledge", "reset", "close"])
def test_rapid_resets_are_bounded_for_a_peer_that_does_not_read(reaction: str) -> None:
    dialogue = Dialogue()
    if reaction == "close":
        dialogue.reactions["opened"] = lambda stream: stream.close(0.0)
    elif reaction != "none":
        dialogue.reactions["opened"] = getattr(YamuxStream, reaction)
    ids = range(1, 200_001, 2)
    assert size_of_output_to(dialogue, ([syn(stream_id), rst(stream_id)] for stream_id in ids)) < UNREAD_LIMIT


@pytest.mark.conformance(82, 87)
@pytest.mark.parametrize("wrong", [[data(0, b"x")], [data(0, b"", FIN), data(0, b"x", FIN)]])
def test_resets_for_wrong_data_are_bounded_for_a_peer_that_does_not_read(wrong: list[Frame]) -> None:
    dialogue = Dialogue()
    dialogue.reactions["opened"] = lambda stream: stream.close(0.0)  # Or after FIN, which needs no such handler.
    reads = ([syn(stream_id), *[frame._replace(id=stream_id) for frame in wrong]] for stream_id in range(1, 200_001, 2))
    assert size_of_output_to(dialogue, reads) < UNREAD_LIMIT


@pytest.mark.conformance(82, 87)
def test_resets_for_data_after_fin_are_bounded_for_a_peer_that_does_not_read() -> None:
    reads = ([update(stream_id, 0, SYN | FIN), data(stream_id, b"x")] for stream_id in range(1, 200_001, 2))
    assert size_of_output_to(Dialogue(), reads) < UNREAD_LIMIT


@pytest.mark.conformance(85)
@pytest.mark.parametrize("flood", [[data(1)] * 10_000, [update(1)] * 10_000, [data(99)] * 10_000, [fin(1)] * 10_000])
def test_floods_of_frames_that_say_nothing_keep_nothing(flood: list[Frame]) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.hear(*flood)
    wire = b"".join(frame.encode() for frame in flood)
    tracemalloc.start()
    dialogue.hear(wire)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB
    assert dialogue.calls in ([], [("ended", 1)])
    assert dialogue.say() == []


def feed_bodies(dialogue: Dialogue, total: int) -> None:
    """Send *total* bytes on stream 1, which reads them at once, and let none of our output leave."""
    half = dialogue.connection.limits.receive_window // 2
    header, body = data_header(1, half).encode(), memoryview(bytes(half))
    for _ in range(total // half):
        dialogue.connection.receive_data(header, 0.0)
        dialogue.connection.receive_data(body, 0.0)


@pytest.mark.conformance(41, 42)
def test_a_peer_that_sends_4_gib_and_reads_no_update_gets_one_that_fits_its_field() -> None:
    dialogue = Dialogue(receive_window=16 * MIB)
    stream = dialogue.accepted(1)
    stream.handler = Consumer(stream)
    try:
        feed_bodies(dialogue, 2**32 + 16 * MIB)
    except RemoteProtocolError:
        assert dialogue.say()[0] == go_away(1)  # It sends what it does not know it may: that is a good answer, too.
    else:
        assert all(frame.length <= MAX_UINT32 for frame in dialogue.say())


class Consumer:
    """Reads everything at once, and keeps nothing."""

    def __init__(self, stream: YamuxStream) -> None:
        self._stream = stream

    def data_received(self, data: memoryview) -> None:
        self._stream.consume(len(data))

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def evicted(self) -> None: ...

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...


@pytest.mark.conformance(41)
def test_credit_that_has_not_left_yet_is_not_the_peers_to_use() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.handler = Consumer(stream)
    dialogue.hear(data(1, bytes(WINDOW)))
    with pytest.raises(RemoteProtocolError):
        dialogue.hear(data_header(1, 1))
    assert dialogue.say() == [go_away(1), update(1, WINDOW)]
