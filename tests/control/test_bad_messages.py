"""What a decoder refuses, and what it says about it."""

import re
import traceback

import pytest

from otun.control.codec import MAX_NUMBER_LENGTH, MessageDecoder
from otun.control.framing import MAX_DEPTH, MAX_MESSAGE_SIZE
from otun.control.messages import Heartbeat
from otun.errors import BadMessage


def refusal(data: bytes) -> str:
    """Return what a decoder says about *data*, its first message being a bad one."""
    decoder = MessageDecoder()
    decoder.feed(data)
    with pytest.raises(BadMessage) as caught:
        decoder.next_message()
    return str(caught.value)


@pytest.mark.parametrize(
    "data", [b"5", b'"text"', b"[]", b"null", b"true", b"}", b",", b"\0", b"\xef\xbb\xbf{}", b"\v{}"]
)
def test_anything_but_an_object_is_refused_at_its_first_byte(data: bytes) -> None:
    first = ascii(chr(data[0]))
    assert refusal(data) == f"a control message must be a JSON object, but it starts with {first}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{]", "Expecting property name enclosed in double quotes"),
        (b'{"type"}', "Expecting ':' delimiter"),
        (b'{"type":}', "Expecting value"),
        (b'{"type":"heartbeat" "x":1}', "Expecting ',' delimiter"),
        (b"{'type':'heartbeat'}", "Expecting property name"),
        (b'{"type":"heartbeat","x":01}', "Expecting ',' delimiter"),
        (b'{"type":"heartbeat","x":+1}', "Expecting value"),
        (b'{"type":"heartbeat","x":"\\x41"}', r"Invalid \escape"),
        (b'{"type":"heartbeat","x":"\\u12g4"}', r"Invalid \uXXXX escape"),
        (b'{"type":"heart\nbeat"}', "Invalid control character at"),
        (b'{"type":"heart\0beat"}', "Invalid control character at"),
    ],
)
def test_text_that_is_not_json_is_refused_with_the_place(data: bytes, text: str) -> None:
    said = refusal(data)
    assert said.startswith(f"a control message is not valid JSON: {text}")
    assert re.search(r" \(character \d+\)$", said)


def test_an_unclosed_bracket_is_noticed_when_the_message_cannot_end_any_more() -> None:
    data = b'{"type":"heartbeat","x":[}'
    assert refusal(data.ljust(MAX_MESSAGE_SIZE)) == "a control message is longer than 65536 bytes"


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"])
def test_invalid_utf8_is_refused(bad: bytes) -> None:
    assert refusal(b'{"type":"heartbeat","x":"%s"}' % bad) == "a control message is not valid UTF-8 at byte 25"


@pytest.mark.parametrize("bad", [rb"\ud800", rb"\uDFFF", rb"\udc00\ud800", rb"\ud83dx", rb"\ud83d\n", rb"\ud83d\ud83d"])
@pytest.mark.parametrize("place", [b'"x":"%s"', b'"%s":1', b'"x":[{"y":["%s"]}]', b'"x":"\\\\%s"'])
def test_lone_surrogates_are_refused_wherever_they_stand(bad: bytes, place: bytes) -> None:
    assert "half of a surrogate pair" in refusal(b'{"type":"heartbeat",%s}' % (place % bad))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_json_are_refused(number: str) -> None:
    text = refusal(b'{"type":"heartbeat","x":[%s]}' % number.encode())
    assert text == f"a control message has the number {number}, which is not JSON"


@pytest.mark.parametrize("number", ["9" * 5_000, "-" + "9" * MAX_NUMBER_LENGTH, "0." + "1" * 5_000, "1e" + "9" * 5_000])
def test_long_numbers_are_refused_unconverted(number: str) -> None:
    text = refusal(b'{"type":"heartbeat","x":%s}' % number.encode())
    assert text == f"a control message has a number of {len(number)} characters; 64 are allowed"


