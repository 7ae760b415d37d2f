"""Windows: what may be sent, what must be granted, and who waits for whom."""

import pytest

from otun.errors import LocalProtocolError
from otun.yamux import Role

from .dialogue import Dialogue
from .wire import (
    FIN,
    KIB,
    MAX_UINT32,
    MIB,
    WINDOW,
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


def exhaust(dialogue: Dialogue, stream_id: int) -> None:
    """Use up the peer's window, and find that out."""
    stream = dialogue.connection.streams[stream_id]
    while allowance := stream.send_allowance():
        stream.send_data(bytes(allowance))
        dialogue.wire()
        dialogue.connection.refill()


@pytest.mark.conformance(40)
def test_without_credit_a_writer_waits_until_some_comes() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    exhaust(dialogue, 1)
    assert stream.send_allowance() == 0
    assert dialogue.hear(update(1, 3)) == [("window_opened", 1)]
    assert stream.send_allowance() == 3
    stream.send_data(b"abc")
    assert stream.send_allowance() == 0
    assert dialogue.say() == [data(1, b"abc")]


@pytest.mark.conformance(40)
@pytest.mark.parametrize("delta", [0, 1, 1000, 16 * MIB])
def test_a_writer_sends_all_of_the_window_and_not_a_byte_more(delta: int) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.hear(update(1, delta))
    stream = dialogue.opened[1]
    sent = 0
    while allowance := stream.send_allowance():
        stream.send_data(bytes(allowance))
        sent += sum(len(frame.body) for frame in dialogue.say())
    assert sent == WINDOW + delta


@pytest.mark.conformance(40)
def test_the_window_is_debited_when_data_is_queued() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    stream.send_data(bytes(WINDOW - 1))
    assert stream.send_allowance() == 1
    stream.send_data(b"!")
    assert stream.send_allowance() == 0


@pytest.mark.conformance(40)
def test_nobody_is_woken_who_did_not_wait_or_has_finished() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.hear(update(1, 3)) == []
    stream = dialogue.accepted(3)
    exhaust(dialogue, 3)
    stream.send_eof()
    assert dialogue.hear(update(3, 3)) == []
    assert dialogue.hear(update(3, 0)) == []


@pytest.mark.conformance(41)
@pytest.mark.parametrize("sizes", [[WINDOW], [1, WINDOW - 1], [64 * KIB] * 4])
def test_262144_bytes_are_accepted_and_the_next_is_a_violation(sizes: list[int]) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    for size in sizes:
        dialogue.hear(data(1, bytes(size)))
    assert sum(len(call[2]) for call in dialogue.calls) == 262144
    assert dialogue.hear(data(1)) == []
    assert dialogue.is_violated_by(data_header(1, 1))


@pytest.mark.conformance(41)
@pytest.mark.parametrize("window", [WINDOW, MIB])
def test_before_the_ack_the_peer_has_256_kib_and_with_it_the_whole_window(window: int) -> None:
    dialogue = Dialogue(receive_window=window)
    dialogue.hear(syn(1), syn(3), data(1, bytes(WINDOW)), data(3, bytes(WINDOW)))
    dialogue.opened[1].acknowledge()
    assert dialogue.say() == [ack(1, window - WINDOW)]
    dialogue.hear(data(1, bytes(window - WINDOW)))
    assert dialogue.is_violated_by(data_header(3, 1))


@pytest.mark.conformance(41, 42)
def test_granted_anew_is_what_was_consumed_and_no_more() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.hear(data(1, bytes(WINDOW)))
    dialogue.opened[1].consume(200_000)
    assert dialogue.say() == [update(1, 200_000)]
    dialogue.hear(data(1, bytes(200_000)))
    assert dialogue.is_violated_by(data_header(1, 1))


@pytest.mark.conformance(42)
@pytest.mark.parametrize("window", [WINDOW, WINDOW + 2, MIB, 16 * MIB])
def test_an_update_is_sent_when_half_the_window_is_consumed(window: int) -> None:
    dialogue = Dialogue(receive_window=window)
    stream = dialogue.accepted(1)
    half = window // 2
    dialogue.hear(data(1, bytes(window)))
    stream.consume(half - 1)
    assert dialogue.say() == []
    stream.consume(1)
    assert dialogue.say() == [update(1, half)]
    stream.consume(half - 1)
    assert dialogue.say() == []
    stream.consume(1)
    assert dialogue.say() == [update(1, half)]


@pytest.mark.conformance(42)
def test_with_256_kib_131071_bytes_give_nothing_and_131072_an_update() -> None:
    dialogue = Dialogue()
    for stream_id, consumed, said in [(1, 131071, []), (3, 131072, [update(3, 131072)])]:
        dialogue.accepted(stream_id)
        dialogue.hear(data(stream_id, bytes(consumed)))
        dialogue.opened[stream_id].consume(consumed)
        assert dialogue.say() == said


@pytest.mark.conformance(42)
def test_many_small_reads_make_few_updates() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    updates = []
    for _ in range(1024):
        dialogue.hear(data(1, bytes(KIB)))
        stream.consume(KIB)
        updates += dialogue.say()
    assert updates == [update(1, 128 * KIB)] * 8


@pytest.mark.conformance(42)
def test_updates_that_cannot_leave_are_merged_into_one() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    for _ in range(2):
        dialogue.hear(data(1, bytes(128 * KIB)))
        stream.consume(128 * KIB)
    assert dialogue.say() == [update(1, 256 * KIB)]


@pytest.mark.conformance(42)
def test_nothing_is_granted_to_a_peer_that_has_finished() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    dialogue.hear(data(1, bytes(WINDOW), FIN))
    stream.consume(WINDOW)
    assert dialogue.say() == []


@pytest.mark.conformance(43)
def test_after_the_peers_fin_an_update_resumes_our_writer() -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    exhaust(dialogue, 1)
    assert dialogue.hear(fin(1)) == [("ended", 1)]
    assert dialogue.hear(update(1, 5)) == [("window_opened", 1)]
    stream.send_data(b"hello")
    assert dialogue.say() == [data(1, b"hello")]


@pytest.mark.conformance(44)
@pytest.mark.parametrize("end", ["reset", "peer resets", "both finish"])
def test_an_update_on_a_closed_id_is_ignored(end: str) -> None:
    dialogue = Dialogue()
    stream = dialogue.accepted(1)
    exhaust(dialogue, 1)
    if end == "reset":
        stream.reset()
    elif end == "peer resets":
        dialogue.hear(rst(1))
    else:
        stream.send_eof()
        dialogue.hear(fin(1))
    dialogue.say()
    assert dialogue.hear(update(1, 10), update(1, MAX_UINT32), update(1, MAX_UINT32)) == []
    assert dialogue.say() == []


@pytest.mark.conformance(45)
@pytest.mark.parametrize("delta", [MAX_UINT32 - WINDOW + 1, MAX_UINT32])
def test_credit_above_32_bits_ends_the_session(delta: int) -> None:
    in_one = Dialogue()
    in_one.accepted(1)
    assert in_one.is_violated_by(update(1, delta))
    in_two = Dialogue()
    in_two.accepted(1)
    assert in_two.is_violated_by(update(1, delta // 2), update(1, delta - delta // 2))
    assert Dialogue().is_violated_by(syn(1, delta))
    ours = Dialogue(Role.CLIENT)
    ours.open()
    assert ours.is_violated_by(ack(1, delta))


@pytest.mark.conformance(45)
def test_credit_of_exactly_32_bits_is_good() -> None:
    dialogue = Dialogue()
    dialogue.hear(syn(1, MAX_UINT32 - WINDOW))
    stream = dialogue.opened[1]
    assert stream.send_credit == MAX_UINT32
    stream.send_data(b"123")
    dialogue.hear(update(1, 3))
    assert dialogue.is_violated_by(update(1, 1))


@pytest.mark.conformance(49)
def test_a_stream_nobody_reads_does_not_hold_up_another() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    reader = dialogue.accepted(3)
    dialogue.hear(data(1, bytes(WINDOW)))
    for _ in range(40):
        assert dialogue.hear(data(3, bytes(64 * KIB))) == [("data", 3, bytes(64 * KIB))]
        reader.consume(64 * KIB)
        dialogue.say()


@pytest.mark.conformance(49)
def test_a_stream_without_credit_does_not_hold_up_another_writer() -> None:
    dialogue = Dialogue()
    stuck, free = dialogue.accepted(1), dialogue.accepted(3)
    exhaust(dialogue, 1)
    assert stuck.send_allowance() == 0
    free.send_data(b"on its way")
    assert dialogue.say() == [data(3, b"on its way")]


@pytest.mark.conformance(50)
def test_fin_rst_updates_and_pings_need_no_credit_and_no_room() -> None:
    dialogue = Dialogue()
    finishing, resetting, reading, filling = (dialogue.accepted(stream_id) for stream_id in (1, 3, 5, 7))
    for stream_id in (1, 3, 5):
        exhaust(dialogue, stream_id)
    dialogue.hear(update(7, 16 * MIB), data(5, bytes(WINDOW)))
    while allowance := filling.send_allowance():
        filling.send_data(bytes(allowance))
    dialogue.calls.clear()
    finishing.send_eof()
    resetting.reset()
    reading.consume(WINDOW)
    value = dialogue.connection.ping()
    dialogue.hear(ping(77))
    control = {frame for frame in dialogue.say() if not frame.is_data}
    assert control == {fin(1), rst(3), update(5, WINDOW), ping(value), pong(77)}


def test_a_window_below_256_kib_or_above_32_bits_is_refused() -> None:
    for window in (WINDOW - 1, MAX_UINT32 + 1, 0):
        with pytest.raises(ValueError, match="window"):
            Dialogue(receive_window=window)


def test_a_finished_or_reset_stream_takes_no_data() -> None:
    dialogue = Dialogue()
    finished, reset = dialogue.accepted(1), dialogue.accepted(3)
    finished.send_eof()
    reset.reset()
    for stream in (finished, reset):
        with pytest.raises(LocalProtocolError):
            stream.send_data(b"more")
    assert dialogue.say() == [fin(1), rst(3)]
