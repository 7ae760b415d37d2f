"""Control messages as JSON: one object a message, and a newline behind each that we write.

Reading is strict, without conversion between types.  Only unknown fields are passed over, so that a newer peer may say
more.
"""

import json
from typing import Final, NoReturn

import attrs
from cattrs import ClassValidationError, Converter, transform_error

from ..errors import BadMessage, LocalProtocolError
from .excerpt import excerpt
from .framing import MAX_MESSAGE_SIZE, ObjectSplitter
from .messages import Error, Health, Heartbeat, HeartbeatAck, Message, Register, Registered
from .strict_json import KIND_NAMES, MAX_NUMBER_LENGTH, find_lone_surrogate, parse_object

__all__ = ["MAX_MESSAGE_SIZE", "MAX_NUMBER_LENGTH", "MESSAGE_TYPES", "MessageDecoder", "encode"]

MESSAGE_TYPES: Final[dict[str, type[Message]]] = {
    "register": Register,
    "registered": Registered,
    "heartbeat": Heartbeat,
    "heartbeat_ack": HeartbeatAck,
    "health": Health,
    "error": Error,
}
"""What each value of the field `type` stands for."""

_TYPE_NAMES: Final = {message_type: name for name, message_type in MESSAGE_TYPES.items()}


def encode(message: Message) -> bytes:
    """Return *message* as one JSON object and a newline, in ASCII.  Fields that have their default value are left out.

    Raises `LocalProtocolError` for a message that no decoder would take: longer than `MAX_MESSAGE_SIZE`, or with half
    of a surrogate pair in a string.
    """
    fields = attrs.asdict(message, filter=lambda attribute, value: value != attribute.default)
    name = _TYPE_NAMES[type(message)]
    text = json.dumps({"type": name, **fields}, separators=(",", ":"))
    if len(text) > MAX_MESSAGE_SIZE:
        raise LocalProtocolError(f"a message {name!r} of {len(text)} bytes is longer than {MAX_MESSAGE_SIZE}")
    if find_lone_surrogate(text) is not None:
        raise LocalProtocolError(f"a message {name!r} holds half of a surrogate pair, which is no text")
    return text.encode() + b"\n"


class MessageDecoder:
    """Reads messages from a byte stream that may be cut anywhere.

    Call `feed`, then `next_message` until it returns None, and so on; `receive_eof` at the end.  Messages that came
    before a bad one are returned before it raises.  From then on every method raises `BadMessage` with the same text.

    The errors carry neither the message nor an exception that does: a token in it must not get into a log.
    """

    def __init__(self) -> None:
        self._splitter = ObjectSplitter()
        self._failure: str | None = None

    def __repr__(self) -> str:
        return f"<MessageDecoder {'broken' if self._failure is not None else self._splitter}>"

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream; they are copied.

        Raises `LocalProtocolError` when `next_message` has not returned None since the last call, since what is kept
        would have no bound otherwise: it is less than `MAX_MESSAGE_SIZE` bytes and *data*.
        """
        self._require_intact()
        self._splitter.feed(data)

    def next_message(self) -> Message | None:
        """Return the next message, or None when more bytes are needed.  Raises `BadMessage` when it is a bad one."""
        self._require_intact()
        try:
            return self._read_message()
        except BadMessage as error:
            self._failure = str(error)
        self._raise_failure()

    def receive_eof(self) -> None:
        """Take note that the stream has ended.  Raises `BadMessage` when that cuts a message.

        Raises `LocalProtocolError` when `next_message` has not returned None since the last `feed`.
        """
        self._require_intact()
        try:
            return self._splitter.receive_eof()
        except BadMessage as error:
            self._failure = str(error)
        self._raise_failure()

    def _read_message(self) -> Message | None:
        data = self._splitter.next_object()
        return None if data is None else _message_from_fields(parse_object(data, "a control message"))

    def _require_intact(self) -> None:
        if self._failure is not None:
            self._raise_failure()

    def _raise_failure(self) -> NoReturn:
        # A new exception each time, outside any except clause: the first one's context holds the whole message.
        raise BadMessage(self._failure)


def _message_from_fields(fields: dict[str, object]) -> Message:
    """Build the message that *fields* describe; a field that is null counts as absent."""
    present = {name: value for name, value in fields.items() if value is not None}
    name = present.get("type")
    if name is None:
        raise BadMessage("a control message has no type")
    if not isinstance(name, str):
        raise BadMessage(f"type: expected a string, got {KIND_NAMES[type(name)]}")
    message_type = MESSAGE_TYPES.get(name)
    if message_type is None:
        raise BadMessage(f"a control message has the unknown type {excerpt(name)}")
    try:
        return _CONVERTER.structure(present, message_type)
    except ClassValidationError as error:
        problems = transform_error(error, path="", format_exception=_describe)
    raise BadMessage("; ".join(map(_put_path_first, problems)))


def _describe(error: BaseException, _: type | None) -> str:
    return "missing" if isinstance(error, KeyError) else str(error)


def _put_path_first(problem: str) -> str:
    """Turn cattrs' `expected a string @ .url` into `url: expected a string`."""
    text, _, path = problem.rpartition(" @ ")
    return f"{path.removeprefix('.')}: {text}"


def _require_string(value: object, _: type[str]) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"expected a string, got {KIND_NAMES[type(value)]}")


def _require_boolean(value: object, _: type[bool]) -> bool:
    if isinstance(value, bool):
        return value
    raise TypeError(f"expected a boolean, got {KIND_NAMES[type(value)]}")


def _require_integer(value: object, _: type[int]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(f"expected an integer, got {KIND_NAMES[type(value)]}")


def _require_strings(value: object, _: type) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected an array of strings, got {KIND_NAMES[type(value)]}")
    return tuple(_require_string(item, str) for item in value)


# cattrs' own hooks convert: 5 would become "5", and "no" True.
_CONVERTER: Final = Converter()
_CONVERTER.register_structure_hook(str, _require_string)
_CONVERTER.register_structure_hook(bool, _require_boolean)
_CONVERTER.register_structure_hook(int, _require_integer)
_CONVERTER.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _require_strings)
