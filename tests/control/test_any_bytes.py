"""What holds for every message, every stream of bytes, and every way to cut it."""

import itertools
import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from otun.control.codec import MESSAGE_TYPES, MessageDecoder, encode
from otun.control.messages import Error, Heartbeat, HeartbeatAck, Message, Register, Registered
from otun.errors import BadMessage

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Register, subdomain=st.none() | TEXTS, token=st.none() | TEXTS),
    st.builds(Register, basic_auth=LISTS, allow_ip=LISTS, deny_ip=LISTS, require_header=LISTS),
    st.builds(Registered, url=TEXTS, subdomain=TEXTS, protections=LISTS),
    st.just(Heartbeat()),
    st.just(HeartbeatAck()),
    st.builds(Error, message=TEXTS, code=TEXTS, retryable=st.booleans()),
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELD_NAMES = st.sampled_from(["type", "subdomain", "token", "url", "message", "code", "retryable"]) | st.text()
TYPES = st.sampled_from(list(MESSAGE_TYPES))
OBJECTS = st.builds(lambda name, fields: {"type": name, **fields}, TYPES, st.dictionaries(FIELD_NAMES, JSON_VALUES))
OBJECT_BYTES = st.builds(
    lambda value, is_ascii: json.dumps(value, ensure_ascii=is_ascii).encode(errors="surrogatepass"),
    OBJECTS,
    st.booleans(),
)
TOKENS = st.sampled_from(
    [
        *[b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b" ", b"\n", b"\0"],
        *[b"\xff", b"\xc3\xa9", rb"\ud83d", rb"\ude00"],
        *[b'"type"', b'"register"', b'"token"', b"null", b"true", b"NaN", b"-1.5e3", b'{"type":"heartbeat"}'],
    ]
)
STREAMS = st.lists(
    st.one_of(MESSAGES.map(encode), OBJECT_BYTES, TOKENS, st.binary(max_size=20), st.just(b"9" * 100)),
    max_size=8,
).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def outcome(pieces: list[bytes]) -> tuple[list[Message], str | None]:
    """Return the messages in a stream that arrives in these pieces, and what its end or first bad message raised."""
    decoder = MessageDecoder()
    messages = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (message := decoder.next_message()) is not None:
                messages.append(message)
        decoder.receive_eof()
    except BadMessage as error:
        return messages, str(error)
    return messages, None


@given(MESSAGES)
def test_every_message_survives_the_round_trip(message: Message) -> None:
    data = encode(message)
    assert data.count(b"\n") == 1
    assert outcome([data]) == ([message], None)


@given(st.lists(MESSAGES), st.sampled_from([b"", b"\n", b"\r\n\t "]), st.lists(st.integers(min_value=0)))
def test_messages_cut_anywhere_are_the_same_messages(messages: list[Message], gap: bytes, places: list[int]) -> None:
    data = gap.join(encode(message).rstrip(b"\n") for message in messages)
    assert outcome(cut(data, places)) == (messages, None)


@settings(max_examples=300, deadline=None)
@given(STREAMS, st.lists(st.integers(min_value=0)))
@example(b"[" * 100_000, [])
@example(b'{"x":' * 100_000, [1, 2])
@example(b'{"type":"heartbeat","x":' + b"9" * 60_000 + b"}", [30_000])
@example(b'{"type":"heartbeat","x":"\\', [])
@example(b'{"type":"heartbeat"}' + b"{" * 70_000, [65_000])
def test_any_bytes_are_read_or_refused_wherever_they_are_cut(data: bytes, places: list[int]) -> None:
    whole = outcome([data])
    assert outcome(cut(data, places)) == whole
    assert outcome([data[place : place + 1] for place in range(len(data))]) == whole
    _, text = whole
    if text is not None:
        assert text.isprintable()
        assert text.isascii()
        assert len(text) < 250


@given(OBJECTS, st.booleans())
def test_whatever_is_accepted_says_what_the_standard_parser_says(fields: dict[str, object], is_ascii: bool) -> None:
    data = json.dumps(fields, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    messages, text = outcome([data])
    assert (len(messages) == 1) is (text is None)
    for message in messages:
        assert MESSAGE_TYPES[str(fields["type"])] is type(message)
        for name in type(message).__slots__:
            if name in fields and fields[name] is not None:
                assert getattr(message, name) == fields[name]
