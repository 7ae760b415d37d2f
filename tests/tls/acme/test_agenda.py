"""Whose turn it is: a name waits for its own pauses, for the authority's, and for the budget."""

import math
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otun.tls.acme import agenda as agenda_module
from otun.tls.acme import budget as budget_module
from otun.tls.acme.agenda import ORDERS_AT_ONCE, Agenda
from otun.tls.acme.budget import NEW_NAMES, NEW_NAMES_WINDOW, ORDERS, ORDERS_WINDOW, OrderBudget
from otun.tls.acme.failures import AuthorityUnavailable, OrderFailed, RateLimited, ValidationFailed

NOW = 1e9
HOUR = 3600.0


def start_all(agenda: Agenda, now: float) -> list[str]:
    names = []
    while (turn := agenda.start_next(now)) is not None:
        names.append(turn.name)
    return names


def succeed_with_all(agenda: Agenda, now: float) -> list[str]:
    """Have every order succeed at once until nothing is due; the names in order."""
    done: list[str] = []
    while names := start_all(agenda, now):
        for name in names:
            agenda.succeeded(name, now + 1e9, now)
        done += names
    return done


def test_first_name_is_due_at_once() -> None:
    agenda = Agenda({})
    assert agenda.start_next(NOW) is None
    agenda.add("a.test", is_renewal=False)
    assert agenda.next_due(NOW) <= NOW
    assert start_all(agenda, NOW) == ["a.test"]
    assert agenda.next_due(NOW) == math.inf


def test_name_is_due_again_for_its_renewal() -> None:
    agenda = Agenda({})
    agenda.add("a.test", is_renewal=False)
    start_all(agenda, NOW)
    agenda.succeeded("a.test", NOW + 100, NOW)
    assert agenda.next_due(NOW) == NOW + 100
    assert agenda.start_next(NOW + 99) is None
    turn = agenda.start_next(NOW + 100)
    assert turn is not None
    assert turn.is_renewal


def test_few_orders_are_under_way_at_a_time() -> None:
    agenda = Agenda({})
    for number in range(10):
        agenda.add(f"{number}.test", is_renewal=False)
    assert len(start_all(agenda, NOW)) == ORDERS_AT_ONCE
    assert agenda.next_due(NOW) == math.inf
    agenda.succeeded("0.test", NOW + 1e9, NOW)
    assert len(start_all(agenda, NOW)) == 1


def test_renewals_come_first() -> None:
    agenda = Agenda({})
    for number in range(ORDERS_AT_ONCE):
        agenda.add(f"new{number}.test", is_renewal=False)
    agenda.add("old.test", is_renewal=True)
    assert start_all(agenda, NOW)[0] == "old.test"


def test_name_that_failed_waits_while_others_do_not() -> None:
    agenda = Agenda({})
    agenda.add("bad.test", is_renewal=False)
    start_all(agenda, NOW)
    assert agenda.failed("bad.test", OrderFailed("no"), NOW, 0.0) == NOW + 60
    agenda.add("good.test", is_renewal=False)
    assert start_all(agenda, NOW) == ["good.test"]
    assert start_all(agenda, NOW + 60) == ["bad.test"]


def test_names_that_have_failed_let_those_go_first_that_have_not() -> None:
    """Else whoever brings hundreds of names that cannot be validated would use up the orders of all others."""
    agenda = Agenda({})
    bad = [f"bad{number}.test" for number in range(ORDERS_AT_ONCE)]
    for name in bad:
        agenda.add(name, is_renewal=False)
    assert start_all(agenda, NOW) == bad
    for name in bad:
        agenda.failed(name, ValidationFailed("no"), NOW, 0.0)
    agenda.add("good.test", is_renewal=False)
    assert start_all(agenda, NOW + 60)[0] == "good.test"


def test_forgotten_name_keeps_its_pause() -> None:
    agenda = Agenda({})
    agenda.add("bad.test", is_renewal=False)
    start_all(agenda, NOW)
    agenda.remove("bad.test")
    agenda.failed("bad.test", RateLimited("no", retry_after=7200), NOW, 0.0)
    agenda.add("bad.test", is_renewal=False)
    assert agenda.next_due(NOW) == NOW + 7200


def test_forgotten_name_is_not_ordered_twice_at_a_time() -> None:
    agenda = Agenda({})
    agenda.add("a.test", is_renewal=False)
    start_all(agenda, NOW)
    agenda.remove("a.test")
    agenda.add("a.test", is_renewal=False)
    assert agenda.start_next(NOW) is None
    agenda.succeeded("a.test", NOW + 1e6, NOW)
    assert agenda.next_due(NOW) == NOW + 1e6


