"""The life of a stream, as the table has it and as the connection lives it."""

import itertools

import pytest

from otun.yamux import Role, StreamState, YamuxStream
from otun.yamux.states import TRANSITIONS, StreamInput

from .dialogue import Dialogue
from .wire import fin, rst

OPEN, LOCAL_CLOSED, REMOTE_CLOSED, CLOSED, RESET = (
    StreamState.OPEN,
    StreamState.LOCAL_CLOSED,
    StreamState.REMOTE_CLOSED,
    StreamState.CLOSED,
    StreamState.RESET,
)
SEND_FIN, RECEIVE_FIN, SEND_RST, RECEIVE_RST = (
    StreamInput.SEND_FIN,
    StreamInput.RECEIVE_FIN,
    StreamInput.SEND_RST,
    StreamInput.RECEIVE_RST,
)
INPUTS = [SEND_FIN, RECEIVE_FIN, SEND_RST, RECEIVE_RST]

EXPECTED: dict[StreamState, list[StreamState | None]] = {
    OPEN: [LOCAL_CLOSED, REMOTE_CLOSED, RESET, RESET],
    LOCAL_CLOSED: [None, CLOSED, RESET, RESET],  # None: two FINs would kill some peers.
    REMOTE_CLOSED: [CLOSED, REMOTE_CLOSED, RESET, RESET],
    CLOSED: [None, None, None, None],
    RESET: [None, None, None, None],
}
PRODUCT = [*itertools.product(StreamState, StreamInput)]


def test_the_tests_know_all_states_and_inputs() -> None:
    assert [*EXPECTED] == [*StreamState]
    assert [*StreamInput] == INPUTS


@pytest.mark.parametrize(("state", "event"), PRODUCT)
def test_the_table_says_what_it_should(state: StreamState, event: StreamInput) -> None:
    assert TRANSITIONS.get((state, event)) is EXPECTED[state][INPUTS.index(event)]


def test_the_table_has_no_other_rows() -> None:
    assert {*TRANSITIONS} <= {*PRODUCT}


def reach(dialogue: Dialogue, state: StreamState) -> YamuxStream:
    stream = dialogue.established()
    if state in (LOCAL_CLOSED, CLOSED):
        stream.send_eof()
    if state in (REMOTE_CLOSED, CLOSED):
        dialogue.hear(fin(stream.id))
    if state is RESET:
        stream.reset()
    dialogue.say()
    assert stream.state is state
    return stream


def apply(dialogue: Dialogue, stream: YamuxStream, event: StreamInput) -> None:
    match event:
        case StreamInput.SEND_FIN:
            stream.send_eof()
        case StreamInput.RECEIVE_FIN:
            dialogue.hear(fin(stream.id))
        case StreamInput.SEND_RST:
            stream.reset()
        case StreamInput.RECEIVE_RST:
            dialogue.hear(rst(stream.id))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "event"), PRODUCT)
def test_a_stream_goes_where_the_table_says(role: Role, state: StreamState, event: StreamInput) -> None:
    dialogue = Dialogue(role)
    stream = reach(dialogue, state)
    apply(dialogue, stream, event)
    expected = EXPECTED[state][INPUTS.index(event)]
    assert stream.state is (expected or state)
    if expected is None:
        assert dialogue.say() == []  # What cannot happen any more does nothing.
    elif event is SEND_FIN:
        assert dialogue.say() == [fin(stream.id)]
    elif event is SEND_RST:
        assert dialogue.say() == [rst(stream.id)]
    else:
        assert dialogue.say() == []
    is_over = stream.state in (CLOSED, RESET)
    assert stream.is_over is is_over
    assert (stream.id in dialogue.connection.streams) is not is_over
    assert stream.can_send is (stream.state in (OPEN, REMOTE_CLOSED))
    assert stream.is_expecting_data is (stream.state in (OPEN, LOCAL_CLOSED))


def test_a_streams_state_is_in_its_repr() -> None:
    dialogue = Dialogue()
    assert repr(reach(dialogue, LOCAL_CLOSED)) == "<YamuxStream 2 LOCAL_CLOSED>"
