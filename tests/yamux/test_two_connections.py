"""Two connections that talk to each other, whatever happens in between."""

import math
import random
from itertools import chain

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otun.errors import LocalProtocolError
from otun.yamux import Role, SessionLimits
from otun.yamux.connection import OPEN_BACKLOG
from otun.yamux.limits import DEFAULT_LIMITS
from otun.yamux.patience import ACKNOWLEDGE_TIMEOUT

from .pair import End, Party, make_pair, settle
from .wire import HEADER_SIZE, KIB, MIB, WINDOW

WINDOWS = st.integers(WINDOW, WINDOW + 10) | st.integers(WINDOW, 1 * MIB)


@pytest.mark.conformance(46)
# No shrinking: a smaller seed is no simpler one.
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(client_window=WINDOWS, server_window=WINDOWS, seed=st.integers(0, 2**32))
def test_ten_windows_full_arrive_whatever_the_windows_and_the_pieces(
    client_window: int, server_window: int, seed: int
) -> None:
    chance = random.Random(seed)
    client, server = make_pair(client_window, server_window)
    ours = client.open()
    ours.write(10 * server_window)
    settle(client, server, is_reading=False)
    theirs = server.parties[1]
    theirs.write(10 * client_window)
    for party in (ours, theirs):
        party.finish()
    largest_read = chance.choice([5 * KIB, 64 * KIB, 512 * KIB])
    for _ in range(20_000):
        if ours.has_ended and theirs.has_ended:
            break
        for end in (client, server):
            end.flush()
            end.deliver(chance.randint(1, 300 * KIB))
        for party in (ours, theirs):
            party.read(chance.randint(1, largest_read))
        is_moving = ours.unread or theirs.unread or not (client.is_idle and server.is_idle)
        assert is_moving or (ours.has_ended and theirs.has_ended), "it has stalled"
    assert (theirs.received, ours.received) == (10 * server_window, 10 * client_window)


@pytest.mark.conformance(29)
def test_five_backlogs_of_streams_are_opened_used_and_forgotten() -> None:
    client, server = make_pair(WINDOW, MIB)
    opened = 0
    for _ in range(10):
        while client.connection.can_open and opened < 5 * 256:
            party = client.open()
            party.write(100)
            party.finish()
            opened += 1
        settle(client, server)
        for party in server.parties.values():
            party.finish()
        settle(client, server)
        assert all(party.received == 100 and party.has_ended for party in server.parties.values())
        assert all(party.has_ended for party in client.parties.values())
        assert client.connection.streams == server.connection.streams == {}
    assert opened == 5 * 256


@pytest.mark.conformance(49)
def test_a_thousand_streams_share_the_connection_and_all_arrive() -> None:
    client, server = make_pair(WINDOW, WINDOW)
    for number in range(1000):
        if not client.connection.can_open:
            settle(client, server, is_reading=False)
        client.open().write(500 + 7 * number)
    settle(client, server)
    assert [party.received for party in server.parties.values()] == [500 + 7 * number for number in range(1000)]


PICKS = st.integers(0, 1000)
SIZES = st.sampled_from([1, 11, 1000, 64 * KIB, 130 * KIB, 300 * KIB])


class GoingEnd(End):
    """It checks that the other end's GoAway leaves all data behind it that was sent before."""

    def __init__(self, role: Role, limits: SessionLimits) -> None:
        super().__init__(role, limits)
        self.sent_before_going: dict[int, int] = {}

    def went_away(self, code: int) -> None:
        assert isinstance(self.other, GoingEnd)
        for stream_id, sent in self.other.sent_before_going.items():
            party = self.parties.get(stream_id)
            if party is not None and party.stream.is_expecting_data:
                assert party.received >= sent, "a GoAway ahead of data"


