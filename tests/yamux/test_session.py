"""Pings, GoAway, and the end of the connection."""

import pytest

from otun.errors import LocalProtocolError
from otun.yamux import Role

from .dialogue import Dialogue
from .wire import ACK, FIN, KIB, MAX_UINT32, MIB, SYN, Frame, ack, data, fin, go_away, ping, pong, rst, syn, update


@pytest.mark.parametrize("value", [0, 1, 0x01020304, MAX_UINT32])
def test_a_ping_is_answered_with_its_value_on_id_0(value: int) -> None:
    dialogue = Dialogue()
    assert dialogue.hear(ping(value)) == []
    assert dialogue.say() == [pong(value)]
    dialogue.hear(ping(value), ping(value))
    assert dialogue.say() == [pong(value), pong(value)]


def test_no_pong_is_sent_that_nobody_asked_for() -> None:
    dialogue = Dialogue()
    dialogue.hear(pong(1), Frame(2, 0, 0, 1), go_away(0))
    assert dialogue.say() == []


@pytest.mark.conformance(68)
def test_pongs_are_passed_on_whatever_their_order_or_value() -> None:
    dialogue = Dialogue()
    first, second = dialogue.connection.ping(), dialogue.connection.ping()
    assert dialogue.say() == [ping(first), ping(second)]
    assert first != second
    values = [second, first, first, 12345, MAX_UINT32]
    assert dialogue.hear(*[pong(value) for value in values]) == [("pong", value) for value in values]
    assert dialogue.say() == []


@pytest.mark.conformance(69)
def test_a_late_pong_is_told_from_that_of_the_next_ping() -> None:
    dialogue = Dialogue()
    late = dialogue.connection.ping()
    dialogue.say()
    timely = dialogue.connection.ping()
    assert dialogue.say() == [ping(timely)]
    assert dialogue.hear(pong(late), pong(timely)) == [("pong", late), ("pong", timely)]
    assert late != timely


@pytest.mark.conformance(70)
def test_pongs_are_queued_however_much_data_waits() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(update(1, 16 * MIB))
    while allowance := stream.send_allowance():
        stream.send_data(bytes(allowance))
    assert dialogue.hear(ping(7), syn(3), data(3, b"read"), ping(8)) == [("opened", 3), ("data", 3, b"read")]
    assert dialogue.say()[:2] == [pong(7), pong(8)]


@pytest.mark.conformance(83)
def test_of_a_flood_of_pings_at_most_32_are_kept() -> None:
    dialogue = Dialogue()
    dialogue.hear(*[ping(value) for value in range(1000)])
    pongs = dialogue.say()
    assert len(pongs) == 32
    assert {*pongs} <= {pong(value) for value in range(1000)}
    dialogue.hear(*[ping(value) for value in range(32)])
    assert dialogue.say() == [pong(value) for value in range(32)]


@pytest.mark.conformance(73)
def test_after_a_go_away_0_our_opens_fail_and_everything_else_goes_on() -> None:
    dialogue = Dialogue(Role.CLIENT)
    stream = dialogue.established()
    assert dialogue.hear(go_away(0)) == [("went_away", 0)]
    with pytest.raises(LocalProtocolError):
        dialogue.open()
    stream.send_data(b"to 1")
    assert dialogue.say() == [data(1, b"to 1")]
    assert dialogue.hear(data(1, b"from 1"), syn(2), data(2, b"from 2")) == [
        ("data", 1, b"from 1"),
        ("opened", 2),
        ("data", 2, b"from 2"),
    ]
    dialogue.opened[2].acknowledge()
    dialogue.opened[2].send_data(b"to 2")
    dialogue.opened[2].send_eof()
    assert dialogue.say() == [ack(2), data(2, b"to 2"), fin(2)]
    assert dialogue.hear(fin(1)) == [("ended", 1)]


def test_our_go_away_may_leave_room_for_those_who_have_not_heard_of_it() -> None:
    dialogue = Dialogue()
    dialogue.connection.go_away(refuses_streams=False)
    assert dialogue.say() == [go_away(0)]
    assert dialogue.hear(syn(1)) == [("opened", 1)]
    dialogue.connection.go_away()
    dialogue.connection.go_away(refuses_streams=False)
    assert dialogue.hear(syn(3)) == []
    assert dialogue.say() == [rst(3)]


