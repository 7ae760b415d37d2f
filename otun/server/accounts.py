"""What the tunnels of one identity share: its limits as a whole, and the turns of those who wait to move bytes."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ..access import NO_LIMITS, Limits, Quota
from ..switchboard import Switchboard
from ..switchboard.board import SECONDS_PER_CALL
from .metering import Meter
from .registry import Registration

if TYPE_CHECKING:
    from .throttling import Throttle


class Account:
    """What an identity's tunnels share: its limits as a whole, and the turns.  It is on the board for its deadlines.

    *tunnel_quota* is what the server allows each tunnel of anybody.
    """

    def __init__(self, board: Switchboard, clock: Callable[[], float], tunnel_quota: Quota) -> None:
        self.board: Switchboard = board
        self.clock: Callable[[], float] = clock
        self.deadline_slot: int = 0
        self.limits: Limits = NO_LIMITS
        self.meter: Meter = Meter()
        self.tunnel_quota: Quota = tunnel_quota
        self.tunnels: dict[str, Throttle] = {}  # By kind, name and path.
        self.is_congested: bool = False  # Somebody waits for the identity's bandwidth: nobody overtakes.
        self._waiting: dict[Throttle, None] = {}  # Those with visitors who wait, in the order of their turns.
        self._wakes_at = math.inf

    def __repr__(self) -> str:
        return f"<Account tunnels={len(self.tunnels)} waiting={len(self._waiting)}>"

    def limit(self, limits: Limits, used: int) -> None:
        """Let no more than *limits* pass from now on; *used* bytes have done so on this day."""
        self.limits = limits
        self.meter.limit(limits.whole, used, self.clock())

    def limit_tunnel(self, throttle: "Throttle", used: int) -> None:
        """Do the same for one of its tunnels, with what the server allows; visitors who are there are limited, too."""
        throttle.meter.limit(self.limits.tunnel.stricter(self.tunnel_quota), used, self.clock())
        throttle.take_effect()

    def sweep(self, in_use: set[Registration]) -> None:
        """Forget tunnels that are not *in_use*, have no visitors, and would be the same if they were new."""
        for name, throttle in list(self.tunnels.items()):
            for registration in list(throttle.registrations):
                if registration not in in_use and not registration.streams:
                    throttle.forget(registration)
            if not throttle.registrations and throttle.meter.is_at_rest(self.board.now):
                del self.tunnels[name]

    @property
    def is_at_rest(self) -> bool:
        """Whether it has no tunnels, and would be the same if it were new."""
        return not self.tunnels and self.meter.is_at_rest(self.board.now)

    def wait(self, throttle: "Throttle") -> None:
        """Somebody waits for a turn at *throttle*."""
        self._waiting.setdefault(throttle)
        now = self.board.now
        pause = self.meter.pause(now)
        self.is_congested = self.is_congested or pause > 0
        self._wake_in(max(pause, throttle.meter.pause(now)), now)

    def nobody_waits(self, throttle: "Throttle") -> None:
        """The last one who has waited at *throttle* has left."""
        self._waiting.pop(throttle, None)

    def _wake_in(self, delay: float, now: float) -> None:
        if now + delay < self._wakes_at:
            self._wakes_at = now + delay
            self.board.set_deadline(self, delay)

    # What the board calls

    def deadline_passed(self) -> None:
        """Go on with those whose time may have come."""
        self._wakes_at = math.inf
        self.ready(0)

    def ready(self, events: int) -> None:
        """End what has come to the end of its day, and let those who wait move bytes, in turn."""
        for throttle in list(self.tunnels.values()):
            if throttle.is_used_up:
                throttle.cut()
        now = self.board.now
        turn_ends = now + SECONDS_PER_CALL
        in_vain = 0
        while in_vain < len(self._waiting) and not self.meter.pause(now):
            throttle = next(iter(self._waiting))
            del self._waiting[throttle]
            if throttle.is_used_up or throttle.meter.pause(now):
                in_vain += 1
            else:
                in_vain = 0
                throttle.give_turn()
            if throttle.has_waiters:
                self._waiting[throttle] = None
            if trio.current_time() > turn_ends:
                self.board.call_again(self)
                return
        pause = self.meter.pause(now)
        self.is_congested = bool(self._waiting) and pause > 0
        if self._waiting:
            self._wake_in(max(pause, min(throttle.meter.pause(now) for throttle in self._waiting)), now)

    def flush(self) -> None:
        """Nothing is put off."""

    def abort(self) -> None:
        """Go on all the same: a failing waiter does not come here."""
