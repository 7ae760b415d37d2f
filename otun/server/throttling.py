"""Tunnels whose visitors may do only so much, and whose turn it is to move bytes among those who have to wait.

Nobody is cut because bytes are many: whoever would move some asks first, and waits in a queue for its turn when it is
too early.  What comes from visitors stays in their sockets meanwhile; what comes for them is held back here, and counts
as unread, so that the windows of their streams bound it.  Tunnels of one identity take turns, and so do the visitors of
one tunnel: a small request waits for one piece of each of the others, however large they are.
"""

import logging
from typing import Final, Protocol

from ..access import UNLIMITED
from ..access.rates import until_next_day
from ..http import pages
from ..http.pages import Page
from ..yamux import YamuxStream
from .accounts import Account
from .holding_back import HeldBack
from .metering import Meter
from .registry import Registration

logger: logging.Logger = logging.getLogger(__name__)

MAX_PIECE: Final = 64 * 1024
"""Bytes that are moved in one turn …"""

MIN_PIECE: Final = 1024
"""… and how few they may be at the lowest rates."""

PIECES_A_SECOND: Final = 10
"""Turns in one second's worth of bytes: so many visitors move some each second, unless their pieces are smaller."""


class Waiter(Protocol):
    """Whoever moves bytes."""

    def take_turn(self) -> bool:
        """Ask `Throttle.turn` how many bytes, move them, and return whether there are more for another turn.

        Whoever could not move any waits for something else: another turn would be in vain, too.
        """

    def cut(self, page: Page) -> None:
        """Wait no longer: nothing may be moved on this day.  Who has asked over HTTP gets *page*."""

    def abort(self) -> None:
        """Close everything at once: the call above has failed."""


