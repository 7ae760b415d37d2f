"""The deadline wheel's arithmetic."""

from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.switchboard.deadlines import TICK, DeadlineWheel


@attrs.define(eq=False)
class Member:
    deadline_slot: int = 0


def test_nobody_is_called_before_the_deadline_and_everybody_at_most_one_tick_later() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 10.1)
    assert wheel.pop_expired(10.0999) == []
    assert wheel.pop_expired(10.1 + TICK) == [member]


@given(deadline=st.floats(0.001, 1e6))
def test_the_same_holds_for_any_deadline(deadline: float) -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, deadline)
    assert wheel.pop_expired(deadline - 1e-3) == []
    assert wheel.pop_expired(deadline + TICK) == [member]


def test_whoever_was_popped_is_off_the_wheel() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 1.0)
    assert wheel
    assert wheel.pop_expired(2.0) == [member]
    assert not wheel
    assert member.deadline_slot == 0
    assert wheel.pop_expired(100.0) == []


def test_a_new_deadline_takes_the_place_of_the_old_one() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 1.0)
    wheel.set(member, 50.0)
    assert wheel.pop_expired(49.0) == []
    wheel.set(member, 60.0)
    wheel.set(member, 55.0)
    assert wheel.pop_expired(56.0) == [member]
    assert not wheel


def test_a_cleared_deadline_never_comes() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    cleared, kept = Member(), Member()
    wheel.set(cleared, 1.0)
    wheel.set(kept, 1.0)
    wheel.clear(cleared)
    wheel.clear(cleared)
    assert wheel.pop_expired(2.0) == [kept]


@pytest.mark.parametrize("deadline", [0.0, -3.0])
def test_a_deadline_that_has_passed_already_comes_at_once(deadline: float) -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, deadline)
    assert wheel
    assert wheel.pop_expired(TICK) == [member]


def test_members_of_one_slot_keep_apart() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    members = [Member() for _ in range(100)]
    for member in members:
        wheel.set(member, 5.0)
    for member in members[::2]:
        wheel.set(member, 7.0)
    assert set(wheel.pop_expired(5.0 + TICK)) == set(members[1::2])
    assert set(wheel.pop_expired(7.0 + TICK)) == set(members[::2])


@given(
    st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.floats(0, 30))), max_size=60),
    st.lists(st.floats(0, 40), max_size=10),
)
def test_the_wheel_agrees_with_a_dictionary_of_deadlines(
    changes: list[tuple[int, float | None]], times: list[float]
) -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    members = [Member() for _ in range(6)]
    model: dict[int, float] = {}
    for number, deadline in changes:
        if deadline is None:
            wheel.clear(members[number])
            model.pop(number, None)
        else:
            wheel.set(members[number], deadline)
            model[number] = deadline
    for now in sorted(times):
        popped = Counter(members.index(member) for member in wheel.pop_expired(now))
        assert all(count == 1 for count in popped.values())
        assert all(model[number] <= now for number in popped)
        for number in popped:
            del model[number]
        assert all(deadline > now - TICK for deadline in model.values())
    assert bool(wheel) == bool(model)
