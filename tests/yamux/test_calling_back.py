"""Handlers may call back into the connection and its streams from within any call."""

from collections.abc import Callable

import pytest

from otun.yamux import Role, YamuxStream

from .dialogue import Dialogue
from .wire import ACK, FIN, RST, SYN, WINDOW, Frame, ack, data, data_header, fin, ping, pong, rst, syn, update


@pytest.mark.parametrize(
    "opening",
    [
        [syn(1)],
        [syn(1), data(1, b"late"), fin(1)],
        [data(1, b"a body", SYN)],
        [data(1, b"a body", SYN | FIN)],
        [update(1, 5, SYN | FIN)],
        [data(1, b"", SYN | FIN)],
        [data_header(1, 10, SYN), b"12345", b"67890"],
    ],
)
def test_a_stream_can_be_reset_as_soon_as_it_is_opened(opening: list[Frame | bytes]) -> None:
    dialogue = Dialogue()
    dialogue.reactions["opened"] = YamuxStream.reset
    for piece in [*opening, ping(1)]:
        dialogue.hear(piece)
    assert dialogue.calls == [("opened", 1)]
    assert {*dialogue.say()} == {pong(1), rst(1)}
    assert dialogue.connection.streams == {}


@pytest.mark.parametrize(
    "opening", [syn(1), data(1, b"body", SYN), data(1, b"body", SYN | FIN), update(1, 0, SYN | FIN)]
)
def test_a_stream_can_be_closed_as_soon_as_it_is_opened(opening: Frame) -> None:
    dialogue = Dialogue()

    def close(stream: YamuxStream) -> None:
        stream.acknowledge()
        stream.close(0.0)

    dialogue.reactions["opened"] = close
    dialogue.hear(opening, ping(1))
    said = dialogue.say()
    assert [frame for frame in said if frame.id == 1][:2] == [ack(1), fin(1)]
    assert (rst(1) in said) is bool(opening.body)
    assert ("data", 1, opening.body) not in dialogue.calls


@pytest.mark.parametrize("last", [data(1, b"body"), data(1, b"body", FIN)])
def test_a_stream_can_be_reset_from_within_its_data(last: Frame) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.reactions["data"] = YamuxStream.reset
    wire = last.encode()
    for place in range(len(wire)):
        dialogue.hear(wire[place : place + 1])
    dialogue.hear(ping(1))
    assert dialogue.calls == [("data", 1, b"b")]
    assert {*dialogue.say()} == {pong(1), rst(1)}


@pytest.mark.parametrize("flags", [FIN, RST, FIN | RST, 0])
@pytest.mark.parametrize("react", [YamuxStream.reset, YamuxStream.send_eof, lambda stream: stream.close(0.0)])
def test_a_waiting_stream_can_end_when_its_window_opens(flags: int, react: Callable[[YamuxStream], object]) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(bytes(WINDOW))
    assert stream.send_allowance() == 0
    dialogue.wire()
    dialogue.reactions["window_opened"] = react
    dialogue.hear(update(1, 5, flags), ping(1))
    assert dialogue.say()[0] == pong(1)
    assert dialogue.calls.count(("ended", 1)) <= 1


@pytest.mark.parametrize("answer", [ack(1), fin(1), rst(1), data(1, b"body", ACK | FIN), data(1, b"body")])
def test_a_stream_can_be_reset_when_its_own_slot_is_freed(answer: Frame) -> None:
    dialogue = Dialogue(Role.CLIENT)
    dialogue.open()
    dialogue.say()
    dialogue.reactions["slot_freed"] = YamuxStream.reset
    dialogue.hear(answer, ping(1))
    assert dialogue.calls == [("slot_freed",)]
    assert dialogue.connection.streams == {}
    assert dialogue.say()[0] == pong(1)


def test_the_next_stream_can_be_opened_when_a_slot_is_freed() -> None:
    dialogue = Dialogue(Role.CLIENT)
    for _ in range(256):
        dialogue.open()
    dialogue.reactions["slot_freed"] = lambda _stream: dialogue.connection.can_open and dialogue.open()
    dialogue.say()
    dialogue.hear(ack(1), rst(3), data(5, b"x", FIN))
    assert [frame.flags for frame in dialogue.say()] == [SYN] * 3
    assert not dialogue.connection.can_open


def test_a_stream_can_be_finished_and_answered_from_within_its_end() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)

    def answer(stream: YamuxStream) -> None:
        stream.send_data(b"answer")
        stream.close(0.0)

    dialogue.reactions["ended"] = answer
    assert dialogue.hear(data(1, b"question", FIN)) == [("data", 1, b"question"), ("ended", 1)]
    assert dialogue.say() == [data(1, b"answer"), fin(1)]
    assert dialogue.connection.streams == {}


@pytest.mark.parametrize(
    "frame", [data(1, b"body", FIN), update(1, 5, FIN), rst(1), fin(1), syn(3), data(3, b"x", SYN | FIN)]
)
def test_the_connection_can_be_given_up_from_within_any_call(frame: Frame) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(bytes(WINDOW))
    assert stream.send_allowance() == 0
    for name in ("data", "ended", "window_opened", "reset", "opened"):
        dialogue.reactions[name] = lambda _stream: dialogue.connection.connection_lost()
    calls = dialogue.hear(frame)
    assert dialogue.connection.streams == {}
    assert [call for call in calls if call[0] == "lost"] == calls[1:], "something came behind the end"


def test_everybody_can_leave_when_the_connection_is_lost() -> None:
    dialogue = Dialogue()
    for stream_id in (1, 3, 5):
        dialogue.accepted(stream_id)
    dialogue.open()

    def leave(stream: YamuxStream) -> None:
        stream.reset()
        stream.close(0.0)
        stream.consume(10)

    dialogue.reactions["lost"] = leave
    dialogue.connection.connection_lost()
    assert [call[0] for call in dialogue.calls if call[0] != "slot_freed"] == ["lost"] * 4
    assert dialogue.connection.streams == {}
    assert dialogue.connection.next_deadline == float("inf")
