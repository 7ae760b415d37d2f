"""How streams begin."""

import pytest

from otun.errors import LocalProtocolError
from otun.yamux import Role

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
    ping,
    pong,
    rst,
    syn,
    update,
)


@pytest.mark.conformance(15)
@pytest.mark.parametrize("window", [WINDOW, WINDOW + 1, MIB, 16 * MIB, MAX_UINT32])
def test_open_sends_syn_with_the_window_beyond_256_kib(window: int) -> None:
    dialogue = Dialogue(Role.CLIENT, receive_window=window)
    dialogue.open()
    assert dialogue.say() == [syn(1, window - WINDOW)]
    assert dialogue.say() == []


@pytest.mark.conformance(15)
def test_the_peer_may_use_the_window_given_with_our_syn() -> None:
    dialogue = Dialogue(Role.CLIENT, receive_window=WINDOW + 10)
    dialogue.open()
    dialogue.say()
    dialogue.hear(data(1, bytes(WINDOW + 10)))
    assert dialogue.is_violated_by(data(1, b"!"))


@pytest.mark.conformance(16)
@pytest.mark.parametrize(("role", "ids"), [(Role.CLIENT, [1, 3, 5, 7]), (Role.SERVER, [2, 4, 6, 8])])
def test_our_ids_count_in_twos(role: Role, ids: list[int]) -> None:
    dialogue = Dialogue(role)
    assert [dialogue.open().id for _ in ids] == ids
    assert dialogue.say() == [syn(stream_id) for stream_id in ids]


@pytest.mark.conformance(16)
def test_inbound_ids_need_no_order() -> None:
    dialogue = Dialogue(Role.SERVER)
    assert dialogue.hear(syn(9), syn(3), syn(MAX_UINT32)) == [("opened", 9), ("opened", 3), ("opened", MAX_UINT32)]


@pytest.mark.conformance(17)
def test_a_write_before_the_ack_is_sent_at_once() -> None:
    dialogue = Dialogue(Role.CLIENT)
    stream = dialogue.open()
    assert stream.send_allowance() > 0
    stream.send_data(b"early")
    stream.send_eof()
    assert [*dialogue.say()] == [syn(1), data(1, b"early"), fin(1)]


@pytest.mark.conformance(18)
@pytest.mark.parametrize("window", [WINDOW, MIB])
def test_accept_sends_exactly_one_ack(window: int) -> None:
    dialogue = Dialogue(receive_window=window)
    dialogue.hear(syn(1))
    assert dialogue.say() == []
    dialogue.opened[1].acknowledge()
    dialogue.opened[1].acknowledge()
    assert dialogue.say() == [ack(1, window - WINDOW)]
    dialogue.opened[1].acknowledge()
    assert dialogue.say() == []


def test_a_stream_of_ours_is_never_acknowledged_by_us() -> None:
    dialogue = Dialogue(Role.CLIENT)
    dialogue.established().acknowledge()
    assert dialogue.say() == []


@pytest.mark.conformance(19)
def test_data_with_ack_and_fin_gives_the_data_and_then_the_end() -> None:
    dialogue = Dialogue(Role.CLIENT)
    dialogue.open()
    assert dialogue.hear(data(1, b"all", ACK | FIN)) == [("slot_freed",), ("data", 1, b"all"), ("ended", 1)]


@pytest.mark.conformance(20)
def test_the_window_on_syn_is_credited() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1, 1000))
    assert dialogue.opened[1].send_credit == WINDOW + 1000


@pytest.mark.conformance(21)
def test_the_window_on_ack_is_credited() -> None:
    dialogue = Dialogue(Role.CLIENT)
    stream = dialogue.open()
    dialogue.hear(ack(1, 1000))
    assert stream.send_credit == WINDOW + 1000


@pytest.mark.conformance(27)
def test_an_open_answered_by_rst_raises_and_leaves_no_entry() -> None:
    dialogue = Dialogue(Role.CLIENT)
    stream = dialogue.open()
    assert dialogue.hear(rst(1)) == [("slot_freed",), ("reset", 1, 0)]
    assert dialogue.connection.streams == {}
    dialogue.say()
    with pytest.raises(LocalProtocolError):
        stream.send_data(b"too late")
    stream.send_eof()
    stream.close(0.0)
    stream.reset()
    assert dialogue.say() == []