def test_the_longest_numbers_allowed_are_read() -> None:
    decoder = MessageDecoder()
    decoder.feed(b'{"type":"heartbeat","x":[%s,1e%s]}' % (b"9" * MAX_NUMBER_LENGTH, b"9" * (MAX_NUMBER_LENGTH - 2)))
    assert decoder.next_message() == Heartbeat()


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x":', b"}")])
def test_deep_nesting_is_refused_and_the_allowed_depth_is_read(opening: bytes, closing: bytes) -> None:
    def nested(depth: int) -> bytes:
        return b'{"type":"heartbeat","x":%s0%s}' % (opening * (depth - 1), closing * (depth - 1))

    decoder = MessageDecoder()
    decoder.feed(nested(MAX_DEPTH))
    assert decoder.next_message() == Heartbeat()
    assert refusal(nested(MAX_DEPTH + 1)) == "a control message is nested more than 32 deep"
    assert refusal(b'{"x":' + opening * 100_000) == "a control message is nested more than 32 deep"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'{"type":"heartbeat","type":"register"}', "'type'"),
        (b'{"type":"heartbeat","t\\u0079pe":"heartbeat"}', "'type'"),
        (b'{"type":"heartbeat","x":[{"a":1,"a":1}]}', "'a'"),
        (b'{"type":"heartbeat","\\n\\u00e9":1,"\\n\\u00e9":1}', r"'\n\xe9'"),
    ],
)
def test_duplicate_fields_are_refused(data: bytes, name: str) -> None:
    assert refusal(data) == f"a control message has the field {name} twice"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{}", "a control message has no type"),
        (b'{"type":null}', "a control message has no type"),
        (b'{"type":5}', "type: expected a string, got a number"),
        (b'{"type":["heartbeat"]}', "type: expected a string, got an array"),
        (b'{"type":"Heartbeat"}', "a control message has the unknown type 'Heartbeat'"),
        (b'{"type":"\\u001b[31m\\n\\u00ff"}', r"a control message has the unknown type '\x1b[31m\n\xff'"),
    ],
)
def test_missing_and_unknown_types_are_refused(data: bytes, text: str) -> None:
    assert refusal(data) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"type":"register","subdomain":5}', "subdomain: expected a string, got a number"),
        (b'{"type":"register","token":1.5}', "token: expected a string, got a number"),
        (b'{"type":"register","token":true}', "token: expected a string, got a boolean"),
        (b'{"type":"register","token":["s3cret"]}', "token: expected a string, got an array"),
        (
            b'{"type":"register","subdomain":{},"token":[]}',
            "subdomain: expected a string, got an object; token: expected a string, got an array",
        ),
        (b'{"type":"registered","url":"https://a"}', "subdomain: missing"),
        (b'{"type":"registered","url":null}', "url: missing; subdomain: missing"),
        (b'{"type":"error"}', "message: missing"),
        (b'{"type":"error","message":"no","retryable":1}', "retryable: expected a boolean, got a number"),
        (b'{"type":"error","message":"no","retryable":"true"}', "retryable: expected a boolean, got a string"),
        (b'{"type":"error","message":"no","code":404}', "code: expected a string, got a number"),
    ],
)
def test_fields_are_not_converted_from_another_type(data: bytes, text: str) -> None:
    assert refusal(data) == text


@pytest.mark.parametrize("kind", [b"x" * 5_000, b"\\u0000" * 5_000, b"\\n'" * 5_000])
def test_hostile_text_is_quoted_escaped_and_short(kind: bytes) -> None:
    text = refusal(b'{"type":"%s"}' % kind)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= len("a control message has the unknown type ") + 60


def test_good_messages_before_a_bad_one_are_not_lost() -> None:
    decoder = MessageDecoder()
    decoder.feed(b'{"type":"heartbeat"}\n{"type":"heartbeat"}{"type":"?"}{"type":"heartbeat"}')
    assert decoder.next_message() == Heartbeat()
    assert decoder.next_message() == Heartbeat()
    with pytest.raises(BadMessage, match="unknown type"):
        decoder.next_message()


def test_a_broken_decoder_stays_broken() -> None:
    decoder = MessageDecoder()
    decoder.feed(b"nonsense")
    texts = set()
    for use in [decoder.next_message, lambda: decoder.feed(b'{"type":"heartbeat"}'), decoder.receive_eof] * 2:
        with pytest.raises(BadMessage) as caught:
            use()
        texts.add(str(caught.value))
    assert texts == {"a control message must be a JSON object, but it starts with 'n'"}
    assert repr(decoder) == "<MessageDecoder broken>"


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"register","token":"s3cret",}',
        b'{"type":"register","token":"s3cret\xff"}',
        b'{"type":"register","token":"s3cret\\ud800"}',
        b'{"type":"register","token":"s3cret\n"}',
        b'{"type":"register","token":"s3cret","token":"s3cret"}',
        b'{"type":"register","token":["s3cret"]}',
        b'{"type":"register","token":"s3cret","subdomain":5}',
        b'{"type":5,"token":"s3cret"}',
        b'{"token":"s3cret"}',
    ],
)
def test_no_refusal_shows_a_token_or_drags_it_along(data: bytes) -> None:
    decoder = MessageDecoder()
    decoder.feed(data)
    with pytest.raises(BadMessage) as caught:
        decoder.next_message()
    error = caught.value
    assert "s3cret" not in str(error)
    assert "\n" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]  # Without this one, which has *data*.
    assert not any("s3cret" in repr(frame.f_locals) for frame in frames)