def test_kinds_take_turns_with_failed_validations_only() -> None:
    agenda = Agenda({})
    agenda.add("a.test", is_renewal=False)
    now, seen = NOW, []
    for failure in (OrderFailed("no"), ValidationFailed("no"), RateLimited("no"), ValidationFailed("no")):
        turn = agenda.start_next(now)
        assert turn is not None
        seen.append(turn.rejections)
        now = agenda.failed("a.test", failure, now, 0.0)
    assert seen == [0, 0, 1, 1]


def test_outage_holds_up_everybody_and_counts_once() -> None:
    agenda = Agenda({})
    for name in ("a.test", "b.test"):
        agenda.add(name, is_renewal=False)
    start_all(agenda, NOW)
    assert agenda.interrupted("a.test", AuthorityUnavailable("down"), NOW, 0.0) == NOW + 60
    assert agenda.interrupted("b.test", AuthorityUnavailable("down"), NOW + 1, 0.0) is None
    agenda.add("c.test", is_renewal=False)
    assert agenda.next_due(NOW) == NOW + 60
    start_all(agenda, NOW + 61)
    assert agenda.interrupted("a.test", AuthorityUnavailable("down"), NOW + 61, 0.0) == NOW + 181
    agenda.succeeded("c.test", NOW + 1e9, NOW + 61)
    assert start_all(agenda, NOW + 62) == []  # Not without any pause, even though the authority is there again.
    assert start_all(agenda, NOW + 121) == ["a.test"]


def test_stopped_order_can_be_gone_on_with_at_once() -> None:
    agenda = Agenda({})
    agenda.add("a.test", is_renewal=False)
    start_all(agenda, NOW)
    agenda.stopped("a.test")
    assert start_all(agenda, NOW) == ["a.test"]


def test_new_names_are_limited_and_renewals_are_not() -> None:
    agenda = Agenda({})
    for number in range(NEW_NAMES + 5):
        agenda.add(f"{number}.test", is_renewal=False)
    assert len(succeed_with_all(agenda, NOW)) == NEW_NAMES
    assert agenda.held_until(NOW) == agenda.next_due(NOW) == NOW + NEW_NAMES_WINDOW
    for number in range(20):
        agenda.add(f"old{number}.test", is_renewal=True)
    assert len(succeed_with_all(agenda, NOW)) == 20
    assert len(succeed_with_all(agenda, NOW + NEW_NAMES_WINDOW)) == 5
    assert agenda.held_until(NOW + NEW_NAMES_WINDOW) is None


def test_limit_for_new_names_outlives_the_server() -> None:
    agenda = Agenda({})
    for number in range(NEW_NAMES):
        agenda.add(f"{number}.test", is_renewal=False)
    succeed_with_all(agenda, NOW)
    agenda = Agenda(agenda.new_names)
    agenda.add("one-more.test", is_renewal=False)
    agenda.add("0.test", is_renewal=False)  # It counts already, whatever has become of its certificate.
    assert succeed_with_all(agenda, NOW + 1) == ["0.test"]


def test_names_that_get_no_certificate_do_not_use_up_the_limit() -> None:
    agenda = Agenda({})
    for number in range(NEW_NAMES):
        agenda.add(f"bad{number}.test", is_renewal=False)
    while names := start_all(agenda, NOW):
        for name in names:
            agenda.failed(name, ValidationFailed("no"), NOW, 0.0)
    agenda.add("good.test", is_renewal=False)
    assert start_all(agenda, NOW) == ["good.test"]


def test_stopped_order_counts_when_it_ends() -> None:
    agenda = Agenda({})
    for name in ("good.test", "bad.test"):
        agenda.add(name, is_renewal=False)
    start_all(agenda, NOW)
    agenda.stopped("good.test")
    agenda.stopped("bad.test")
    assert agenda.new_names == {"good.test": NOW, "bad.test": NOW}
    start_all(agenda, NOW + 1)
    agenda.succeeded("good.test", NOW + 1e6, NOW + 2)
    agenda.failed("bad.test", OrderFailed("no"), NOW + 2, 0.0)
    assert agenda.new_names == {"good.test": NOW + 2}


def test_renewal_that_fails_gives_nothing_back() -> None:
    agenda = Agenda({})
    agenda.add("a.test", is_renewal=False)
    start_all(agenda, NOW)
    agenda.succeeded("a.test", NOW + 10, NOW)
    start_all(agenda, NOW + 10)
    agenda.failed("a.test", OrderFailed("no"), NOW + 10, 0.0)
    assert agenda.new_names == {"a.test": NOW}