@pytest.mark.conformance(31)
@pytest.mark.parametrize("opening", [update(1, 0, SYN | FIN), data(1, b"", SYN | FIN)])
def test_syn_with_fin_gives_the_end_and_is_writable(opening: Frame) -> None:
    dialogue = Dialogue()
    assert dialogue.hear(opening) == [("opened", 1), ("ended", 1)]
    stream = dialogue.opened[1]
    stream.acknowledge()
    assert stream.send_allowance() > 0
    stream.send_data(b"answer")
    stream.send_eof()
    assert dialogue.say() == [ack(1), data(1, b"answer"), fin(1)]
    assert dialogue.connection.streams == {}


@pytest.mark.conformance(32, 88)
@pytest.mark.parametrize("flags", [SYN | RST, SYN | ACK | FIN | RST])
@pytest.mark.parametrize("body", [None, b"a body"])
def test_syn_with_rst_opens_nothing_and_is_not_answered(flags: int, body: bytes | None) -> None:
    dialogue = Dialogue()
    assert dialogue.hear(update(1, 3, flags) if body is None else data(1, body, flags)) == []
    assert dialogue.connection.streams == {}
    assert dialogue.connection.next_deadline == float("inf")
    assert dialogue.say() == []
    assert dialogue.hear(ping(4)) == []
    assert dialogue.say() == [pong(4)]


@pytest.mark.conformance(33)
def test_a_stream_that_ends_before_accept_gives_its_data_and_end_and_gets_one_ack() -> None:
    dialogue = Dialogue()
    assert dialogue.hear(syn(1), data(1, b"all"), fin(1)) == [("opened", 1), ("data", 1, b"all"), ("ended", 1)]
    assert dialogue.say() == []
    dialogue.opened[1].acknowledge()
    assert dialogue.say() == [ack(1)]
    dialogue.opened[1].send_eof()
    assert dialogue.say() == [fin(1)]


@pytest.mark.conformance(34)
def test_a_reset_before_accept_takes_the_stream_away_without_an_ack() -> None:
    dialogue = Dialogue()
    assert dialogue.hear(syn(1), data(1, b"x"), rst(1)) == [("opened", 1), ("data", 1, b"x"), ("reset", 1, 0)]
    dialogue.opened[1].acknowledge()
    assert dialogue.connection.streams == {}
    assert dialogue.say() == []


@pytest.mark.conformance(36)
@pytest.mark.parametrize(("role", "stream_id"), [(Role.SERVER, 2), (Role.SERVER, 1000), (Role.CLIENT, 1)])
def test_a_syn_of_our_own_parity_ends_the_session(role: Role, stream_id: int) -> None:
    assert Dialogue(role).is_violated_by(syn(stream_id))
    assert Dialogue(role).is_violated_by(data(stream_id, b"x", SYN))
    assert not Dialogue(role).is_violated_by(syn(stream_id + 1))


@pytest.mark.conformance(37)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("opening", [syn(0), data(0, b"", SYN), update(0, 0, SYN | FIN), data_header(0, KIB, SYN)])
def test_a_syn_on_id_0_ends_the_session(role: Role, opening: Frame) -> None:
    assert Dialogue(role).is_violated_by(opening)


@pytest.mark.conformance(38)
@pytest.mark.parametrize("again", [syn(1), data(1, b"x", SYN), update(1, 0, SYN | FIN)])
def test_a_syn_on_a_live_id_ends_the_session(again: Frame) -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1))
    assert dialogue.is_violated_by(again)
    half_closed = Dialogue()
    half_closed.accepted(1).close(0.0)
    assert half_closed.is_violated_by(again)


@pytest.mark.conformance(39)
@pytest.mark.parametrize(("role", "last"), [(Role.CLIENT, MAX_UINT32), (Role.SERVER, MAX_UINT32 - 1)])
def test_when_all_ids_are_used_open_raises_and_live_streams_go_on(role: Role, last: int) -> None:
    dialogue = Dialogue(role)
    first = dialogue.established()
    dialogue.connection._next_id = last  # Nothing public gets there in a test's time.
    assert dialogue.open().id == last
    with pytest.raises(LocalProtocolError):
        dialogue.open()
    assert dialogue.say() == [syn(last)]
    first.send_data(b"still here")
    assert dialogue.say() == [data(first.id, b"still here")]
    assert dialogue.hear(data(first.id, b"here, too")) == [("data", first.id, b"here, too")]
