"""What is still answered, and what is kept, when one side or both have done with a stream."""

import gc
import tracemalloc

import pytest

from otun.yamux import Role

from .dialogue import Dialogue
from .wire import (
    ACK,
    FIN,
    KIB,
    MAX_UINT32,
    RST,
    SYN,
    WINDOW,
    Frame,
    ack,
    data,
    data_header,
    fin,
    ping,
    pong,
    rst,
    syn,
    update,
)


@pytest.mark.conformance(51)
@pytest.mark.parametrize("late", [data(1, b"late"), data(1, b"late", FIN), data_header(1, 1000)])
def test_data_for_a_closed_read_side_is_answered_with_rst(late: Frame) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).close(0.0)
    assert dialogue.say() == [fin(1)]
    dialogue.hear(late, b"withheld" if not late.body else b"")
    assert dialogue.say() == [rst(1)]
    assert dialogue.connection.streams == {}
    assert ("data", 1, b"late") not in dialogue.calls


@pytest.mark.conformance(51)
def test_a_read_side_closed_within_a_body_resets_and_keeps_the_framing() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(data_header(1, 10), b"first")
    stream.close(0.0)
    dialogue.hear(b"after", ping(5))
    assert {*dialogue.say()} == {pong(5), fin(1), rst(1)}


@pytest.mark.conformance(92)
def test_closing_gives_an_empty_window_one_byte_so_that_the_peer_finds_out() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(data(1, bytes(WINDOW)))
    stream.close(0.0)
    assert {*dialogue.say()} == {update(1, 1), fin(1)}
    dialogue.hear(data(1, b"!"))
    assert dialogue.say() == [rst(1)]


@pytest.mark.conformance(92)
def test_closing_gives_no_byte_to_a_window_that_is_not_empty_or_not_needed() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1), data(1, bytes(WINDOW - 1)), data(3, bytes(WINDOW), SYN | FIN))
    for stream_id in (1, 3):
        dialogue.opened[stream_id].acknowledge()
        dialogue.opened[stream_id].close(0.0)
    assert {*dialogue.say()} == {ack(1), ack(3), fin(1), fin(3)}


UNKNOWN = [
    *[update(9, length, flags) for flags in (0, ACK, FIN, RST, ACK | FIN) for length in (0, 100, MAX_UINT32)],
    *[data(9, body, flags) for flags in (0, ACK, FIN, RST, ACK | FIN) for body in (b"", b"body")],
]


@pytest.mark.conformance(64)
@pytest.mark.parametrize("end", ["never opened", "reset", "peer resets", "both finish", "timed out"])
def test_no_frame_on_an_unknown_id_is_answered(end: str) -> None:
    dialogue = Dialogue()
    if end != "never opened":
        stream = dialogue.accepted(9)
        if end == "reset":
            stream.reset()
        elif end == "peer resets":
            dialogue.hear(rst(9))
        else:
            stream.close(0.0)
        if end == "both finish":
            dialogue.hear(fin(9))
        if end == "timed out":
            dialogue.connection.handle_timeouts(1e9)
    dialogue.say()
    assert dialogue.hear(*UNKNOWN) == []
    assert dialogue.say() == []
    assert dialogue.hear(ping(1)) == []
    assert dialogue.say() == [pong(1)]


@pytest.mark.conformance(64)
def test_no_frame_on_id_0_or_on_an_id_of_ours_that_was_never_opened_is_answered() -> None:
    dialogue = Dialogue(Role.CLIENT)
    for stream_id in (0, 1, 77):
        assert dialogue.hear(*[frame._replace(id=stream_id) for frame in UNKNOWN]) == []
    assert dialogue.say() == []


@pytest.mark.conformance(65)
@pytest.mark.parametrize("end", ["both finish", "reset", "peer resets"])
def test_ten_thousand_streams_leave_nothing_behind(end: str) -> None:
    dialogue = Dialogue()

    def live(stream_id: int) -> None:
        dialogue.hear(syn(stream_id), data(stream_id, b"request"))
        theirs = dialogue.opened.pop(stream_id)
        theirs.acknowledge()
        ours = dialogue.open()
        dialogue.hear(ack(ours.id))
        for stream in (theirs, ours):
            stream.send_data(b"answer")
            if end == "reset":
                stream.reset()
            elif end == "peer resets":
                dialogue.hear(rst(stream.id))
            else:
                stream.close(0.0)
                dialogue.hear(fin(stream.id))
        dialogue.wire()
        dialogue.connection.refill()
        dialogue.calls.clear()

    for number in range(1000):
        live(2 * number + 1)
    tracemalloc.start()
    for number in range(1000, 6000):
        live(2 * number + 1)
    gc.collect()  # The tests' handlers and their streams know each other.
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dialogue.connection.streams == {}
    assert dialogue.connection.next_deadline == float("inf")
    assert dialogue.connection.can_open
    assert kept < 16 * KIB


@pytest.mark.conformance(66)
def test_a_closed_stream_whose_peer_never_finishes_is_reset_in_time() -> None:
    dialogue = Dialogue()
    first, second = dialogue.accepted(1), dialogue.accepted(3)
    first.close(1000.0)
    second.close(1001.0)
    dialogue.say()
    deadline = dialogue.connection.next_deadline
    assert 1000.0 < deadline < float("inf")
    dialogue.connection.handle_timeouts(deadline - 0.001)
    assert dialogue.say() == []
    dialogue.connection.handle_timeouts(deadline)
    assert dialogue.say() == [rst(1)]
    assert [*dialogue.connection.streams] == [3]
    dialogue.hear(fin(3))
    assert dialogue.connection.next_deadline == float("inf")
    dialogue.connection.handle_timeouts(deadline + 1000.0)
    assert dialogue.say() == []


@pytest.mark.conformance(66)
def test_a_stream_that_gets_more_time_takes_none_from_the_others() -> None:
    dialogue = Dialogue()
    first, second = dialogue.accepted(1), dialogue.accepted(3)
    first.finish(0.0)
    timeout = dialogue.connection.next_deadline
    second.close(1.0)
    first.close(timeout - 1)
    dialogue.say()
    assert dialogue.connection.next_deadline <= timeout + 1
    dialogue.connection.handle_timeouts(timeout + 1)
    assert 3 in {frame.id for frame in dialogue.say() if frame.flags == RST}
    dialogue.connection.handle_timeouts(2 * timeout)
    assert dialogue.connection.streams == {}
    assert dialogue.connection.next_deadline == float("inf")


@pytest.mark.conformance(66)
def test_a_finished_stream_is_read_on_and_reset_in_time() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(b"last")
    stream.finish(1000.0)
    assert dialogue.say() == [data(1, b"last"), fin(1)]
    assert dialogue.hear(data(1, b"still read")) == [("data", 1, b"still read")]
    assert dialogue.say() == []
    dialogue.connection.handle_timeouts(dialogue.connection.next_deadline)
    assert dialogue.say() == [rst(1)]
    assert dialogue.connection.streams == {}


@pytest.mark.conformance(66)
def test_a_stream_that_is_only_half_closed_has_no_deadline() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).send_eof()
    dialogue.hear(syn(3), fin(3))
    dialogue.opened[3].acknowledge()
    assert dialogue.connection.next_deadline == float("inf")
