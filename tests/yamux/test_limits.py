"""What each limit does, with small values.  Those that are about time and tasks are in tests/mux/test_limits.py."""

import math
from collections.abc import Callable

import attrs
import pytest

from otun.errors import LimitExceeded
from otun.yamux import Allowance, Role, SessionLimits, YamuxStream

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
    ack,
    data,
    fin,
    go_away,
    ping,
    pong,
    rst,
    syn,
    update,
)


def exceed(dialogue: Dialogue, *frames: Frame) -> str:
    """Send what must end the session, and return the limit that is named."""
    with pytest.raises(LimitExceeded) as caught:
        dialogue.hear(*frames)
    assert f"(limit: {caught.value.limit})" in str(caught.value)
    assert dialogue.say()[0] == go_away(1)
    assert caught.value.limit in {field.name for field in attrs.fields(SessionLimits)}
    return caught.value.limit


# Values


@pytest.mark.parametrize(
    "wrong",
    [
        {"receive_window": WINDOW - 1},
        {"receive_window": 0},
        {"receive_window": 16 * MIB + 1},  # Above the default of `max_receive_window`.
        {"receive_window": MIB, "max_receive_window": MIB - 1},
        {"max_receive_window": WINDOW - 1},
        {"max_receive_window": MAX_UINT32 + 1},
        {"max_held": WINDOW - 1},
        {"max_held": 0},
        {"max_held": -1},
    ],
    ids=str,
)
def test_sizes_that_break_the_specifications_promise_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"window|max_held"):
        SessionLimits(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"receive_window": WINDOW, "max_receive_window": WINDOW, "max_held": WINDOW},
        {"receive_window": MAX_UINT32, "max_receive_window": MAX_UINT32},
    ],
    ids=str,
)
def test_the_smallest_and_the_largest_sizes_are_taken(right: dict[str, int]) -> None:
    assert attrs.asdict(SessionLimits(**right)).items() >= right.items()


def test_limits_are_a_value() -> None:
    assert SessionLimits(max_pongs=3) == SessionLimits(max_pongs=3) != SessionLimits()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        SessionLimits().max_pongs = 3


# Streams


def test_receive_window_is_given_with_syn_and_ack() -> None:
    dialogue = Dialogue(limits=SessionLimits(receive_window=WINDOW + 9))
    dialogue.open()
    dialogue.hear(syn(1))
    dialogue.opened[1].acknowledge()
    assert dialogue.say() == [syn(2, 9), ack(1, 9)]


@pytest.mark.parametrize("leave", ["reset", "both finish", "peer resets"])
def test_beyond_max_streams_opens_are_refused_and_everything_else_goes_on(leave: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_streams=3))
    streams = [dialogue.accepted(1), dialogue.open(), dialogue.accepted(3)]
    dialogue.say()
    assert dialogue.hear(syn(5), data(5, b"lost"), data(7, b"lost", SYN | FIN), data(1, b"kept")) == [
        ("data", 1, b"kept")
    ]
    assert dialogue.say() == [rst(5), rst(7)]
    assert len(dialogue.connection.streams) == 3
    if leave == "peer resets":
        dialogue.hear(rst(3))
    elif leave == "reset":
        streams[2].reset()
    else:
        streams[2].send_eof()
        dialogue.hear(fin(3))
    assert dialogue.hear(syn(9), syn(11)) == [("opened", 9)]
    assert rst(11) in dialogue.say()


def test_max_streams_does_not_bind_our_own_opens() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_streams=1))
    dialogue.accepted(1)
    assert dialogue.open().id == 2


def test_accept_backlog_counts_the_streams_that_nobody_has_taken() -> None:
    dialogue = Dialogue(limits=SessionLimits(accept_backlog=2))
    dialogue.accepted(1)
    assert dialogue.hear(syn(3), syn(5), syn(7)) == [("opened", 3), ("opened", 5)]
    assert dialogue.say() == [rst(7)]
    dialogue.opened[3].acknowledge()
    assert dialogue.hear(syn(9), syn(11)) == [("opened", 9)]


def test_close_timeout_is_how_long_a_closed_stream_waits_for_the_peers_end() -> None:
    dialogue = Dialogue(limits=SessionLimits(close_timeout=7.0))
    dialogue.accepted(1).close(100.0)
    assert dialogue.connection.next_deadline == 107.0
    dialogue.connection.handle_timeouts(106.9)
    assert [*dialogue.connection.streams] == [1]
    dialogue.connection.handle_timeouts(107.0)
    assert dialogue.say() == [fin(1), rst(1)]


# Budgets

NOTHING = 0.0
"""So much comes back per second where a test is about what may happen at once."""


@pytest.mark.conformance(82)
def test_more_streams_opened_in_vain_than_resets_allows_end_the_session() -> None:
    dialogue = Dialogue(limits=SessionLimits(resets=Allowance(3, per_second=NOTHING), accept_backlog=1))
    dialogue.hear(syn(1), rst(1), syn(3), update(3, 0, SYN | ACK | FIN | RST))
    dialogue.hear(syn(5), syn(7))  # The second one is refused.
    assert dialogue.say() == [rst(7)]
    assert exceed(dialogue, syn(9)) == "resets"


