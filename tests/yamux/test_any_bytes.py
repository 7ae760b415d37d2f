"""What holds for every stream of bytes, however it is cut, in both roles."""

import itertools
from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from otun.errors import RemoteProtocolError
from otun.yamux import Role, YamuxStream

from .dialogue import Call, Dialogue
from .wire import ACK, FIN, MAX_UINT32, RST, SYN, WINDOW, Frame, data, go_away, parse, syn, update

NUMBERS = st.integers(0, 8) | st.sampled_from([WINDOW, WINDOW + 1, MAX_UINT32]) | st.integers(0, MAX_UINT32)
FLAGS = st.integers(0, 15) | st.sampled_from([0, SYN, ACK, FIN, RST]) | st.integers(0, 0xFFFF)
IDS = st.integers(0, 6) | NUMBERS
DATA = st.builds(data, IDS, st.binary(max_size=20), FLAGS)
CONTROL = st.builds(Frame, st.sampled_from([1, 1, 1, 2, 3]), FLAGS, IDS, NUMBERS)
ANY_HEADER = st.builds(Frame, st.integers(0, 5), FLAGS, IDS, NUMBERS)
PIECES = st.one_of(
    *[st.lists(kind, max_size=4).map(lambda frames: b"".join(map(Frame.encode, frames))) for kind in (DATA, CONTROL)],
    DATA.map(Frame.encode),
    CONTROL.map(Frame.encode),
    st.builds(Frame.encode, ANY_HEADER, st.sampled_from([0, 0, 0, 1])),
    st.binary(max_size=30),
)
STREAMS = st.lists(PIECES, max_size=12).map(b"".join)
PLACES = st.lists(st.integers(min_value=0), max_size=20)


def close(stream: YamuxStream) -> None:
    stream.close(0.0)


def answer(stream: YamuxStream) -> None:
    if stream.can_send and stream.send_allowance():
        stream.send_data(b"!")


ACTIONS: dict[str, Callable[[YamuxStream], object]] = {
    "acknowledge": YamuxStream.acknowledge,
    "send_eof": YamuxStream.send_eof,
    "reset": YamuxStream.reset,
    "close": close,
    "answer": answer,
}
CALLS = ["opened", "data", "ended", "reset", "slot_freed", "pong", "window_opened"]
REACTIONS = st.dictionaries(st.sampled_from(CALLS), st.sampled_from([*ACTIONS]))


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[start:end] for start, end in itertools.pairwise(edges)]


def outcome(role: Role, reactions: dict[str, str], pieces: list[bytes]) -> tuple[list[Call], bytes, str | None]:
    """Return the calls, the output, and the text of the error when the bytes arrive in these pieces.

    Five streams of ours are there before: one open, one acknowledged, one finished, one closed, one that waits.
    """
    dialogue = Dialogue(role)
    dialogue.open()
    streams = [dialogue.established() for _ in range(4)]
    streams[1].send_eof()
    streams[2].close(0.0)
    streams[3].send_data(bytes(WINDOW))
    assert streams[3].send_allowance() == 0
    dialogue.wire()
    dialogue.reactions.update({name: ACTIONS[action] for name, action in reactions.items()})
    error = None
    try:
        for piece in pieces:
            dialogue.hear(piece)
        dialogue.connection.receive_eof()
    except RemoteProtocolError as raised:
        error = str(raised)
    return merged(dialogue.calls), dialogue.wire(), error


def merged(calls: list[Call]) -> list[Call]:
    """Join pieces of data that follow each other on one stream."""
    result: list[Call] = []
    for call in calls:
        if call[0] == "data" and result and result[-1][:2] == call[:2]:
            call = (*call[:2], result[-1][2] + call[2])
            result.pop()
        result.append(call)
    return result


def without_windows(calls: list[Call]) -> list[Call]:
    return merged([call for call in calls if call[0] != "window_opened"])


@settings(max_examples=300, deadline=None)
@given(role=st.sampled_from(Role), wire=STREAMS, places=PLACES)
@example(role=Role.SERVER, wire=syn(1).encode() + data(1, b"hello", FIN).encode(), places=[11, 23, 25])
@example(role=Role.SERVER, wire=update(10, 1).encode() + b"\1" * 12, places=[12])
@example(role=Role.SERVER, wire=update(10, 1).encode() + Frame(1, RST, 10, 0).encode(), places=[12])
def test_the_same_bytes_cut_anywhere_are_the_same_dialogue(role: Role, wire: bytes, places: list[int]) -> None:
    """Except for `window_opened`: it is for the end of each read, and not called if nobody can send any more then."""
    calls, *rest = outcome(role, {}, [wire])
    for pieces in (cut(wire, places), [wire[place : place + 1] for place in range(len(wire))]):
        cut_calls, *cut_rest = outcome(role, {}, pieces)
        assert without_windows(cut_calls) == without_windows(calls)
        assert cut_rest == rest
        assert all(call in cut_calls for call in calls if call[0] == "window_opened")


@settings(max_examples=300, deadline=None)
@given(role=st.sampled_from(Role), reactions=REACTIONS, wire=STREAMS, places=PLACES)
@example(role=Role.SERVER, reactions={"opened": "reset"}, wire=data(1, b"body", SYN | FIN).encode(), places=[13])
def test_any_bytes_are_understood_or_refused_whatever_the_handlers_do(
    role: Role, reactions: dict[str, str], wire: bytes, places: list[int]
) -> None:
    """No other exception than `RemoteProtocolError` comes out, and what we say is well formed."""
    _, output, error = outcome(role, reactions, cut(wire, places))
    frames = parse(output)
    assert (go_away(1) in frames) is (error is not None and "ended in the middle" not in error)


@settings(max_examples=100, deadline=None)
@given(role=st.sampled_from(Role), reactions=REACTIONS, wire=STREAMS, places=PLACES)
def test_whatever_arrives_no_stream_hears_anything_behind_its_reset(
    role: Role, reactions: dict[str, str], wire: bytes, places: list[int]
) -> None:
    calls, _, _ = outcome(role, reactions, cut(wire, places))
    over: set[object] = set()
    for name, *details in calls:
        if name in ("opened", "data", "ended", "reset", "window_opened"):
            if name == "opened":
                over.discard(details[0])  # An id may be used anew.
            assert details[0] not in over
            if name == "reset":
                over.add(details[0])
