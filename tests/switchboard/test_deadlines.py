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


def _pop_all(wheel: DeadlineWheel[Member], now: float) -> list[Member]:
    """Pop as the board does: one at a time, since each may change the others' deadlines when it is called."""
    popped = []
    while (member := wheel.pop_expired(now)) is not None:
        popped.append(member)
    return popped


def test_nobody_is_called_before_the_deadline_and_everybody_at_most_one_tick_later() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 10.1)
    assert _pop_all(wheel, 10.0999) == []
    assert _pop_all(wheel, 10.1 + TICK) == [member]


@given(deadline=st.floats(0.001, 1e6))
def test_the_same_holds_for_any_deadline(deadline: float) -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, deadline)
    assert _pop_all(wheel, deadline - 1e-3) == []
    assert _pop_all(wheel, deadline + TICK) == [member]


def test_whoever_was_popped_is_off_the_wheel() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 1.0)
    assert wheel
    assert _pop_all(wheel, 2.0) == [member]
    assert not wheel
    assert member.deadline_slot == 0
    assert _pop_all(wheel, 100.0) == []


def test_a_new_deadline_takes_the_place_of_the_old_one() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, 1.0)
    wheel.set(member, 50.0)
    assert _pop_all(wheel, 49.0) == []
    wheel.set(member, 60.0)
    wheel.set(member, 55.0)
    assert _pop_all(wheel, 56.0) == [member]
    assert not wheel


def test_a_cleared_deadline_never_comes() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    cleared, kept = Member(), Member()
    wheel.set(cleared, 1.0)
    wheel.set(kept, 1.0)
    wheel.clear(cleared)
    wheel.clear(cleared)
    assert _pop_all(wheel, 2.0) == [kept]


@pytest.mark.parametrize("deadline", [0.0, -3.0])
def test_a_deadline_that_has_passed_already_comes_at_once(deadline: float) -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    member = Member()
    wheel.set(member, deadline)
    assert wheel
    assert _pop_all(wheel, TICK) == [member]


def test_a_member_that_is_cleared_while_others_are_popped_does_not_come() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    members = {Member() for _ in range(3)}
    for member in members:
        wheel.set(member, 5.0)
    first = wheel.pop_expired(6.0)
    assert first in members
    cleared, moved = members - {first}
    wheel.clear(cleared)
    wheel.set(moved, 9.0)
    assert wheel.pop_expired(6.0) is None
    assert _pop_all(wheel, 10.0) == [moved]


def test_members_of_one_slot_keep_apart() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    members = [Member() for _ in range(100)]
    for member in members:
        wheel.set(member, 5.0)
    for member in members[::2]:
        wheel.set(member, 7.0)
    assert set(_pop_all(wheel, 5.0 + TICK)) == set(members[1::2])
    assert set(_pop_all(wheel, 7.0 + TICK)) == set(members[::2])


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
        popped = Counter(members.index(member) for member in _pop_all(wheel, now))
        assert all(count == 1 for count in popped.values())
        assert all(model[number] <= now for number in popped)
        for number in popped:
            del model[number]
        assert all(deadline > now - TICK for deadline in model.values())
    assert bool(wheel) == bool(model)


def test_whoever_sets_a_deadline_that_has_passed_is_called_once_a_turn() -> None:
    wheel: DeadlineWheel[Member] = DeadlineWheel()
    eager = Member()
    wheel.set(eager, 1.0)
    assert wheel.pop_expired(1.0) is eager
    wheel.set(eager, 1.0)
    assert wheel.pop_expired(1.0) is None
    assert wheel.pop_expired(1.0 + TICK) is eager
