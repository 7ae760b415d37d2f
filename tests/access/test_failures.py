"""Failed log-ins: delays, refusals, and a table that does not grow."""

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otun.access import failures
from otun.access.failures import DELAY, FREE_FAILURES, MAX_FAILURES, MEMORY, REFUSAL_TIME, FailedLogins, source_of


def fail(table: FailedLogins, now: float, *, scope: str = "app", source: str = "a") -> float | None:
    """Fail once: the delay; None if the log-in is not even looked at."""
    if table.begin(scope, source, now):
        return None
    return table.end(scope, source, now, is_right=False)


def test_the_first_failures_are_free_then_each_is_answered_later_then_none_at_all() -> None:
    table = FailedLogins()
    delays = [fail(table, 100.0) for _ in range(MAX_FAILURES + 1)]
    late = [DELAY * number for number in range(1, MAX_FAILURES - FREE_FAILURES + 1)]
    assert delays == [0] * FREE_FAILURES + late + [None]


def test_a_refusal_ends_and_then_failures_are_delayed_at_once() -> None:
    table = FailedLogins()
    for _ in range(MAX_FAILURES):
        fail(table, 100.0)
    assert table.begin("app", "a", 101.0) == REFUSAL_TIME - 1
    assert table.begin("app", "a", 100.0 + REFUSAL_TIME - 0.1) == pytest.approx(0.1)
    after = 100.0 + REFUSAL_TIME
    delays = [fail(table, after) for _ in range(MAX_FAILURES - FREE_FAILURES + 1)]
    assert delays == [DELAY * number for number in range(1, MAX_FAILURES - FREE_FAILURES + 1)] + [None]


def test_other_sources_and_other_tunnels_are_not_concerned() -> None:
    table = FailedLogins()
    for _ in range(MAX_FAILURES):
        fail(table, 1.0)
    assert fail(table, 1.0, source="b") == 0
    assert fail(table, 1.0, scope="other") == 0


def test_a_success_makes_no_failure_undone() -> None:
    table = FailedLogins()
    for _ in range(FREE_FAILURES):
        fail(table, 1.0)
    assert table.begin("app", "a", 1.0) == 0
    assert table.end("app", "a", 1.0, is_right=True) == 0
    assert fail(table, 1.0) == DELAY


def test_failures_are_forgotten_in_time() -> None:
    table = FailedLogins()
    for _ in range(FREE_FAILURES):
        fail(table, 1.0)
    assert fail(table, 1.0 + MEMORY) == 0


def test_log_ins_that_are_being_checked_count_as_failures() -> None:
    table = FailedLogins()
    assert [table.begin("app", "a", 1.0) for _ in range(MAX_FAILURES)] == [0] * MAX_FAILURES
    assert table.begin("app", "a", 1.0) > 0
    table.withdraw("app", "a")
    assert table.begin("app", "a", 1.0) == 0


def test_who_succeeds_leaves_no_trace() -> None:
    table = FailedLogins()
    for number in range(100):
        assert table.begin("app", str(number), 1.0) == 0
        table.end("app", str(number), 1.0, is_right=True)
    assert len(table) == 0


def test_a_full_table_forgets_the_oldest_of_the_scope_that_has_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_SOURCES", 10)
    table = FailedLogins()
    for _ in range(MAX_FAILURES):
        fail(table, 1.0, scope="quiet", source="guesser")
    for number in range(1000):
        fail(table, 1.0, scope="loud", source=str(number))
        assert len(table) <= 10
    assert fail(table, 1.0, scope="quiet", source="guesser") is None
    for _ in range(FREE_FAILURES - 1):
        assert fail(table, 1.0, scope="loud", source="999") == 0
    assert fail(table, 1.0, scope="loud", source="999") == DELAY


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_a_network_of_ipv6_is_one_source(one: str, other: str, is_same: bool) -> None:
    assert (source_of(ip_address(one)) == source_of(ip_address(other))) == is_same


@given(st.lists(st.booleans(), max_size=100))
def test_nobody_gets_more_guesses_than_said(pauses: list[bool]) -> None:
    table = FailedLogins()
    now, guesses, ends = 0.0, 0, 0
    for is_patient in pauses:
        if is_patient:
            now += REFUSAL_TIME
            ends += 1
        guesses += sum(fail(table, now) is not None for _ in range(30))
    assert guesses <= MAX_FAILURES + ends * MAX_FAILURES


class Table(RuleBasedStateMachine):
    """Log-ins that begin and end in any order, against counting."""

    @initialize()
    def open(self) -> None:
        self.table = FailedLogins()
        self.now = 0.0
        self.pending: Counter[tuple[str, str]] = Counter()

    @rule(scope=st.sampled_from("xy"), source=st.sampled_from("abc"))
    def begin(self, scope: str, source: str) -> None:
        seconds = self.table.begin(scope, source, self.now)
        assert 0 <= seconds <= REFUSAL_TIME
        if not seconds:
            self.pending[scope, source] += 1

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), how=st.sampled_from(["right", "wrong", "withdrawn"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        scope, source = data.draw(st.sampled_from(sorted(self.pending)))
        self.pending[scope, source] -= 1
        self.pending = +self.pending
        if how == "withdrawn":
            self.table.withdraw(scope, source)
        else:
            delay = self.table.end(scope, source, self.now, is_right=how == "right")
            assert 0 <= delay <= DELAY * (MAX_FAILURES - FREE_FAILURES)

    @rule(seconds=st.floats(0, 2 * MEMORY))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def those_who_wait_are_known_and_no_more_than_allowed(self) -> None:
        assert len(self.table) >= len(self.pending)
        assert len(self.table) <= 6
        assert max(self.pending.values(), default=0) <= MAX_FAILURES


TestTable = Table.TestCase
