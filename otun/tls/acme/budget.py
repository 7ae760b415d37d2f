"""How many orders an authority gets, so that nobody can use up its limits by tunnels under ever new names."""

from collections.abc import Mapping
from typing import Final

NEW_NAMES: Final = 40
"""Names that may get their first certificate within `NEW_NAMES_WINDOW`.

Let's Encrypt gives 50 for each registered domain: the rest is for whoever else has certificates under it.
"""

NEW_NAMES_WINDOW: Final = 7 * 24 * 3600.0

ORDERS: Final = 150
"""Orders of any kind within `ORDERS_WINDOW`: half of what Let's Encrypt gives an account."""

ORDERS_WINDOW: Final = 3 * 3600.0


class OrderBudget:
    """Counts orders.  *new_names* is what `new_names` was when the server last ran.

    A renewal counts as an order, but not as a new name.
    """

    def __init__(self, new_names: Mapping[str, float]) -> None:
        self._new_names = dict(new_names)
        self._uncertain: set[str] = set()  # Those of them whose orders have not come to an end.
        self._orders: list[float] = []

    @property
    def new_names(self) -> dict[str, float]:
        """The names that count at present, and when their orders were made: this is to survive the server."""
        return dict(self._new_names)

    def has_counted(self, name: str) -> bool:
        """Whether *name* is one of the new names that count at present."""
        return name in self._new_names

    def open_at(self, now: float, *, is_new: bool) -> float:
        """Return when the next order may be made, for a new name or for another: *now*, or later."""
        self._expire(now)
        opens = now
        if len(self._orders) >= ORDERS:
            opens = self._orders[-ORDERS] + ORDERS_WINDOW
        if is_new and len(self._new_names) >= NEW_NAMES:
            opens = max(opens, sorted(self._new_names.values())[-NEW_NAMES] + NEW_NAMES_WINDOW)
        return opens

    def spend(self, name: str, now: float, *, is_new: bool) -> None:
        """Take note that *name* is being ordered."""
        self._expire(now)
        self._orders.append(now)
        if is_new:
            self._new_names[name] = now
            self._uncertain.add(name)

    def confirm(self, name: str, now: float) -> None:
        """Take note that *name*, which had no certificate, has got one: it is then that authorities count."""
        self._new_names[name] = now
        self._uncertain.discard(name)

    def give_back(self, name: str) -> None:
        """Take note that *name* got no certificate.  If it counts as new for that, it does so no more."""
        if name in self._uncertain:
            self._uncertain.remove(name)
            self._new_names.pop(name, None)

    def _expire(self, now: float) -> None:
        # What seems to lie in the future was noted by a clock that was wrong: it counts from now on.
        start = now - NEW_NAMES_WINDOW
        self._new_names = {name: min(time, now) for name, time in self._new_names.items() if time > start}
        self._uncertain &= self._new_names.keys()
        self._orders = [min(time, now) for time in self._orders if time > now - ORDERS_WINDOW]
