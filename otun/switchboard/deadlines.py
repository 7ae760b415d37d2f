"""A coarse deadline wheel: many time limits, few of which are ever reached."""

import math
from typing import Final, Generic, Protocol, TypeVar

TICK: Final = 0.25
"""Seconds in one slot: limits are of whole seconds, and being late by a quarter of one is harmless."""


class HasDeadline(Protocol):
    """Whoever can be put on the wheel: it keeps the number of its slot, 0 when it has none."""

    deadline_slot: int


MemberT = TypeVar("MemberT", bound=HasDeadline)


class DeadlineWheel(Generic[MemberT]):
    """Members with one deadline each, kept in slots of `TICK` seconds.  All times are on one clock of the caller's."""

    def __init__(self) -> None:
        self._slots: dict[int, set[MemberT]] = {}
        self._turned_to = 0  # The last slot whose members were taken off.

    def __bool__(self) -> bool:
        return bool(self._slots)

    def set(self, member: MemberT, deadline: float) -> None:
        """Give *member* the deadline, instead of the one that it had.

        One that has passed is in the next slot: whoever sets it again and again does not stop the wheel.
        """
        self.clear(member)
        slot = member.deadline_slot = max(math.ceil(deadline / TICK), self._turned_to + 1)
        self._slots.setdefault(slot, set()).add(member)

    def clear(self, member: MemberT) -> None:
        """Take *member* off the wheel, if it is on it."""
        slot = member.deadline_slot
        if slot:
            member.deadline_slot = 0
            members = self._slots[slot]
            members.discard(member)
            if not members:
                del self._slots[slot]

    def pop_expired(self, now: float) -> MemberT | None:
        """Take a member whose deadline has passed off the wheel, and return it; None when there is none."""
        self._turned_to = int(now / TICK)
        for slot, members in self._slots.items():
            if slot * TICK <= now:
                member = next(iter(members))
                self.clear(member)
                return member
        return None
