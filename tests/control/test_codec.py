"""Messages to bytes, and whole, good bytes back to messages."""

from typing import get_args

import pytest

from otun.control.codec import MAX_MESSAGE_SIZE, MESSAGE_TYPES, MessageDecoder, encode
from otun.control.messages import Error, Heartbeat, HeartbeatAck, Message, Register, Registered
from otun.errors import BadMessage, LocalProtocolError


def decode(data: bytes) -> list[Message]:
    decoder = MessageDecoder()
    decoder.feed(data)
    messages = []
    while (message := decoder.next_message()) is not None:
        messages.append(message)
    decoder.receive_eof()
    return messages


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (Register(subdomain="app", token="s3cret"), b'{"type":"register","subdomain":"app","token":"s3cret"}\n'),
        (Register(), b'{"type":"register"}\n'),
        (
            Registered(url="https://app.example.com", subdomain="app"),
            b'{"type":"registered","url":"https://app.example.com","subdomain":"app"}\n',
        ),
        (
            Register(basic_auth=("a:$x",), allow_ip=("::1",), deny_ip=("::2",), require_header=("X",)),
            b'{"type":"register","basic_auth":["a:$x"],"allow_ip":["::1"],"deny_ip":["::2"],"require_header":["X"]}\n',
        ),
        (
            Registered(url="http://a", subdomain="a", protections=("allow_ip",)),
            b'{"type":"registered","url":"http://a","subdomain":"a","protections":["allow_ip"]}\n',
        ),
        (Heartbeat(), b'{"type":"heartbeat"}\n'),
        (HeartbeatAck(), b'{"type":"heartbeat_ack"}\n'),
        (
            Error("name is taken", code="name_taken", retryable=True),
            b'{"type":"error","message":"name is taken","code":"name_taken","retryable":true}\n',
        ),
        (Error("no"), b'{"type":"error","message":"no"}\n'),
    ],
)
def test_each_message_has_the_agreed_bytes(message: Message, data: bytes) -> None:
    assert encode(message) == data
    assert decode(data) == [message]


def test_every_message_has_a_type_on_the_wire() -> None:
    assert set(MESSAGE_TYPES.values()) == set(get_args(Message))


def test_objects_need_no_newline_between_them() -> None:
    assert decode(b'{"type":"heartbeat"}{"type":"heartbeat_ack"}') == [Heartbeat(), HeartbeatAck()]


def test_json_whitespace_is_allowed_everywhere_between_tokens() -> None:
    assert decode(b' \r\n\t{ "type"\n:\t"heartbeat" }\r\n \t{"type":"heartbeat"}\n\n') == [Heartbeat(), Heartbeat()]


def test_unknown_fields_are_ignored() -> None:
    data = b'{"type":"heartbeat","sent":-1.5e3,"path":[{"a":[null,true]},"}"],"n":7,"sub":{"x":1}}'
    assert decode(data) == [Heartbeat()]


def test_null_means_absent() -> None:
    assert decode(b'{"type":"register","subdomain":null,"token":null}') == [Register()]
    assert decode(b'{"type":"error","message":"no","code":null,"retryable":null}') == [Error("no")]


def test_braces_quotes_and_escapes_inside_strings_end_nothing() -> None:
    data = rb'{"type":"register","subdomain":"}{][\"\\","token":"\\\\\"}"}{"type":"heartbeat"}'
    assert decode(data) == [Register(subdomain='}{]["\\', token='\\\\"}'), Heartbeat()]


def test_whole_surrogate_pairs_are_one_character() -> None:
    data = rb'{"type":"register","subdomain":"\ud83d\uDE00\\ud800 \ud7ff\ue000","token":"\u00e9"}'
    assert decode(data) == [Register(subdomain="😀\\ud800 \ud7ff\ue000", token="é")]


def test_data_may_be_any_bytes_like_object_and_may_change_afterwards() -> None:
    decoder = MessageDecoder()
    data = bytearray(b'{"type":"heart')
    decoder.feed(memoryview(data))
    assert decoder.next_message() is None
    data[:] = b"x" * len(data)
    decoder.feed(bytearray(b'beat"}'))
    assert decoder.next_message() == Heartbeat()


def test_a_message_of_exactly_the_allowed_size_is_read_and_written() -> None:
    room = MAX_MESSAGE_SIZE - len(encode(Register(subdomain="app", token="x"))) + 2
    message = Register(subdomain="app", token="x" * room)
    data = encode(message)
    assert len(data) == MAX_MESSAGE_SIZE + len(b"\n")
    assert decode(data + data) == [message, message]

    too_long = Register(subdomain="app", token="x" * (room + 1))
    with pytest.raises(LocalProtocolError, match=r"a message 'register' of 65537 bytes is longer than 65536"):
        encode(too_long)
    with pytest.raises(BadMessage, match="longer than 65536 bytes"):
        decode(data.replace(b"xx", b"xxx", 1))


def test_half_a_surrogate_pair_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="'register' holds half of a surrogate pair") as caught:
        encode(Register(token="s3cret\udc80"))
    assert "s3cret" not in str(caught.value)


def test_a_token_is_not_shown_in_a_repr() -> None:
    assert "token" not in repr(Register(subdomain="app"))
    assert repr(Register(subdomain="app", token="s3cret")) == repr(Register(subdomain="app"))


@pytest.mark.parametrize("direction", ["request_headers", "response_headers", "basic_auth", "require_header"])
def test_headers_are_not_shown_in_a_repr(direction: str) -> None:
    secret = Register(**{direction: ("Authorization: Basic s3cret",)})
    assert repr(secret) == repr(Register())


def test_bytes_of_a_token_are_not_shown_in_a_repr() -> None:
    decoder = MessageDecoder()
    decoder.feed(b'{"type":"register","token":"s3cret"')
    assert decoder.next_message() is None
    assert repr(decoder) == "<MessageDecoder <ObjectSplitter with 35 bytes, at depth 1>>"
