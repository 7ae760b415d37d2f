"""What leaves first, and when it is said that something wants to leave."""

import itertools
from collections.abc import Callable

import pytest

from otun.errors import RemoteProtocolError
from otun.yamux import Role

from .dialogue import Dialogue
from .wire import ACK, FIN, KIB, SYN, WINDOW, Frame, ack, data, fin, go_away, ping, pong, rst, syn, update


@pytest.mark.conformance(72)
def test_a_ping_goes_ahead_of_data() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).send_data(bytes(64 * KIB))
    value = dialogue.connection.ping()
    assert dialogue.say() == [ping(value), data(1, bytes(64 * KIB))]


@pytest.mark.conformance(70, 72)
def test_all_control_frames_go_ahead_of_data() -> None:
    dialogue = Dialogue()
    sender, reader = dialogue.accepted(1), dialogue.accepted(3)
    sender.send_data(b"first")
    dialogue.hear(data(3, bytes(WINDOW)), syn(5), ping(9))
    reader.consume(WINDOW)
    dialogue.opened[5].acknowledge()
    ours = dialogue.open()
    sender.send_data(b"second")
    value = dialogue.connection.ping()
    said = dialogue.say()
    assert said[-2:] == [data(1, b"first"), data(1, b"second")]
    assert said[0] == ping(value)
    assert {*said[1:-2]} == {pong(9), update(3, WINDOW), ack(5), syn(ours.id)}


def test_a_refusal_goes_ahead_of_data() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).send_data(b"data")
    dialogue.connection.go_away()
    dialogue.hear(syn(3))
    assert dialogue.say() == [rst(3), data(1, b"data"), go_away(0)]


@pytest.mark.conformance(17)
@pytest.mark.parametrize("end", [fin, rst])
def test_a_streams_own_frames_keep_their_order(end: Callable[[int], Frame]) -> None:
    dialogue = Dialogue(Role.CLIENT, receive_window=WINDOW + 1)
    streams = [dialogue.open() for _ in range(3)]
    for text in (b"one", b"two"):
        for stream in streams:
            stream.send_data(text)
    for stream in streams:
        stream.send_eof() if end is fin else stream.reset()
    said = dialogue.say()
    for stream_id in (1, 3, 5):
        own = [frame for frame in said if frame.id == stream_id]
        assert own == [syn(stream_id, 1), data(stream_id, b"one"), data(stream_id, b"two"), end(stream_id)]


@pytest.mark.conformance(18)
def test_the_ack_goes_ahead_of_all_else_on_its_stream() -> None:
    dialogue = Dialogue(receive_window=WINDOW + 1)
    dialogue.hear(syn(1))
    stream = dialogue.opened[1]
    stream.send_data(b"before")
    stream.acknowledge()
    stream.close(0.0)
    assert dialogue.say() == [ack(1, 1), data(1, b"before"), fin(1)]


@pytest.mark.conformance(18, 55)
def test_an_ack_is_not_lost_when_the_stream_ends_before_it_leaves() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1), fin(1))
    stream = dialogue.opened[1]
    stream.acknowledge()
    stream.send_eof()
    assert dialogue.say() == [ack(1), fin(1)]


def test_a_syn_is_not_lost_when_the_stream_is_reset_before_it_leaves() -> None:
    dialogue = Dialogue(Role.CLIENT)
    dialogue.open().reset()
    assert dialogue.say() in ([syn(1), rst(1)], [])


@pytest.mark.conformance(42)
def test_an_ack_and_an_update_that_wait_together_are_one_frame() -> None:
    dialogue = Dialogue(receive_window=WINDOW + 1000)
    dialogue.hear(syn(1), data(1, bytes(WINDOW)))
    stream = dialogue.opened[1]
    stream.acknowledge()
    stream.consume(WINDOW)
    assert dialogue.say() == [ack(1, WINDOW + 1000)]


def test_an_update_of_a_stream_that_is_over_is_dropped() -> None:
    dialogue = Dialogue()
    for stream_id in (1, 3):
        stream = dialogue.accepted(stream_id)
        dialogue.hear(data(stream_id, bytes(WINDOW)))
        stream.consume(WINDOW)
        stream.reset() if stream_id == 1 else dialogue.hear(rst(stream_id))
        assert dialogue.say() == ([rst(1)] if stream_id == 1 else [])


@pytest.mark.conformance(6)
def test_the_go_away_of_a_violation_goes_ahead_of_everything_but_pings() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(b"data")
    dialogue.hear(ping(1))
    with pytest.raises(RemoteProtocolError):
        dialogue.hear(syn(2))
    assert dialogue.say()[0] == go_away(1)


def test_what_was_taken_is_forgotten() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1).send_data(b"data")
    dialogue.connection.ping()
    assert dialogue.wire() != b""
    assert dialogue.wire() == b""
    assert dialogue.connection.queued_bytes == 0


def acknowledge(dialogue: Dialogue) -> None:
    dialogue.hear(syn(99))
    dialogue.opened[99].acknowledge()


def consume(dialogue: Dialogue) -> None:
    dialogue.hear(data(3, bytes(WINDOW)))
    dialogue.opened[3].consume(WINDOW)


def violate(dialogue: Dialogue) -> None:
    with pytest.raises(RemoteProtocolError):
        dialogue.hear(syn(0))


CAUSES: list[Callable[[Dialogue], object]] = [
    lambda dialogue: dialogue.connection.ping(),
    lambda dialogue: dialogue.hear(ping(1)),
    lambda dialogue: dialogue.opened[1].send_data(b"data"),
    acknowledge,
    consume,
    lambda dialogue: dialogue.open(),
    lambda dialogue: dialogue.opened[1].send_eof(),
    lambda dialogue: dialogue.opened[3].reset(),
    lambda dialogue: dialogue.hear(fin(1), data(1, b"late")),
    lambda dialogue: dialogue.connection.go_away(),
    violate,
]


@pytest.mark.parametrize("cause", CAUSES)
def test_output_is_announced_once_until_it_is_taken(cause: Callable[[Dialogue], object]) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.accepted(3)
    dialogue.announcements = 0
    cause(dialogue)
    assert dialogue.announcements == 1
    dialogue.connection.ping()
    assert dialogue.announcements == 1
    assert dialogue.say() != []
    dialogue.connection.ping()
    assert dialogue.announcements == 2


def test_a_refusal_is_announced() -> None:
    dialogue = Dialogue()
    dialogue.connection.go_away()
    dialogue.say()
    dialogue.announcements = 0
    dialogue.hear(syn(3))
    assert dialogue.announcements == 1


def test_a_timeout_is_announced() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1))
    dialogue.connection.handle_timeouts(1e9)
    assert dialogue.announcements == 1


def test_nothing_is_announced_when_nothing_wants_to_leave() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1), data(1, b"x", FIN), data(3, b"y", ACK | FIN), data(5, b"z", SYN), rst(5), pong(1))
    dialogue.opened[1].consume(1)
    assert dialogue.announcements == 0
    assert dialogue.say() == []


@pytest.mark.parametrize("order", [*itertools.permutations((1, 3, 5))])
def test_data_of_several_streams_leaves_in_the_order_of_sending(order: tuple[int, ...]) -> None:
    dialogue = Dialogue()
    for stream_id in (1, 3, 5):
        dialogue.accepted(stream_id)
    for stream_id in order:
        dialogue.opened[stream_id].send_data(b"x")
    assert [frame.id for frame in dialogue.say()] == [*order]
