"""How many bytes are kept, when they are scanned, and where a stream may end."""

import itertools
import re

import pytest

import otun.control.framing
from otun.control.codec import MessageDecoder
from otun.control.framing import MAX_MESSAGE_SIZE, ObjectSplitter
from otun.control.messages import Heartbeat
from otun.errors import BadMessage, LocalProtocolError

BEAT = b'{"type":"heartbeat"}'


class CountingPattern:
    """A compiled pattern that adds up how many bytes it was asked to look at, at most."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.bytes_searched = 0

    def search(self, data: bytearray, start: int, end: int) -> re.Match[bytes] | None:
        found = self.pattern.search(data, start, end)
        self.bytes_searched += (found.end() if found else end) - start
        return found


def kept_bytes(splitter: ObjectSplitter) -> int:
    return len(splitter._buffer)


@pytest.mark.parametrize("piece_size", [1, 7, 1_000, 65_536])
def test_each_byte_is_scanned_once_however_it_arrives(monkeypatch: pytest.MonkeyPatch, piece_size: int) -> None:
    outside = CountingPattern(otun.control.framing._OUTSIDE_STRING)
    inside = CountingPattern(otun.control.framing._INSIDE_STRING)
    monkeypatch.setattr(otun.control.framing, "_OUTSIDE_STRING", outside)
    monkeypatch.setattr(otun.control.framing, "_INSIDE_STRING", inside)
    body = rb'{"a":"' + rb"\"x" * 10_000 + b'","b":[' + b"{}," * 10_000
    data = body.ljust(MAX_MESSAGE_SIZE - len(b"0]}")) + b"0]}"
    splitter = ObjectSplitter()
    found = []
    for start in range(0, len(data), piece_size):
        splitter.feed(data[start : start + piece_size])
        found.append(splitter.next_object())
    assert found[-1] == data
    assert not any(found[:-1])
    assert outside.bytes_searched + inside.bytes_searched <= len(data)


def test_an_endless_message_is_refused_at_the_size_limit() -> None:
    for piece_size, opening in itertools.product([1, 4_096], [b"{", b'{"', b'{"\\']):
        splitter = ObjectSplitter()
        splitter.feed(opening)
        assert splitter.next_object() is None
        fed = len(opening)
        with pytest.raises(BadMessage, match="longer than 65536 bytes"):  # noqa: PT012 - the loop must end by raising
            while fed < 2 * MAX_MESSAGE_SIZE:
                splitter.feed(b"x" * piece_size)
                fed += piece_size
                assert splitter.next_object() is None
        assert MAX_MESSAGE_SIZE <= fed < MAX_MESSAGE_SIZE + piece_size
        assert kept_bytes(splitter) == fed


def test_a_message_too_long_is_refused_even_when_it_arrives_at_once() -> None:
    splitter = ObjectSplitter()
    splitter.feed(BEAT + b"{" + b" " * (MAX_MESSAGE_SIZE - 1) + b"}" + BEAT)
    assert splitter.next_object() == BEAT
    with pytest.raises(BadMessage, match="longer than 65536 bytes"):
        splitter.next_object()


def test_whitespace_between_objects_is_not_kept() -> None:
    splitter = ObjectSplitter()
    for _ in range(100):
        splitter.feed(b" \t\r\n" * 10_000)
        assert splitter.next_object() is None
        assert kept_bytes(splitter) == 0
    splitter.feed(b"\n" * 100_000 + b"{")
    assert splitter.next_object() is None
    assert kept_bytes(splitter) == 1


def test_what_has_been_read_is_not_kept() -> None:
    splitter = ObjectSplitter()
    splitter.feed(BEAT * 10_000 + BEAT[:5])
    assert [splitter.next_object() for _ in range(10_000)] == [BEAT] * 10_000
    assert splitter.next_object() is None
    assert kept_bytes(splitter) == 5
    splitter.feed(BEAT[5:])
    assert splitter.next_object() == BEAT


def test_feeding_a_decoder_that_has_not_been_read_empty_is_a_callers_mistake() -> None:
    decoder = MessageDecoder()
    decoder.feed(BEAT + BEAT)
    assert decoder.next_message() == Heartbeat()
    for use in [lambda: decoder.feed(b" "), decoder.receive_eof]:
        with pytest.raises(LocalProtocolError, match=r"\(\) with 20 bytes unread"):
            use()
    assert decoder.next_message() == Heartbeat()
    assert decoder.next_message() is None
    decoder.feed(BEAT)
    assert decoder.next_message() == Heartbeat()


@pytest.mark.parametrize("data", [b"", b" \n", BEAT, BEAT + b"\n", b"\n" + BEAT + BEAT + b"\r\n "])
def test_a_stream_may_end_between_messages(data: bytes) -> None:
    decoder = MessageDecoder()
    decoder.feed(data)
    while decoder.next_message() is not None:
        pass
    decoder.receive_eof()


@pytest.mark.parametrize("cut", range(1, len(BEAT)))
def test_a_stream_may_not_end_inside_a_message(cut: int) -> None:
    decoder = MessageDecoder()
    decoder.feed(BEAT + b"\n" + BEAT[:cut])
    assert decoder.next_message() == Heartbeat()
    assert decoder.next_message() is None
    text = f"the stream ended inside a control message, after {cut} bytes of it"
    for use in [decoder.receive_eof, decoder.receive_eof, decoder.next_message]:
        with pytest.raises(BadMessage) as caught:
            use()
        assert str(caught.value) == text