LIMITS = (
    SessionLimits(receive_window=WINDOW, max_receive_window=2 * MIB, max_held=MIB),
    SessionLimits(receive_window=WINDOW + 100 * KIB, max_receive_window=MIB, max_held=3 * MIB),
)
"""So little may be held that streams are reset for it, and so much that windows grow."""


class TwoConnections(RuleBasedStateMachine):
    """Any of the calls, in any order; *deliver* and *read* are rules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = GoingEnd(Role.CLIENT, LIMITS[0]), GoingEnd(Role.SERVER, LIMITS[1])
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]
        self.pings = [0, 0]

    @property
    def parties(self) -> list[Party]:
        return [*chain.from_iterable(end.parties.values() for end in self.ends)]

    def party(self, pick: int) -> Party:
        return self.parties[pick % len(self.parties)]

    @initialize()
    def begin(self) -> None:
        for end in self.ends:
            end.open()
            end.open()

    @rule(end=st.integers(0, 1))
    def open(self, end: int) -> None:
        if self.ends[end].connection.may_ever_open:
            self.ends[end].open()
        else:
            with pytest.raises(LocalProtocolError):
                self.ends[end].open()

    @rule(pick=PICKS)
    def accept(self, pick: int) -> None:
        self.party(pick).stream.acknowledge()

    # On several streams at once: otherwise hardly any would get to send before something ends it.
    @rule(picks=st.lists(PICKS, min_size=1, max_size=8), size=SIZES)
    def write(self, picks: list[int], size: int) -> None:
        for pick in picks:
            self.party(pick).write(size)

    @rule(picks=st.lists(PICKS, min_size=1, max_size=8), size=SIZES)
    def read(self, picks: list[int], size: int) -> None:
        for pick in picks:
            self.party(pick).read(size)

    @rule(pick=PICKS)
    def half_close(self, pick: int) -> None:
        self.party(pick).finish()

    @rule(pick=PICKS)
    def finish_both_ways(self, pick: int) -> None:
        """Otherwise hardly any stream would be over and unread."""
        for end in self.ends:
            party = end.parties.get(self.party(pick).stream.id)
            if party is not None:
                party.finish()

    @rule(pick=PICKS)
    def abandon(self, pick: int) -> None:
        """Leave the stream, whatever is unread or unsent."""
        self.party(pick).leave()

    @rule(pick=PICKS)
    def reset(self, pick: int) -> None:
        self.party(pick).reset()

    @rule(end=st.integers(0, 1))
    def ping(self, end: int) -> None:
        if self.pings[end] - len(self.ends[end].pongs) < DEFAULT_LIMITS.max_pongs:
            self.ends[end].connection.ping()
            self.pings[end] += 1

    @rule(end=st.integers(0, 1), is_wanted=st.sampled_from([False, False, False, True]))
    def go_away(self, end: int, is_wanted: bool) -> None:
        """Not too often: nothing can be opened afterwards."""
        connection = self.ends[end].connection
        if is_wanted and not connection.has_gone_away:
            self.ends[end].sent_before_going = {key: party.sent for key, party in self.ends[end].parties.items()}
            connection.go_away()

    @rule(seconds=st.sampled_from([0.01, 0.5, ACKNOWLEDGE_TIMEOUT, DEFAULT_LIMITS.close_timeout]))
    def let_time_pass(self, seconds: float) -> None:
        for end in self.ends:
            end.now += seconds
            end.connection.handle_timeouts(end.now)

    @rule(end=st.integers(0, 1), seconds=st.sampled_from([0.001, 0.1, 60.0]))
    def end_round_trip(self, end: int, seconds: float) -> None:
        if self.ends[end].is_round_trip_wanted:
            self.ends[end].is_round_trip_wanted = False
            self.ends[end].connection.round_trip_ended(seconds)

    @rule(end=st.integers(0, 1))
    def flush(self, end: int) -> None:
        self.ends[end].flush()

    @rule(end=st.integers(0, 1), size=SIZES)
    def deliver(self, end: int, size: int) -> None:
        self.ends[end].deliver(size)

    @rule(end=st.integers(0, 1))
    def speak(self, end: int) -> None:
        self.ends[end].flush()
        self.ends[end].deliver(len(self.ends[end].under_way))

    @rule()
    def settle(self) -> None:
        settle(*self.ends)
        for end in self.ends:
            self.check_settled(end)

    @rule()
    def settle_without_reading(self) -> None:
        settle(*self.ends, is_reading=False)
        for end in self.ends:
            self.check_windows(end)

    @invariant()
    def the_queues_have_an_end(self) -> None:
        for end in self.ends:
            control = (2 * len(end.parties) + 1) * HEADER_SIZE
            assert end.connection.queued_bytes < DEFAULT_LIMITS.send_queue + WINDOW + HEADER_SIZE + control

    @invariant()
    def whoever_has_heard_the_end_has_heard_everything(self) -> None:
        for end in self.ends:
            for stream_id, party in end.parties.items():
                assert not party.has_ended or party.received == end.other.parties[stream_id].sent

    @invariant()
    def what_is_held_and_granted_is_known_and_has_an_end(self) -> None:
        for end in self.ends:
            connection, windows = end.connection, end.connection.windows
            live = connection.streams.values()
            assert windows.held + windows.granted <= connection.limits.max_held
            assert windows.granted == sum(stream.window - WINDOW for stream in live)
            assert windows.held == sum(party.unread for party in end.parties.values())
            assert windows.held == sum(stream.unread for stream in (*live, *windows.ended_unread))
            assert all(stream.is_over and stream.unread for stream in windows.ended_unread)
            for stream in live:
                assert WINDOW <= stream.window <= connection.limits.max_receive_window
                if not stream.is_read_closed:  # A body that has not arrived is in none of the three.
                    assert stream.receive_credit + stream.unread + stream.ungranted <= stream.window

    @invariant()
    def any_frame_answers_an_open(self) -> None:
        for party in self.parties:
            has_heard = party.received or party.has_ended or party.is_reset
            assert party.stream.is_acknowledged or not (party.stream.is_local and has_heard)

    def check_windows(self, end: End) -> None:
        assert {*end.connection.streams} == {*end.other.connection.streams}
        assert end.pongs == [*range(self.pings[self.ends.index(end)])]
        for stream_id, stream in end.connection.streams.items():
            party, peer = end.parties[stream_id], end.other.parties[stream_id]
            assert stream.is_acknowledged
            assert stream.receive_credit == peer.stream.send_credit
            assert peer.sent == party.received
            if not stream.is_read_closed:
                assert stream.receive_credit + party.unread + stream.ungranted == stream.window

    def check_settled(self, end: End) -> None:
        self.check_windows(end)
        for stream_id, stream in end.connection.streams.items():
            party = end.parties[stream_id]
            assert not (party.unsent and stream.can_send), "it has stalled"
            assert party.has_ended is not end.other.parties[stream_id].stream.can_send

    def check_empty(self, end: End) -> None:
        """All that remains of ended streams is that they have been."""
        assert end.connection.streams == {}
        assert end.connection.next_deadline == math.inf
        assert end.connection.queued_bytes == 0
        if not end.connection.may_ever_open:
            return
        opened = 0
        while end.connection.can_open:
            end.open()
            opened += 1
        assert opened == OPEN_BACKLOG, "a slot has leaked"
        end.flush()
        end.deliver(len(end.under_way))
        assert len(end.other.connection.streams) == OPEN_BACKLOG, "a place in the backlog has leaked"

    def teardown(self) -> None:
        self.settle()
        for party in self.parties:
            party.finish()
        settle(*self.ends)
        self.check_empty(self.ends[0])
        settle(*self.ends)
        for party in self.parties:
            party.reset()
        settle(*self.ends)
        self.check_empty(self.ends[1])


TestTwoConnections = TwoConnections.TestCase
TestTwoConnections.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
