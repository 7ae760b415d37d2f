"""Fuzzes the control protocol's `MessageDecoder`: any bytes are messages or a `BadMessage`, however they are cut.

The input: the first byte is the size of the pieces, less one, of 1 to 64 bytes; then the stream, see
`pieces.expand`.
"""

import atheris

with atheris.instrument_imports(include=["otun"]):
    from otun.control.codec import MAX_MESSAGE_SIZE, MessageDecoder, encode
    from otun.control.messages import Message
    from otun.errors import BadMessage, LocalProtocolError

from harness import fuzz
from pieces import cut, expand

MAX_ERROR_LENGTH = 250


def read(pieces: list[bytes]) -> tuple[list[Message], str | None]:
    """Return the messages, and what the first bad one, or the end, raised."""
    decoder = MessageDecoder()
    messages = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (message := decoder.next_message()) is not None:
                messages.append(message)
            assert len(decoder._splitter._buffer) < MAX_MESSAGE_SIZE, "more is kept than a message may have"
        decoder.receive_eof()
    except BadMessage as error:
        check_error(decoder, error)
        return messages, str(error)
    return messages, None


def check_error(decoder: MessageDecoder, error: BadMessage) -> None:
    text = str(error)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) <= MAX_ERROR_LENGTH
    assert error.__cause__ is None
    assert error.__context__ is None, "the error brings another one, which may quote a token"
    for call in (decoder.next_message, decoder.receive_eof):
        try:
            call()
        except BadMessage as again:
            if str(again) == text:
                continue
        raise AssertionError("a broken decoder goes on, or says something else")


def check_message(message: Message) -> None:
    """What was understood can be said, and is understood again."""
    try:
        data = encode(message)
    except LocalProtocolError:
        return  # Escaped, it is too long.
    assert read([data]) == ([message], None)


def test_one_input(data: bytes) -> None:
    stream = expand(data[1:])
    messages, error = read([stream])
    pieces = cut(stream, data[0] % 64 + 1) if data else []
    assert read(pieces) == (messages, error), "it depends on how the stream is cut"
    for message in messages[:20]:
        check_message(message)


if __name__ == "__main__":
    fuzz(test_one_input)
