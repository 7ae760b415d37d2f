"""The 256 opens, in either direction, that may wait for an answer."""

import pytest

from otun.errors import LocalProtocolError
from otun.yamux import Role

from .dialogue import Dialogue
from .wire import ACK, FIN, RST, SYN, WINDOW, Frame, ack, data, fin, go_away, ping, pong, rst, syn, update

BACKLOG = 256


def fill_backlog(dialogue: Dialogue) -> list[int]:
    ids = [dialogue.open().id for _ in range(BACKLOG)]
    dialogue.say()
    return ids


@pytest.mark.conformance(22)
@pytest.mark.parametrize("answer", [data(1, b"x"), data(1), fin(1), data(1, b"x", FIN), update(1, 5), update(1)])
def test_any_frame_without_ack_frees_the_slot(answer: Frame) -> None:
    dialogue = Dialogue(Role.CLIENT)
    fill_backlog(dialogue)
    assert dialogue.hear(answer)[0] == ("slot_freed",)
    assert dialogue.connection.can_open
    dialogue.open()
    assert not dialogue.connection.can_open


@pytest.mark.conformance(22)
def test_frames_of_the_session_free_no_slot() -> None:
    dialogue = Dialogue(Role.CLIENT)
    fill_backlog(dialogue)
    assert dialogue.hear(ping(1), pong(1), ack(0), ack(2), ack(1001)) == [("pong", 1)]
    assert not dialogue.connection.can_open


@pytest.mark.conformance(23)
@pytest.mark.parametrize("second", [ack(1), data(1, b"x", ACK), fin(1), rst(1)])
def test_a_second_ack_frees_nobody_elses_slot(second: Frame) -> None:
    dialogue = Dialogue(Role.CLIENT)
    fill_backlog(dialogue)
    dialogue.hear(ack(1), second, second)
    assert dialogue.calls.count(("slot_freed",)) == 1
    dialogue.open()
    assert not dialogue.connection.can_open


@pytest.mark.conformance(24)
def test_with_256_opens_unanswered_the_next_one_waits() -> None:
    dialogue = Dialogue(Role.CLIENT)
    for _ in range(BACKLOG):
        assert dialogue.connection.can_open
        dialogue.open()
    assert not dialogue.connection.can_open
    with pytest.raises(LocalProtocolError):
        dialogue.open()
    assert len(dialogue.say()) == BACKLOG
    dialogue.hear(ack(255))
    assert dialogue.open().id == 2 * BACKLOG + 1


@pytest.mark.conformance(25)
@pytest.mark.parametrize("end", ["close", "send_eof and close", "reset"])
@pytest.mark.parametrize("answer", [[ACK, FIN], [ACK | FIN], [FIN], [RST], [ACK, RST]])
def test_streams_closed_before_the_ack_give_their_slots_back(end: str, answer: list[int]) -> None:
    dialogue = Dialogue(Role.CLIENT)
    for _ in range(3):
        streams = [dialogue.open() for _ in range(BACKLOG)]
        for stream in streams:
            if end == "reset":
                stream.reset()
                continue
            if end == "send_eof and close":
                stream.send_eof()
            stream.close(0.0)
        dialogue.say()
        dialogue.hear(*[update(stream.id, 0, flags) for stream in streams for flags in answer])
        assert dialogue.calls.count(("slot_freed",)) == BACKLOG
        assert dialogue.connection.streams == {}
        dialogue.calls.clear()


@pytest.mark.conformance(25, 66)
def test_streams_closed_and_never_answered_give_their_slots_back_in_time() -> None:
    dialogue = Dialogue(Role.CLIENT)
    for _ in range(BACKLOG):
        dialogue.open().close(10.0)
    dialogue.connection.handle_timeouts(dialogue.connection.next_deadline)
    assert not dialogue.connection.can_open  # The next SYN would overtake the resets.
    dialogue.say()
    assert dialogue.calls == [("slot_freed",)] * BACKLOG
    assert dialogue.connection.can_open
    assert dialogue.connection.streams == {}


