"""Clients that are away, and the visitors who wait for them to come back."""

from collections.abc import Callable
from typing import Final

import attrs

from ..switchboard import Switchboard
from ..switchboard.board import Member

MAX_WAITING: Final = 1000
"""Visitors who may wait for one tunnel, so that one that is visited much leaves connections for others."""

MAX_ABSENCES: Final = 60_000
"""Tunnels that may be waited for at a time, a KiB or a few each: clients without a token may take ever new names, and
leave them.  Those that a server expects when it starts are as many.  For others beyond nobody waits."""

MISSING_FOR: Final = 600.0
"""Seconds for which visitors of a client that did not come back are told that, and not that there is no tunnel."""

MAX_MISSING: Final = 10_000
"""Hosts of which that is known; of more, the oldest are forgotten."""


class Absence:
    """For so many seconds a client may come back.  It is on the board for its deadline only.

    When it *is_over*, the board calls those who have waited, and *ended* is called; if it was *in_vain*, *given_up* was
    called before.
    """

    def __init__(
        self, board: Switchboard, seconds: float, given_up: Callable[[], None], ended: Callable[["Absence"], None]
    ) -> None:
        self.deadline_slot: int = 0
        self.is_over: bool = False
        self.is_in_vain: bool = False
        self._board = board
        self._given_up = given_up
        self._ended = ended
        self._ends_at = board.now + seconds
        self._waiting: dict[Member, None] = {}
        board.set_deadline(self, seconds)

    def __repr__(self) -> str:
        return f"<Absence {'over' if self.is_over else 'lasting'} waiting={len(self._waiting)}>"

    @property
    def seconds_left(self) -> float:
        """How long it can last."""
        return max(0.0, self._ends_at - self._board.now)

    def wait(self, visitor: Member) -> bool:
        """Have the board call *visitor* when it is over.  False: it is, or too many wait already."""
        if self.is_over or len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[visitor] = None
        return True

    def leave(self, visitor: Member) -> None:
        """*visitor* does not wait any more."""
        self._waiting.pop(visitor, None)

    def end(self, *, in_vain: bool = False) -> None:
        """It is over: somebody has come, or nobody will."""
        if not self.is_over:
            self.is_over, self.is_in_vain = True, in_vain
            self._board.clear_deadline(self)
            self._ended(self)
            for visitor in self._waiting:
                self._board.call_again(visitor)
            self._waiting.clear()

    # What the board calls

    def deadline_passed(self) -> None:
        """Nobody has come."""
        self._given_up()
        self.end(in_vain=True)

    def ready(self, events: int) -> None:
        """It has no socket."""

    def flush(self) -> None:
        """Nothing is put off."""

    def abort(self) -> None:
        """Those who wait have their own deadlines."""


class Hold:
    """For how many *seconds* a client that is away is expected back: 0 for not at all."""

    def __init__(self, board: Switchboard, seconds: float) -> None:
        self.seconds: float = seconds
        self._board = board
        self._lasting: set[Absence] = set()
        self.missing: Missing = Missing(board)

    def begin(self, given_up: Callable[[], None]) -> Absence | None:
        """Expect one from now on, if that is wanted and there is room; *given_up* is called if it has not come."""
        if not self.seconds or len(self._lasting) >= MAX_ABSENCES:
            return None
        absence = Absence(self._board, self.seconds, given_up, self._lasting.discard)
        self._lasting.add(absence)
        return absence

    def end(self) -> None:
        """Expect nobody any more."""
        self.seconds = 0
        for absence in list(self._lasting):
            absence.deadline_passed()


class Missing:
    """Hosts whose clients were waited for in vain, for a while."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._until: dict[str, float] = {}  # The oldest comes first.

    def __contains__(self, host: object) -> bool:
        return isinstance(host, str) and self._until.get(host, 0.0) > self._board.now

    def add(self, host: str) -> None:
        """Its client has not come back."""
        self.discard(host)
        self._until[host] = self._board.now + MISSING_FOR
        if len(self._until) > MAX_MISSING:
            self.discard(next(iter(self._until)))

    def discard(self, host: str) -> None:
        """Somebody has come, or forget it."""
        self._until.pop(host, None)


def keeper_of(token: str) -> str:
    """Return who may come back to the tunnels of the token of this name."""
    return f"token {token}"


@attrs.frozen
class ExpectedTunnels:
    """Tunnels whose clients can be expected to come back.

    *routes* are hosts, each with its path and who keeps it, *ports* those of TCP, each with who keeps it.
    """

    routes: tuple[tuple[str, str, str], ...] = ()
    ports: tuple[tuple[int, str], ...] = ()