def test_failing_names_cannot_use_up_the_orders_of_an_account() -> None:
    agenda = Agenda({})
    for number in range(ORDERS + 10):
        agenda.add(f"bad{number}.test", is_renewal=False)
    started = 0
    while names := start_all(agenda, NOW):
        started += len(names)
        for name in names:
            agenda.failed(name, ValidationFailed("no"), NOW, 0.0)
    assert started == ORDERS
    assert agenda.next_due(NOW) == NOW + ORDERS_WINDOW


def test_budget_of_a_clock_that_was_wrong_is_no_prison() -> None:
    budget = OrderBudget({f"{number}.test": NOW + 1e9 for number in range(NEW_NAMES)})
    assert budget.open_at(NOW, is_new=True) == NOW + NEW_NAMES_WINDOW


def test_remembered_failures_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agenda_module, "MAX_NAMES", 3)
    agenda = Agenda({})
    for number in range(10):
        assert not agenda.is_full
        agenda.add(f"{number}.test", is_renewal=False)
        start_all(agenda, NOW)
        agenda.failed(f"{number}.test", OrderFailed("no"), NOW + number, 0.0)
        agenda.remove(f"{number}.test")
    assert len(agenda._attempts) == 3
    agenda.add("9.test", is_renewal=False)
    assert agenda.next_due(NOW) == NOW + 9 + 60


names = st.sampled_from([f"{number}.test" for number in range(6)])


class AnyAgenda(RuleBasedStateMachine):
    """Names come and go, orders end as they will: the limits hold, which are narrow here."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(budget_module, "NEW_NAMES", 2)
        self.patches.setattr(budget_module, "ORDERS", 10)
        self.agenda = Agenda({})
        self.now = NOW
        self.certified: dict[str, float] = {}  # First certificates.
        self.not_before: dict[str, float] = {}
        self.running: list[str] = []
        self.started: list[float] = []
        self.rejected: list[tuple[str, float]] = []

    def teardown(self) -> None:
        self.patches.undo()

    @rule(name=names)
    def want(self, name: str) -> None:
        if name not in self.agenda:
            self.agenda.add(name, is_renewal=name in self.certified)

    @rule(name=names)
    def forget(self, name: str) -> None:
        self.agenda.remove(name)

    @rule(seconds=st.sampled_from([1.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.running)  # No order takes a week.
    @rule()
    def wait_until_something_is_due(self) -> None:
        due = self.agenda.next_due(self.now)
        if self.now < due < math.inf:
            assert self.agenda.start_next(math.nextafter(due, 0)) is None
            self.now = due
            self._start()
            assert self.running

    @rule()
    def start(self) -> None:
        due = self.agenda.next_due(self.now)
        assert self._start() == (due <= self.now)

    def _start(self) -> int:
        number = 0
        while (turn := self.agenda.start_next(self.now)) is not None:
            assert turn.name in self.agenda
            assert turn.name not in self.running
            assert self.now >= self.not_before.get(turn.name, 0)
            self.running.append(turn.name)
            self.started.append(self.now)
            number += 1
        return bool(number)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["success", "success", "success", "failure", "rejection", "interruption", "stop"]),
        jitter=st.floats(0, 1),
    )
    def end(self, data: st.DataObject, outcome: str, jitter: float) -> None:
        name = data.draw(st.sampled_from(self.running))
        self.running.remove(name)
        match outcome:
            case "success":
                self.agenda.succeeded(name, self.now + 1000, self.now)
                self.certified.setdefault(name, self.now)
                self.not_before.pop(name, None)
            case "failure":
                self.not_before[name] = self.agenda.failed(name, OrderFailed("no"), self.now, jitter)
            case "rejection":
                self.not_before[name] = self.agenda.failed(name, ValidationFailed("no"), self.now, jitter)
                self.rejected.append((name, self.now))
            case "interruption":
                again = self.agenda.interrupted(name, AuthorityUnavailable("no"), self.now, jitter)
                assert again is None or again >= self.now + 60
            case _:
                self.agenda.stopped(name)

    @invariant()
    def few_are_under_way(self) -> None:
        assert len(self.running) <= ORDERS_AT_ONCE

    @invariant()
    def limits_hold(self) -> None:
        assert sum(time > self.now - ORDERS_WINDOW for time in self.started) <= 10
        assert sum(time > self.now - NEW_NAMES_WINDOW for time in self.certified.values()) <= 2
        recent = Counter(name for name, time in self.rejected if time > self.now - HOUR)
        # After a success the count begins anew.
        assert all(count <= 5 for name, count in recent.items() if name not in self.certified)


TestAnyAgenda = AnyAgenda.TestCase
TestAnyAgenda.settings = settings(max_examples=250, stateful_step_count=80, deadline=None)