@pytest.mark.conformance(73)
def test_a_go_away_0_leaves_an_open_that_is_under_way() -> None:
    dialogue = Dialogue(Role.CLIENT)
    stream = dialogue.open()
    dialogue.hear(go_away(0), ack(1, 10))
    stream.send_data(b"fine")
    assert dialogue.say() == [syn(1), data(1, b"fine")]


@pytest.mark.conformance(74)
@pytest.mark.parametrize("code", [1, 2, 3, MAX_UINT32])
def test_any_other_go_away_is_passed_on_with_its_code(code: int) -> None:
    dialogue = Dialogue()
    assert dialogue.hear(go_away(code)) == [("went_away", code)]
    with pytest.raises(LocalProtocolError):
        dialogue.open()


@pytest.mark.conformance(74)
def test_when_the_owner_ends_the_session_at_a_go_away_what_stands_behind_it_is_not_applied() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.reactions["went_away"] = lambda _stream: dialogue.connection.connection_lost()
    calls = dialogue.hear(go_away(2), syn(3), data(3, b"x"), data(1, b"x"), ping(1))
    assert calls == [("went_away", 2), ("lost", 1)]
    assert dialogue.connection.streams == {}


@pytest.mark.conformance(75)
def test_after_our_go_away_a_new_stream_is_reset_and_drained_and_old_ones_go_on() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.connection.go_away()
    assert dialogue.say() == [go_away(0)]
    assert dialogue.hear(syn(3), data(3, b"lost"), data(1, b"kept"), data(5, b"lost", SYN | FIN)) == [
        ("data", 1, b"kept")
    ]
    assert dialogue.say() == [rst(3), rst(5)]
    stream.send_data(b"answer")
    assert dialogue.say() == [data(1, b"answer")]


def test_after_our_go_away_we_still_open_streams() -> None:
    dialogue = Dialogue()
    dialogue.connection.go_away()
    dialogue.say()
    dialogue.open().send_data(b"question")
    assert dialogue.say()[-1] == data(2, b"question")


@pytest.mark.conformance(75)
@pytest.mark.parametrize("code", [0, 1, 2])
def test_go_away_is_sent_once_behind_the_data(code: int) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(b"before")
    dialogue.connection.go_away(code)
    dialogue.connection.go_away(code)
    assert dialogue.say() == [data(1, b"before"), go_away(code)]
    dialogue.connection.go_away(code)
    assert dialogue.say() == []


def test_a_violation_after_our_go_away_is_reported_all_the_same() -> None:
    dialogue = Dialogue()
    dialogue.connection.go_away()
    assert dialogue.is_violated_by(Frame(9, 0, 0, 0))


@pytest.mark.conformance(77, 78)
def test_the_connections_end_is_told_to_every_stream_once_and_behind_what_it_received() -> None:
    dialogue = Dialogue()
    ours = dialogue.established()
    dialogue.hear(syn(1), data(1, b"all"), fin(1), syn(3), data(3, b"part"), syn(5), rst(5))
    dialogue.hear(data(7, b"x", SYN | ACK))
    dialogue.opened[7].close(0.0)
    dialogue.connection.connection_lost()
    dialogue.connection.connection_lost()
    assert [call for call in dialogue.calls if call[0] == "lost"] == [(("lost"), i) for i in (ours.id, 1, 3, 7)]
    assert [call for call in dialogue.calls if call[1:2] == (1,)] == [
        ("opened", 1),
        ("data", 1, b"all"),
        ("ended", 1),
        ("lost", 1),
    ]
    assert [call[0] for call in dialogue.calls if call[1:2] == (3,)] == ["opened", "data", "lost"]


@pytest.mark.conformance(78)
def test_after_the_connections_end_nothing_is_due_and_nobody_is_woken() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(update(1, 16 * MIB), syn(3))
    while allowance := stream.send_allowance():
        stream.send_data(bytes(min(allowance, 64 * KIB)))
    dialogue.accepted(5).close(0.0)
    dialogue.connection.connection_lost()
    dialogue.calls.clear()
    dialogue.say()
    dialogue.connection.refill()
    dialogue.connection.handle_timeouts(1e9)
    assert dialogue.calls == []
    assert dialogue.say() == []
    assert dialogue.connection.next_deadline == float("inf")
    assert dialogue.connection.streams == {}