def test_refusals_after_our_go_away_count_as_resets() -> None:
    dialogue = Dialogue(limits=SessionLimits(resets=Allowance(2, per_second=NOTHING)))
    dialogue.connection.go_away()
    dialogue.hear(syn(1), syn(3))
    assert exceed(dialogue, syn(5)) == "resets"


def test_resets_come_back_with_the_time_that_the_reads_bring() -> None:
    dialogue = Dialogue(limits=SessionLimits(resets=Allowance(2, per_second=4.0)))
    dialogue.hear(syn(1), rst(1), syn(3), rst(3), now=50.0)
    dialogue.hear(syn(5), rst(5), syn(7), rst(7), now=50.5)
    with pytest.raises(LimitExceeded):
        dialogue.hear(syn(9), rst(9), now=50.6)


def test_resets_of_streams_that_we_opened_cost_nothing() -> None:
    dialogue = Dialogue(Role.CLIENT, limits=SessionLimits(resets=Allowance(0, per_second=NOTHING)))
    for _ in range(10):
        dialogue.hear(rst(dialogue.open().id))


EMPTY: dict[str, list[Frame]] = {
    "empty data": [data(1)],
    "update of 0": [update(1)],
    "update of 0 on a stream of ours": [ack(2), update(2)],
    "ack of what the peer opened": [ack(1)],
    "second ack": [ack(2), ack(2)],
    "second fin": [fin(3), fin(3)],
    "second fin on data": [fin(3), data(3, b"", FIN)],
    "empty data on an unknown id": [data(99)],
    "update of 0 on an unknown id": [update(99)],
    "empty data on id 0": [data(0)],
}


@pytest.mark.conformance(85, 57, 23)
@pytest.mark.parametrize("name", EMPTY)
def test_more_frames_that_say_nothing_than_empty_frames_allows_end_the_session(name: str) -> None:
    dialogue = Dialogue(limits=SessionLimits(empty_frames=Allowance(5, per_second=NOTHING)))
    dialogue.accepted(1)
    dialogue.open()
    dialogue.accepted(3)
    dialogue.hear(*EMPTY[name])
    dialogue.calls.clear()
    empty = EMPTY[name][-1]
    dialogue.hear(*[empty] * 4)
    assert exceed(dialogue, empty, empty) == "empty_frames"
    assert dialogue.calls == []


def test_empty_frames_come_back_with_the_time_that_the_reads_bring() -> None:
    dialogue = Dialogue(limits=SessionLimits(empty_frames=Allowance(2, per_second=4.0)))
    dialogue.accepted(1)
    for turn in range(20):
        dialogue.hear(data(1), update(1), now=50.0 + turn / 2)
    with pytest.raises(LimitExceeded):
        dialogue.hear(data(1), now=59.6)


def _ends_normally(dialogue: Dialogue, stream_id: int) -> None:
    dialogue.hear(data(stream_id, b"request"), update(stream_id, 9), fin(stream_id))
    dialogue.connection.streams[stream_id].send_eof()


def _crosses_with_our_reset(dialogue: Dialogue, stream_id: int) -> None:
    dialogue.connection.streams[stream_id].reset()
    dialogue.hear(data(stream_id, b"in flight"), update(stream_id, 9), data(stream_id, b"", FIN), rst(stream_id))


def _finishes_as_we_reset(dialogue: Dialogue, stream_id: int) -> None:
    dialogue.hear(data(stream_id, b"request"))
    dialogue.connection.streams[stream_id].reset()
    dialogue.hear(ack(stream_id), fin(stream_id), fin(stream_id))


def _finishes_first(dialogue: Dialogue, stream_id: int) -> None:
    dialogue.connection.streams[stream_id].send_eof()
    dialogue.hear(data(stream_id, b"", FIN), fin(stream_id), rst(stream_id))


def _closes_and_drains(dialogue: Dialogue, stream_id: int) -> None:
    dialogue.connection.streams[stream_id].close(0.0)
    dialogue.hear(data(stream_id, b"in flight"), data(stream_id, b"more", FIN))


@pytest.mark.parametrize(
    "live",
    [_ends_normally, _crosses_with_our_reset, _finishes_as_we_reset, _finishes_first, _closes_and_drains],
    ids=lambda live: live.__name__.strip("_"),
)
@pytest.mark.parametrize("opener", ["peer", "we"])
def test_what_visitors_cause_costs_an_honest_peer_nothing(live: Callable[[Dialogue, int], None], opener: str) -> None:
    none = Allowance(0, per_second=NOTHING)
    dialogue = Dialogue(limits=SessionLimits(resets=none, empty_frames=none))
    for number in range(5):
        stream = dialogue.accepted(2 * number + 1) if opener == "peer" else dialogue.established()
        live(dialogue, stream.id)
        dialogue.say()
    assert dialogue.connection.streams == {}