class Throttle:
    """One tunnel that is limited, or belongs to an identity that is; also after it was closed and opened again."""

    def __init__(self, account: Account) -> None:
        self.meter: Meter = Meter()
        self.registrations: set[Registration] = set()  # The one that is open, and those that still have visitors.
        self._account = account
        self._waiters: dict[Waiter, None] = {}
        self._on_turn: Waiter | None = None
        self._is_in_effect = False
        self._piece = MAX_PIECE
        self._counted = 0
        self._gone = 0

    def __repr__(self) -> str:
        return f"<Throttle {self.meter} waiting={len(self._waiters)}>"

    @property
    def has_waiters(self) -> bool:
        """Whether anybody waits for a turn."""
        return bool(self._waiters)

    def take_effect(self) -> None:
        """Have all visitors of the tunnel ask from now on, if there is a limit.  Once they do, they go on doing so."""
        if all(meter.quota == UNLIMITED for meter in self._meters) and not self._is_in_effect:
            return
        self._is_in_effect = True
        rates = [meter.quota.bandwidth for meter in self._meters if meter.quota.bandwidth is not None]
        self._piece = max(MIN_PIECE, min([MAX_PIECE, *(rate // PIECES_A_SECOND for rate in rates)]))
        for registration in self.registrations:
            registration.throttle = self
            for owner in list(registration.owners):
                self.hold_back(owner.stream)
        # Who waits may not have to any more, or has come to the end of its day.
        self._account.board.call_again(self._account)

    def hold_back(self, stream: YamuxStream) -> None:
        """Have what comes on *stream* wait for its turn."""
        if not isinstance(stream.handler, HeldBack):
            stream.handler = HeldBack(stream, self)

    @property
    def _meters(self) -> tuple[Meter, Meter]:
        return self.meter, self._account.meter

    # Requests, connections, visitors

    def refuse_request(self) -> Page | None:
        """Count a request, or return why it cannot be."""
        if self.is_used_up:
            return self.used_up_page
        seconds = self._take_request()
        return pages.too_many_requests(seconds) if seconds else None

    def admits_connection(self) -> bool:
        """Count a connection that is relayed as it is, if there may be one more."""
        return not (self.is_used_up or self.is_full or self._take_request())

    def _take_request(self) -> float:
        now = self._account.board.now
        seconds = max(meter.request_delay(now) for meter in self._meters)
        if not seconds:
            for meter in self._meters:
                meter.take_request(now)
        return seconds

    @property
    def is_full(self) -> bool:
        """Whether there are as many visitors as there may be."""
        most, most_of_all = self.meter.quota.visitors, self._account.meter.quota.visitors
        if most is not None and self.visitors >= most:
            return True
        return most_of_all is not None and sum(one.visitors for one in self._account.tunnels.values()) >= most_of_all

    @property
    def visitors(self) -> int:
        """How many there are."""
        return sum(registration.streams for registration in self.registrations)

    # Bytes

    def turn(self, waiter: Waiter) -> int:
        """Return how many bytes *waiter* may move now; 0 when it has to wait for `Waiter.take_turn`."""
        account = self._account
        left = self._left_today
        if not left:
            account.board.call_again(account)  # It ends them all.
        elif waiter is self._on_turn:
            self._on_turn = None  # It is for one piece.
            return min(self._piece, left)
        elif not (self._waiters or account.is_congested or self._is_pausing):
            return min(self._piece, left)
        self.wait(waiter)
        return 0

    @property
    def _is_pausing(self) -> bool:
        now = self._account.board.now
        return any(meter.pause(now) for meter in self._meters)

    def wait(self, waiter: Waiter) -> None:
        """Put *waiter* at the end of the queue, unless it is in it."""
        self._waiters.setdefault(waiter)
        self._account.wait(self)

    def passed(self, size: int) -> None:
        """*size* bytes have been moved."""
        now, unix = self._account.board.now, self._account.clock()
        for meter in self._meters:
            meter.passed(size, now, unix)
        if self.is_used_up:
            self._account.board.call_again(self._account)

    def is_waiting(self, waiter: object) -> bool:
        """Whether it is *waiter* that waits, and not somebody whom it waits for."""
        return waiter in self._waiters

    def give_turn(self) -> None:
        """Let the first one who waits move bytes."""
        waiter = self._on_turn = next(iter(self._waiters))
        del self._waiters[waiter]
        has_more = False
        try:
            has_more = waiter.take_turn()
        except Exception:  # A bug in one member ends that one, and not the turns.
            logger.exception("%r failed and is closed", waiter)
            waiter.abort()
        self._on_turn = None
        if has_more:  # Now, and not when the board calls it: others would have had many turns by then.
            self._waiters.setdefault(waiter)

    def withdraw(self, waiter: Waiter) -> None:
        """*waiter* has left."""
        self._waiters.pop(waiter, None)
        if not self._waiters:
            self._account.nobody_waits(self)

    def release(self, stream: YamuxStream) -> None:
        """Nobody wants anything of *stream* any more."""
        if isinstance(stream.handler, HeldBack):
            stream.handler.release()

    # A day's bytes

    @property
    def _left_today(self) -> int:
        unix = self._account.clock()
        return min(meter.left_today(unix) for meter in self._meters)

    @property
    def is_used_up(self) -> bool:
        """Whether no byte may pass until the next day."""
        return not self._left_today

    @property
    def used_up_page(self) -> Page:
        """What visitors are told then."""
        return pages.daily_limit(until_next_day(self._account.clock()))

    def cut(self) -> None:
        """End all that is being moved."""
        page = self.used_up_page
        for registration in self.registrations:
            for owner in list(registration.owners):
                owner.cut(page)
        for waiter in list(self._waiters):
            waiter.cut(page)
        self._waiters.clear()
        self._account.nobody_waits(self)

    def count(self) -> int:
        """Return how many bytes have been moved since the last call, limited or not."""
        total = self._gone + sum(registration.count_moved() for registration in self.registrations)
        new, self._counted = total - self._counted, total
        return new

    def forget(self, registration: Registration) -> None:
        """The tunnel was closed, and its last visitor has left."""
        self.registrations.discard(registration)
        self._gone += registration.count_moved()
