"""Allowances: so often at once, and then so often a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.errors import LimitExceeded
from otun.yamux import Allowance
from otun.yamux.budget import Budget


def budget(at_once: int, per_second: float) -> Budget:
    return Budget(Allowance(at_once, per_second=per_second), "empty_frames", "knocked")


def spend_all(budget: Budget, now: float, *, most: int = 10_000) -> int:
    """Spend at *now* until that is too often, and return how often it was not."""
    for count in range(most):
        try:
            budget.spend(now)
        except LimitExceeded:
            return count
    return most


@pytest.mark.parametrize("at_once", [0, 1, 100])
@pytest.mark.parametrize("start", [0.0, 1e9])
def test_so_much_may_be_spent_at_once_and_not_more(at_once: int, start: float) -> None:
    assert spend_all(budget(at_once, 5.0), start) == at_once


def test_the_error_names_the_limit_what_was_done_and_how_often_is_allowed() -> None:
    knocks = budget(1234, 56.0)
    for _ in range(1234):
        knocks.spend(7.0)
    with pytest.raises(
        LimitExceeded, match=r"knocked more than 1,234 times.*56 times a second.*empty_frames"
    ) as caught:
        knocks.spend(7.0)
    assert caught.value.limit == "empty_frames"


def test_a_budget_fills_with_time() -> None:
    knocks = budget(10, 2.0)
    assert spend_all(knocks, 100.0) == 10
    assert spend_all(knocks, 101.5) == 3
    assert spend_all(knocks, 101.5) == 0
    assert spend_all(knocks, 103.5) == 4


def test_after_a_long_pause_a_spent_budget_has_at_once_again_and_not_more() -> None:
    knocks = budget(10, 2.0)
    assert spend_all(knocks, 0.0) == 10
    for now in (1e6, 2e6):
        assert spend_all(knocks, now) == 10


@pytest.mark.parametrize("left", [1, 5, 9])
def test_after_a_long_pause_a_budget_that_was_not_spent_has_at_once_and_not_more(left: int) -> None:
    knocks = budget(10, 2.0)
    for _ in range(10 - left):
        knocks.spend(0.0)
    assert spend_all(knocks, 1e6) == 10


@given(
    at_once=st.integers(2, 50),
    per_second=st.integers(1, 1000),
    pauses=st.lists(st.integers(1, 3) | st.integers(1, 100), min_size=1, max_size=300),
    start=st.floats(0, 1e6),
)
def test_a_peer_that_stays_within_per_second_is_never_thrown_out(
    at_once: int, per_second: int, pauses: list[int], start: float
) -> None:
    """It also uses what pauses gave it: after *pause* turns it comes *pause* times, as far as `at_once` reaches."""
    knocks = budget(at_once, per_second)
    turns = 0
    for pause in pauses:
        turns += pause
        for _ in range(min(pause, at_once - 1)):  # One less, because times are floats.
            knocks.spend(start + turns / per_second)


@given(
    at_once=st.integers(1, 30),
    per_second=st.integers(0, 100),
    visits=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), min_size=1, max_size=50),
)
def test_nobody_gets_more_than_at_once_and_what_time_gave_since_the_beginning(
    at_once: int, per_second: int, visits: list[tuple[int, int]]
) -> None:
    knocks = budget(at_once, per_second)
    now, granted = 0.0, 0
    for pause, most in visits:
        now += pause / 8
        granted += spend_all(knocks, now, most=most)
        assert granted <= at_once + per_second * now


def test_a_clock_that_stands_still_gives_nothing() -> None:
    knocks = budget(3, 1e9)
    assert spend_all(knocks, 5.0) == 3
    assert spend_all(knocks, 5.0) == 0