def test_one_second_fin_per_stream_costs_an_honest_peer_nothing() -> None:
    dialogue = Dialogue(limits=SessionLimits(empty_frames=Allowance(0, per_second=NOTHING)))
    for stream_id in (1, 3, 5):
        stream = dialogue.accepted(stream_id)
        dialogue.hear(fin(stream_id), fin(stream_id))
        stream.send_eof()


def test_the_first_answer_to_an_open_says_something_though_it_is_empty() -> None:
    dialogue = Dialogue(Role.CLIENT, limits=SessionLimits(empty_frames=Allowance(0, per_second=NOTHING)))
    for answer in (ack, update, data, fin):
        dialogue.hear(answer(dialogue.open().id))


# Output that a peer does not read


@pytest.mark.conformance(87)
@pytest.mark.parametrize("size", [1, 100, 300 * KIB])
def test_from_send_queue_on_writers_wait(size: int) -> None:
    dialogue = Dialogue(limits=SessionLimits(send_queue=size))
    streams = [dialogue.accepted(stream_id) for stream_id in (1, 3, 5)]
    dialogue.hear(*[update(stream.id, 16 * MIB) for stream in streams])

    def write(stream: YamuxStream) -> None:
        while allowance := stream.send_allowance():
            assert dialogue.connection.queued_bytes < size
            stream.send_data(bytes(min(allowance, 50)))

    dialogue.reactions["window_opened"] = write
    for stream in streams:
        write(stream)
    assert dialogue.connection.queued_bytes >= size
    dialogue.connection.data_to_send()
    dialogue.connection.data_to_send()
    dialogue.connection.refill()
    assert {call[0] for call in dialogue.calls} == {"window_opened"}


@pytest.mark.conformance(83)
def test_beyond_max_pongs_pings_are_ignored() -> None:
    dialogue = Dialogue(limits=SessionLimits(max_pongs=2))
    dialogue.hear(ping(1), ping(2), ping(3))
    assert dialogue.say() == [pong(1), pong(2)]
    dialogue.hear(ping(4))
    assert dialogue.say() == [pong(4)]


@pytest.mark.conformance(81)
def test_more_refusals_than_max_refusals_that_nobody_reads_end_the_session() -> None:
    dialogue = Dialogue(limits=SessionLimits(accept_backlog=0, max_refusals=2))
    dialogue.hear(syn(1), syn(3))
    assert dialogue.say() == [rst(1), rst(3)]
    dialogue.hear(syn(5), syn(7))
    assert exceed(dialogue, syn(9)) == "max_refusals"


@pytest.mark.conformance(82, 87)
@pytest.mark.parametrize("react", [YamuxStream.reset, YamuxStream.send_eof])
def test_more_ends_than_max_ends_that_nobody_reads_end_the_session(react: Callable[[YamuxStream], None]) -> None:
    dialogue = Dialogue(limits=SessionLimits(max_ends=2))
    dialogue.reactions["opened"] = react
    dialogue.hear(syn(1), syn(3))
    assert len(dialogue.say()) == 2
    dialogue.hear(syn(5), syn(7))
    assert exceed(dialogue, syn(9)) == "max_ends"


def test_no_limit_is_without_a_name_in_the_tests() -> None:
    """A new field must be shown to have an effect, here or in tests/mux/test_limits.py, and then be added here."""
    assert {field.name for field in attrs.fields(SessionLimits)} == {
        "receive_window",
        "max_receive_window",  # test_windows.py
        "max_held",  # test_eviction.py
        "max_streams",
        "accept_backlog",
        "resets",
        "empty_frames",
        "send_queue",
        "max_pongs",
        "max_refusals",
        "max_ends",
        "max_waiting_opens",  # From here on, but for `close_timeout`: tests/mux/test_limits.py
        "close_timeout",
        "stall_timeout",
        "keepalive_interval",
        "ping_timeout",
    }
    assert math.isfinite(SessionLimits().max_held)


@pytest.mark.parametrize(
    "limits",
    [
        *[{name: -1} for name in ("max_streams", "accept_backlog", "max_pongs", "max_waiting_opens", "send_queue")],
        {"send_queue": 0},
        {"close_timeout": math.nan},
        {"keepalive_interval": -1.0},
        {"max_held": math.nan},
    ],
    ids=str,
)
def test_what_limits_nothing_is_refused(limits: dict[str, float]) -> None:
    [name] = limits
    with pytest.raises(ValueError, match=name):
        SessionLimits(**limits)


@pytest.mark.parametrize(("at_once", "per_second"), [(-1, 1.0), (1, -1.0), (1, math.nan)])
def test_an_allowance_is_never_negative(at_once: int, per_second: float) -> None:
    with pytest.raises(ValueError, match="negative"):
        Allowance(at_once, per_second=per_second)
