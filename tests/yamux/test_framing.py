"""Bytes become frames, whatever the pieces they arrive in."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import RemoteProtocolError
from otun.yamux import FrameDecoder, Role
from otun.yamux.frames import encode_header

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
    data,
    data_header,
    ping,
    pong,
    rst,
    syn,
    update,
)

UINT32 = st.integers(0, MAX_UINT32)


class Headers:
    """Keeps what a `FrameDecoder` reads."""

    def __init__(self) -> None:
        self.headers: list[tuple[int, int, int, int]] = []
        self.bodies: list[tuple[bytes, int]] = []

    def header_received(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        self.headers.append((kind, flags, stream_id, length))

    def body_received(self, data: memoryview, missing: int) -> None:
        self.bodies.append((bytes(data), missing))


@pytest.mark.conformance(1)
@given(kind=st.integers(0, 3), flags=st.integers(0, 0xFFFF), stream_id=UINT32, length=UINT32)
def test_a_header_survives_encoding_and_decoding(kind: int, flags: int, stream_id: int, length: int) -> None:
    wire = encode_header(kind, flags, stream_id, length)
    assert wire == Frame(kind, flags, stream_id, length).encode()
    reader = Headers()
    FrameDecoder(reader).feed(wire)
    assert reader.headers == [(kind, flags, stream_id, length)]


@pytest.mark.conformance(1)
def test_a_header_is_written_as_in_the_specification() -> None:
    wire = encode_header(1, SYN | FIN, 0x01020304, 0xA0B0C0D0)
    assert wire == bytes.fromhex("00 01 0005 01020304 A0B0C0D0")


@pytest.mark.conformance(2)
def test_a_header_in_twelve_reads_of_one_byte_is_parsed_once() -> None:
    dialogue = Dialogue()
    wire = ping(0x01020304).encode()
    for place in range(12):
        assert dialogue.say() == []
        dialogue.hear(wire[place : place + 1])
    assert dialogue.say() == [pong(0x01020304)]


@pytest.mark.conformance(2)
@pytest.mark.parametrize("place", range(1, 12))
def test_a_header_cut_in_two_is_parsed_once(place: int) -> None:
    reader = Headers()
    decoder = FrameDecoder(reader)
    wire = data(7, b"body", FIN).encode() + ping(1).encode()
    decoder.feed(wire[:place])
    assert not decoder.is_between_frames
    decoder.feed(wire[place:])
    assert decoder.is_between_frames
    assert reader.headers == [(0, FIN, 7, 4), (2, SYN, 0, 1)]
    assert reader.bodies == [(b"body", 0)]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind_can_be_fed(kind: type) -> None:
    dialogue = Dialogue()
    wire = data(1, b"hello", SYN).encode()
    for place in range(len(wire)):
        dialogue.connection.receive_data(kind(wire[place : place + 1]), 0.0)
    assert dialogue.calls == [("opened", 1), ("data", 1, b"hello")]


@pytest.mark.conformance(3)
@pytest.mark.parametrize("size", range(1, 12))
def test_an_end_within_a_header_is_an_error(size: int) -> None:
    dialogue = Dialogue()
    dialogue.hear(ping(1), ping(2).encode()[:size])
    with pytest.raises(RemoteProtocolError):
        dialogue.connection.receive_eof()


@pytest.mark.conformance(3)
def test_an_end_between_frames_is_clean() -> None:
    dialogue = Dialogue()
    dialogue.connection.receive_eof()
    dialogue.hear(data(1, b"hello", SYN), ping(1))
    dialogue.connection.receive_eof()


@pytest.mark.conformance(4)
def test_an_end_within_a_body_comes_behind_what_was_there() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.hear(data_header(1, 10), b"seven b") == [("data", 1, b"seven b")]
    with pytest.raises(RemoteProtocolError):
        dialogue.connection.receive_eof()
    assert ("ended", 1) not in dialogue.calls


@pytest.mark.conformance(4)
def test_an_end_between_a_header_and_its_body_is_an_error() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    dialogue.hear(data_header(1, 10))
    with pytest.raises(RemoteProtocolError):
        dialogue.connection.receive_eof()


@pytest.mark.conformance(5)
def test_a_thousand_frames_in_one_read_are_all_handled() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    numbers = [number.to_bytes(2) for number in range(1000)]
    assert dialogue.hear(*[data(1, number) for number in numbers]) == [("data", 1, b"".join(numbers))]


@pytest.mark.conformance(6)
@pytest.mark.parametrize("version", [1, 2, 0xFF])
def test_a_version_other_than_0_ends_the_session(version: int) -> None:
    assert Dialogue().is_violated_by(ping(1).encode(version))


@pytest.mark.conformance(7)
@pytest.mark.parametrize("kind", [4, 5, 0xFF])
def test_a_type_above_3_ends_the_session(kind: int) -> None:
    assert Dialogue().is_violated_by(Frame(kind, 0, 0, 0))


@pytest.mark.conformance(6, 7)
@pytest.mark.parametrize("bad", [ping(9).encode(1), Frame(4, 0, 0, 0).encode()])
def test_what_stands_before_a_bad_header_is_handled_and_what_stands_behind_is_not(bad: bytes) -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    with pytest.raises(RemoteProtocolError):
        dialogue.hear(data(1, b"before"), bad, data(1, b"behind"))
    assert dialogue.calls == [("data", 1, b"before")]


@pytest.mark.conformance(8)
@pytest.mark.parametrize("extra", [0xFFF0, 0x0010, 0x8000])
def test_unknown_flag_bits_are_ignored(extra: int) -> None:
    dialogue = Dialogue()
    ours = dialogue.open()
    dialogue.say()
    dialogue.hear(
        update(1, 5, SYN | extra),
        data(1, b"hello", extra),
        update(ours.id, 0, ACK | extra),
        data(1, b"", FIN | extra),
        update(ours.id, 0, RST | extra),
        Frame(2, SYN | extra, 0, 7),
        Frame(2, ACK | extra, 0, 8),
        Frame(3, extra, 0, 0),
    )
    assert dialogue.calls == [
        ("opened", 1),
        ("data", 1, b"hello"),
        ("slot_freed",),
        ("ended", 1),
        ("reset", ours.id, 0),
        ("pong", 8),
        ("went_away", 0),
    ]
    assert dialogue.say() == [pong(7)]


@pytest.mark.conformance(9)
def test_empty_data_is_nothing_at_all() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.hear(data(1), data(1), data(1)) == []
    assert dialogue.say() == []
    assert dialogue.hear(data(1, b"still open")) == [("data", 1, b"still open")]


@pytest.mark.conformance(10)
def test_empty_data_with_syn_opens_a_stream() -> None:
    dialogue = Dialogue()
    assert dialogue.hear(data(1, b"", SYN)) == [("opened", 1)]
    assert dialogue.hear(data(3, b"hello", SYN), data(1, b"there")) == [
        ("opened", 3),
        ("data", 3, b"hello"),
        ("data", 1, b"there"),
    ]


@pytest.mark.conformance(11)
@pytest.mark.parametrize("flags", [0, FIN, RST, ACK])
def test_the_longest_frame_on_an_unknown_id_is_skipped_in_constant_memory(flags: int) -> None:
    dialogue = Dialogue()
    piece = bytes(64 * KIB)
    dialogue.hear(data_header(5, MAX_UINT32, flags), b"some body")
    tracemalloc.start()
    for _ in range(64 * MIB // len(piece)):
        dialogue.connection.receive_data(piece, 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * KIB
    assert dialogue.calls == []
    assert dialogue.say() == []


@pytest.mark.conformance(11)
def test_framing_goes_on_behind_a_skipped_body() -> None:
    dialogue = Dialogue()
    dialogue.hear(data(5, ping(1).encode() * 3), ping(2))
    assert dialogue.say() == [pong(2)]


@pytest.mark.conformance(12)
def test_a_length_above_the_credit_is_rejected_before_its_body() -> None:
    dialogue = Dialogue()
    dialogue.accepted(1)
    assert dialogue.is_violated_by(data_header(1, WINDOW + 1))
    assert dialogue.calls == []
    assert Dialogue().is_violated_by(data_header(1, WINDOW + 1, SYN))


@pytest.mark.conformance(13)
def test_everything_leaves_while_a_body_is_withheld() -> None:
    dialogue = Dialogue(Role.SERVER)
    first = dialogue.accepted(1)
    second = dialogue.accepted(3)
    dialogue.hear(data_header(1, 1000), b"half of it")
    value = dialogue.connection.ping()
    third = dialogue.open()
    first.send_data(b"to 1")
    second.send_data(b"to 3")
    third.send_data(b"to 2")
    second.reset()
    assert {ping(value), syn(2), data(1, b"to 1"), data(3, b"to 3"), data(2, b"to 2"), rst(3)} == {*dialogue.say()}


@pytest.mark.conformance(14)
def test_a_4_mib_frame_is_readable_before_it_is_complete() -> None:
    dialogue = Dialogue(receive_window=4 * MIB)
    dialogue.accepted(1)
    assert dialogue.hear(data_header(1, 4 * MIB), b"first") == [("data", 1, b"first")]
    assert dialogue.hear(b"second") == [("data", 1, b"second")]
    dialogue.calls.clear()
    dialogue.hear(bytes(4 * MIB - len(b"firstsecond")), data(1, b"", FIN))
    assert [call[:2] for call in dialogue.calls] == [("data", 1), ("ended", 1)]
