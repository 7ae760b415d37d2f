"""How streams end."""

import pytest

from otun.yamux import Role, StreamState

from .dialogue import Dialogue
from .wire import (
    ACK,
    FIN,
    MAX_UINT32,
    RST,
    SYN,
    WINDOW,
    Frame,
    data,
    data_header,
    fin,
    rst,
    update,
)


@pytest.mark.conformance(55)
def test_send_eof_sends_one_fin_behind_the_queued_data_and_reads_go_on() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(b"first")
    stream.send_data(b"second")
    stream.send_eof()
    stream.send_eof()
    assert dialogue.say() == [data(1, b"first"), data(1, b"second"), fin(1)]
    stream.send_eof()
    stream.close(0.0)
    assert dialogue.say() == []
    assert stream.state is StreamState.LOCAL_CLOSED


@pytest.mark.conformance(55)
def test_reads_go_on_after_send_eof() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_eof()
    dialogue.say()
    assert dialogue.hear(data(1, bytes(WINDOW))) == [("data", 1, bytes(WINDOW))]
    stream.consume(WINDOW)
    assert dialogue.say() == [update(1, WINDOW)]
    assert dialogue.hear(data(1, b"last"), fin(1)) == [("data", 1, b"last"), ("ended", 1)]
    assert dialogue.connection.streams == {}
    assert dialogue.say() == []


@pytest.mark.conformance(55)
def test_close_finishes_once_and_never_resets_by_itself() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(b"bye")
    stream.close(0.0)
    stream.close(1.0)
    assert dialogue.say() == [data(1, b"bye"), fin(1)]
    dialogue.hear(fin(1))
    assert dialogue.connection.streams == {}
    assert dialogue.say() == []


@pytest.mark.conformance(56)
@pytest.mark.parametrize("last", [data(1, b"body", FIN), data(1, b"", FIN), fin(1), update(1, 9, FIN | ACK)])
def test_fin_ends_the_stream_whatever_carries_it(last: Frame) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    body = [("data", 1, last.body)] if last.body else []
    assert dialogue.hear(last) == [*body, ("ended", 1)]
    assert stream.state is StreamState.REMOTE_CLOSED
    stream.send_data(b"answer")
    assert dialogue.say() == [data(1, b"answer")]


@pytest.mark.conformance(56)
def test_fin_on_a_data_frame_comes_behind_the_whole_body() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.hear(data_header(1, 4, FIN)) == []
    assert dialogue.hear(b"bod") == [("data", 1, b"bod")]
    assert dialogue.hear(b"y") == [("data", 1, b"y"), ("ended", 1)]


@pytest.mark.conformance(56)
def test_fin_on_an_update_gives_its_credit_as_well() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(update(1, 100, FIN))
    assert stream.send_credit == WINDOW + 100


@pytest.mark.conformance(56)
def test_a_body_behind_one_with_fin_does_not_end_its_own_stream() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    assert dialogue.hear(data(1, b"a", FIN), data(3, b"b")) == [("data", 1, b"a"), ("ended", 1), ("data", 3, b"b")]


@pytest.mark.conformance(57)
@pytest.mark.parametrize("again", [fin(1), data(1, b"", FIN), update(1, 5, FIN)])
def test_a_second_fin_is_ignored(again: Frame) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(fin(1))
    assert dialogue.hear(again) == []
    stream.send_data(b"alive")
    assert dialogue.say() == [data(1, b"alive")]
    stream.send_eof()
    dialogue.hear(again, again)
    assert dialogue.say() == [fin(1)]


@pytest.mark.conformance(58)
@pytest.mark.parametrize("late", [data(1, b"late"), data(1, b"late", FIN)])
def test_data_after_fin_resets_that_stream_only(late: Frame) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    assert dialogue.hear(fin(1), late, data(3, b"kept")) == [("ended", 1), ("reset", 1, 0), ("data", 3, b"kept")]
    assert dialogue.say() == [rst(1)]
    assert [*dialogue.connection.streams] == [3]


@pytest.mark.conformance(60)
def test_a_local_reset_sends_one_rst_and_forgets_the_stream_at_once() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.reset(42)
    stream.reset(43)
    stream.send_eof()
    stream.close(0.0)
    assert dialogue.say() == [rst(1, 42)]
    assert dialogue.calls == []
    assert stream.state is StreamState.RESET
    assert dialogue.connection.streams == {}
    assert dialogue.connection.next_deadline == float("inf")


@pytest.mark.conformance(60)
def test_a_reset_closes_what_was_half_closed() -> None:
    dialogue = Dialogue()
    for stream_id in (1, 3, 5):
        dialogue.accepted(stream_id)
    dialogue.opened[1].send_eof()
    dialogue.hear(fin(3))
    dialogue.opened[5].close(0.0)
    dialogue.say()
    for stream_id in (1, 3, 5):
        dialogue.opened[stream_id].reset()
    assert dialogue.say() == [rst(1), rst(3), rst(5)]
    assert dialogue.connection.streams == {}


@pytest.mark.conformance(61)
@pytest.mark.parametrize("last", [rst(1), data(1, b"", RST), update(1, 0, RST | FIN), data(1, b"x", RST | FIN)])
def test_data_and_then_rst_is_an_error_and_no_end(last: Frame) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    assert dialogue.hear(data(1, b"data"), last) == [("data", 1, b"data"), ("reset", 1, 0)]
    assert stream.state is StreamState.RESET
    assert dialogue.connection.streams == {}
    assert dialogue.say() == []


@pytest.mark.conformance(62)
def test_the_length_of_an_rst_is_a_code_and_no_credit() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    assert dialogue.hear(rst(1, 42)) == [("reset", 1, 42)]
    assert stream.send_credit == WINDOW
    dialogue.accepted(3)
    assert dialogue.hear(rst(3, MAX_UINT32)) == [("reset", 3, MAX_UINT32)]


@pytest.mark.conformance(63)
@pytest.mark.parametrize("size", [1, 100, WINDOW + 1])
def test_rst_on_data_with_a_body_keeps_the_framing(size: int) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    assert dialogue.hear(data(1, b"\xff" * size, RST), data(3, b"next")) == [("reset", 1, 0), ("data", 3, b"next")]
    assert dialogue.say() == []


@pytest.mark.conformance(88)
@pytest.mark.parametrize("frame", [update(1, 0, SYN | ACK | FIN | RST), data(1, b"x", SYN | ACK | FIN | RST)])
def test_all_flags_together_are_an_rst(frame: Frame) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.hear(frame) == [("reset", 1, 0)]
    assert dialogue.say() == []
    ours = Dialogue(Role.CLIENT)
    ours.open()
    assert ours.hear(frame) == [("slot_freed",), ("reset", 1, 0)]


@pytest.mark.conformance(67)
def test_crossing_resets_make_no_loop() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).reset()
    assert dialogue.hear(rst(1)) == []
    assert dialogue.say() == [rst(1)]
    assert dialogue.hear(rst(1), rst(1)) == []
    assert dialogue.say() == []
