"""What a peer can make us keep has an end, and then the session has one."""

import gc
import tracemalloc
from collections.abc import Iterable

import pytest

from otun.errors import LimitExceeded, RemoteProtocolError
from otun.yamux import SessionLimits, YamuxStream

from .dialogue import Dialogue
from .wire import (
    ACK,
    FIN,
    KIB,
    MAX_UINT32,
    MIB,
    RST,
    SYN,
    WINDOW,
    Frame,
    ack,
    data,
    data_header,
    fin,
    go_away,
    ping,
    pong,
    rst,
    syn,
    update,
)

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


def limit_passed_by(dialogue: Dialogue, reads: Iterable[bytes]) -> str:
    """Return which limit ends the session in the course of *reads*."""
    for read in reads:
        try:
            dialogue.connection.receive_data(read, 0.0)
        except LimitExceeded as error:
            return error.limit
    return ""


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


RATE = 5_000
"""Streams that may be opened in vain in a second, for as long as one likes."""


@pytest.mark.conformance(81)
def test_of_a_million_streams_nobody_takes_256_are_kept_for_a_peer_that_keeps_to_the_allowance() -> None:
    dialogue = Dialogue()
    connection = dialogue.connection
    dialogue.hear(*[syn(2 * number + 1) for number in range(256)])
    for second in range(1_000_000 // RATE):
        if second == 190:  # Tracing is slow, and what is kept for each stream would show.
            tracemalloc.start()
        first = 2 * (256 + RATE * second) + 1
        wire = b"".join([syn(stream_id).encode() for stream_id in range(first, first + 2 * RATE, 2)])
        for start in range(0, len(wire), 12 * 1000):
            connection.receive_data(wire[start : start + 12 * 1000], float(second))
            assert len(connection.streams) == 256
            assert sum(map(len, connection.data_to_send())) == 12 * 1000
    wire = b""
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB
    assert len(dialogue.calls) == 256


@pytest.mark.conformance(81)
def test_a_million_streams_nobody_takes_end_the_session_when_they_come_at_once() -> None:
    """20,000 are refused at once, for a peer that reads that."""
    dialogue = Dialogue()
    refused = 0

    def reads() -> Iterable[bytes]:
        nonlocal refused
        for first in range(1, 2_000_001, 2000):
            yield b"".join([syn(first + 2 * place).encode() for place in range(1000)])
            refused += len(dialogue.say())

    assert limit_passed_by(dialogue, reads()) == "resets"
    assert dialogue.say()[0] == go_away(1)
    assert 18_000 < refused <= 20_000
    assert len(dialogue.connection.streams) == 256


def rapid_resets(count: int, first: int = 0) -> Iterable[bytes]:
    """Yield reads of 500 streams that are opened and reset."""
    for start in range(first, first + count, 500):
        ids = range(2 * start + 1, 2 * (start + 500) + 1, 2)
        yield b"".join([syn(stream_id).encode() + rst(stream_id).encode() for stream_id in ids])


@pytest.mark.conformance(82)
def test_of_200_000_rapid_resets_nothing_is_kept_for_a_peer_that_keeps_to_the_allowance() -> None:
    dialogue = Dialogue()
    connection = dialogue.connection
    for turn, read in enumerate(rapid_resets(200_000)):
        if turn == 380:
            tracemalloc.start()
        connection.receive_data(read, turn * 500 / RATE)
        assert connection.streams == {}
        assert connection.next_deadline == float("inf")
        assert dialogue.wire() == b""
        dialogue.calls.clear()
        dialogue.opened.clear()
    read = b""
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB


@pytest.mark.conformance(82)
def test_200_000_rapid_resets_end_the_session_when_they_come_at_once() -> None:
    dialogue = Dialogue()
    assert limit_passed_by(dialogue, rapid_resets(200_000)) == "resets"
    assert dialogue.say() == [go_away(1)]
    assert len(dialogue.opened) == 20_001
    assert dialogue.connection.has_gone_away


@pytest.mark.conformance(83)
def test_of_200_000_pings_from_a_peer_that_does_not_read_32_answers_are_kept() -> None:
    dialogue = Dialogue()
    flood = b"".join(ping(value).encode() for value in range(10_000))
    tracemalloc.start()
    for _ in range(20):
        dialogue.connection.receive_data(flood, 0.0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB
    assert dialogue.say() == [pong(value) for value in range(32)]


FLOODS: dict[str, Frame] = {
    "empty data": data(1),
    "update of 0": update(1),
    "duplicate ack": ack(1),
    "second fin": fin(3),
    "second fin on empty data": data(3, b"", FIN),
    "empty data on an unknown id": data(99),
    "update of 0 on an unknown id": update(99),
    "update of 0 on an id of ours": update(98),
}


@pytest.mark.conformance(85)
@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_frames_that_say_nothing_keep_nothing_and_end_the_session(name: str) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    dialogue.hear(fin(3))
    dialogue.calls.clear()
    flood = FLOODS[name].encode() * 1000
    dialogue.hear(flood)
    tracemalloc.start()
    for _ in range(8):
        dialogue.hear(flood)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB
    assert dialogue.say() == []
    assert limit_passed_by(dialogue, [flood, flood]) == "empty_frames"
    assert dialogue.calls == []
    assert dialogue.say() == [go_away(1)]


@pytest.mark.conformance(85)
@pytest.mark.parametrize("name", FLOODS)
def test_frames_that_say_nothing_keep_nothing_of_a_peer_that_keeps_to_the_allowance(name: str) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    dialogue.hear(fin(3))
    dialogue.calls.clear()
    flood = FLOODS[name].encode() * 1000
    for second in range(30):
        dialogue.hear(flood, now=float(second))
    assert dialogue.calls == []
    assert dialogue.say() == []


@pytest.mark.conformance(85)
@pytest.mark.parametrize("frame", [rst(99), fin(99), ack(99), update(99, 0, SYN | RST), rst(2), fin(2)], ids=str)
def test_floods_of_ends_of_streams_that_are_over_keep_nothing(frame: Frame) -> None:
    """Honest peers send them, too, when they cross with a reset of ours."""
    dialogue = Dialogue()
    flood = frame.encode() * 10_000
    dialogue.hear(flood)
    tracemalloc.start()
    for _ in range(5):
        dialogue.hear(flood)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 16 * KIB
    assert dialogue.calls == []
    assert dialogue.say() == []


@pytest.mark.conformance(84)
def test_a_window_filled_byte_by_byte_costs_the_core_nothing_per_frame() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.handler = counter = Counter()
    flood = data(1, b"x").encode() * 1024
    dialogue.connection.receive_data(flood, 0.0)
    tracemalloc.start()
    for _ in range(255):
        dialogue.connection.receive_data(flood, 0.0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert counter.size == stream.unread == WINDOW
    assert kept < 16 * KIB
    assert dialogue.is_violated_by(data(1, b"x"))


@pytest.mark.conformance(86)
def test_credit_that_drips_byte_by_byte_is_merged_while_the_transport_is_full() -> None:
    """A sender without room in the queue gets one turn for all the credit that has come meanwhile."""
    dialogue = Dialogue(limits=SessionLimits(send_queue=64 * KIB))
    dripping, filling = dialogue.accepted(1), dialogue.accepted(3)
    dialogue.hear(update(3, 16 * MIB))
    while allowance := dripping.send_allowance():
        dripping.send_data(bytes(allowance))
        dialogue.wire()
        dialogue.connection.refill()
    filling.send_data(bytes(filling.send_allowance()))
    dialogue.calls.clear()

    def write(stream: YamuxStream) -> None:
        if stream is dripping and (allowance := stream.send_allowance()):
            stream.send_data(bytes(allowance))

    dialogue.reactions["window_opened"] = write
    dialogue.hear(update(1, 1).encode() * 1000)
    dialogue.wire()
    dialogue.connection.refill()
    assert [frame.length for frame in dialogue.say()] == [1000]


@pytest.mark.conformance(86, 87)
def test_credit_that_drips_byte_by_byte_to_a_peer_that_does_not_read_fills_no_more_than_the_queue() -> None:
    dialogue = Dialogue(limits=SessionLimits(send_queue=64 * KIB))
    stream = dialogue.accepted(1)
    while allowance := stream.send_allowance():
        stream.send_data(bytes(allowance))
        dialogue.wire()
        dialogue.connection.refill()

    def write(stream: YamuxStream) -> None:
        while allowance := stream.send_allowance():
            stream.send_data(bytes(allowance))

    dialogue.reactions["window_opened"] = write
    for _ in range(20):
        dialogue.hear(update(1, 1).encode() * 1000)
    assert dialogue.connection.queued_bytes < 64 * KIB + WINDOW + 12


@pytest.mark.conformance(88)
@pytest.mark.parametrize("kind", [0, 1])
def test_a_flood_of_frames_with_all_flags_opens_nothing_and_is_not_answered(kind: int) -> None:
    dialogue = Dialogue()
    frames = [Frame(kind, SYN | ACK | FIN | RST, stream_id, 0) for stream_id in range(1, 20_001, 2)]
    assert dialogue.hear(*frames) == []
    assert dialogue.connection.streams == {}
    assert dialogue.say() == []
    dialogue.accepted(1)
    assert dialogue.hear(frames[0]) == [("reset", 1, 0)]
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


class Counter:
    """Counts what arrives, keeps nothing, and reads nothing as far as the peer's window is concerned."""

    def __init__(self) -> None:
        self.size = 0

    def data_received(self, data: memoryview) -> None:
        self.size += len(data)

    def stream_ended(self) -> None: ...

    def stream_reset(self, code: int) -> None: ...

    def evicted(self) -> None: ...

    def connection_lost(self) -> None: ...

    def window_opened(self) -> None: ...


class Consumer(Counter):
    """Reads everything at once."""

    def __init__(self, stream: YamuxStream) -> None:
        super().__init__()
        self._stream = stream

    def data_received(self, data: memoryview) -> None:
        self._stream.consume(len(data))


@pytest.mark.conformance(41)
def test_credit_that_has_not_left_yet_is_not_the_peers_to_use() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.handler = Consumer(stream)
    dialogue.hear(data(1, bytes(WINDOW)))
    with pytest.raises(RemoteProtocolError):
        dialogue.hear(data_header(1, 1))
    assert dialogue.say() == [go_away(1), update(1, WINDOW)]