@pytest.mark.conformance(28)
def test_a_stream_beyond_our_backlog_is_reset_and_drained_and_the_others_live() -> None:
    dialogue = Dialogue()
    dialogue.hear(*[syn(1 + 2 * number) for number in range(BACKLOG)])
    assert dialogue.say() == []
    beyond = 1 + 2 * BACKLOG
    assert dialogue.hear(syn(beyond), data(beyond, b"lost"), update(beyond, 9), fin(beyond), data(1, b"kept")) == [
        ("data", 1, b"kept")
    ]
    assert dialogue.say() == [rst(beyond)]
    assert dialogue.hear(data(beyond + 2, b"lost", SYN | FIN), data(3, b"kept")) == [("data", 3, b"kept")]
    assert dialogue.say() == [rst(beyond + 2)]


@pytest.mark.conformance(28)
@pytest.mark.parametrize("leave", ["acknowledge", "reset", "peer resets"])
def test_a_stream_that_leaves_our_backlog_makes_room(leave: str) -> None:
    dialogue = Dialogue()
    dialogue.hear(*[syn(1 + 2 * number) for number in range(BACKLOG)])
    if leave == "peer resets":
        dialogue.hear(rst(5))
    else:
        getattr(dialogue.opened[5], leave)()
    dialogue.say()
    assert dialogue.hear(syn(1001), syn(1003)) == [("opened", 1001)]
    assert dialogue.say() == [rst(1003)]


@pytest.mark.conformance(30)
def test_a_stream_nobody_takes_is_acknowledged_in_time() -> None:
    dialogue = Dialogue(receive_window=WINDOW + 7)
    dialogue.hear(syn(1), now=100.0)
    dialogue.hear(syn(3), now=101.0)
    deadline = dialogue.connection.next_deadline
    assert 100.0 < deadline <= 160.0
    dialogue.connection.handle_timeouts(deadline - 0.001)
    assert dialogue.say() == []
    dialogue.connection.handle_timeouts(deadline)
    assert dialogue.say() == [ack(1, 7)]
    assert dialogue.connection.next_deadline == deadline + 1.0
    dialogue.connection.handle_timeouts(deadline + 1.0)
    assert dialogue.say() == [ack(3, 7)]
    assert dialogue.connection.next_deadline == float("inf")
    dialogue.opened[1].acknowledge()
    dialogue.connection.handle_timeouts(deadline + 1000.0)
    assert dialogue.say() == []


@pytest.mark.conformance(30, 81)
def test_a_stream_acknowledged_in_time_still_counts_until_it_is_taken() -> None:
    dialogue = Dialogue()
    dialogue.hear(*[syn(1 + 2 * number) for number in range(BACKLOG)])
    dialogue.connection.handle_timeouts(60.0)
    assert len(dialogue.say()) == BACKLOG
    assert dialogue.hear(syn(1001), now=60.0) == []
    assert dialogue.say() == [rst(1001)]
    dialogue.opened[1].acknowledge()
    assert dialogue.hear(syn(1003), now=60.0) == [("opened", 1003)]


@pytest.mark.conformance(30)
def test_a_stream_that_is_taken_or_gone_has_no_deadline() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.hear(syn(3), rst(3))
    dialogue.hear(syn(5))
    dialogue.opened[5].reset()
    assert dialogue.connection.next_deadline == float("inf")


@pytest.mark.conformance(24, 39, 73)
def test_waiting_for_a_slot_makes_sense_until_the_peer_goes_away_or_the_ids_are_used() -> None:
    waiting, theirs, used = (Dialogue(Role.CLIENT) for _ in range(3))
    fill_backlog(waiting)
    waiting.connection.go_away()
    assert waiting.connection.may_ever_open
    theirs.hear(go_away(0))
    used.connection._next_id = 2**32 - 1  # Nothing public gets there in a test's time.
    assert used.connection.may_ever_open
    used.open()
    for dialogue in (theirs, used):
        assert not dialogue.connection.may_ever_open
