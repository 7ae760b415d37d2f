"""The switchboard: it calls the members that own sockets.  How it waits for those is its kinds' concern."""

import logging
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar, Final, Protocol

import trio

from .deadlines import TICK, DeadlineWheel

logger: logging.Logger = logging.getLogger(__name__)

CHECKPOINT_INTERVAL: Final = 0.005
"""Seconds after which Trio's other tasks get their turn: a checkpoint costs as much as several events."""

BYTES_PER_CALL: Final = 1024 * 1024
"""Bytes that a member may move in one call before it has to let the others go ahead (see `Switchboard.call_again`)."""

SECONDS_PER_CALL: Final = 0.003
"""Time that a member may take for one call, likewise: small pieces take far longer than large ones."""

# What `Member.ready` is told.  The bits are those of Linux's epoll, so that its events need no translating.
_IN, _OUT, _ERR, _HUP, _RDHUP = 0x1, 0x4, 0x8, 0x10, 0x2000
READABLE: Final = _IN | _RDHUP | _HUP | _ERR
HUNG_UP: Final = _RDHUP | _HUP | _ERR
FAILED: Final = _ERR
WRITABLE: Final = _OUT


LARGEST_BLOCK: Final = 1024 * 1024
"""Bytes in a block of memory that is larger than any buffer."""


class Member(Protocol):
    """Whoever owns a socket on the board.  All calls are plain, and must neither wait nor take long."""

    deadline_slot: int

    def ready(self, events: int) -> None:
        """The socket has become readable, writable or broken.

        Edge-triggered: whoever stops before the socket says EAGAIN remembers that there may be more, and whoever hears
        EAGAIN tells the board: `Switchboard.emptied` when reading, `Switchboard.filled` when writing.
        """

    def flush(self) -> None:
        """The batch in which `flush_later` was called has ended."""

    def deadline_passed(self) -> None:
        """The time given to `set_deadline` has come."""

    def abort(self) -> None:
        """Close everything at once and take the socket off the board: the board ends, or one of the calls failed."""


class Switchboard(ABC):
    """The members whose sockets are on the board, and whose turn it is.  Made by `open_switchboard`."""

    is_level_triggered: ClassVar[bool]
    """Whether the board can only look whether there is something to read, and so must know who has read everything.

    Then nobody may take a short read for the last one: `Endpoint.receive` does not.
    """

    def __init__(self) -> None:
        self.shortage_reported: float = -math.inf  # When a listener has said that it cannot accept.
        self._now = trio.current_time()
        self._members: dict[int, Member] = {}
        self._again: dict[Member, None] = {}
        self._to_flush: list[Member] = []
        self._to_close: list[socket.socket] = []
        self._is_in_batch = False
        self._wheel: DeadlineWheel[Member] = DeadlineWheel()
        self._has_deadlines = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        # Buffers for reads are large, and soon cut to size.  glibc would map and unmap each of them, which costs more
        # than the read (15 us a request), had it not seen that such blocks come and go (mallopt(3), M_MMAP_THRESHOLD).
        bytes(LARGEST_BLOCK)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} members={len(self._members)}>"

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    # For members

    @property
    def now(self) -> float:
        """Trio's time: in a batch, when it began."""
        return self._now if self._is_in_batch else trio.current_time()

    @abstractmethod
    def add(self, sock: socket.socket, member: Member, *, is_listening: bool = False) -> None:
        """Put a non-blocking socket on the board; *member* is called from now on.

        A socket that *is_listening* never becomes writable.
        """

    @abstractmethod
    def emptied(self, sock: socket.socket) -> None:
        """Reading *sock* has met EAGAIN: call its member when there is something again."""

    @abstractmethod
    def filled(self, sock: socket.socket) -> None:
        """*sock* did not take all that was to be sent: call its member when there is room again."""

    def replace(self, sock: socket.socket, member: Member) -> None:
        """Hand the socket over to another member.  No event is lost if that one looks for what is there already."""
        self._members[sock.fileno()] = member

    def put(self, sock: socket.socket, member: Member) -> None:
        """Add the socket, or hand it over if it is there; *member* is called soon.

        What a socket has inside, TLS for instance, is announced by no event.
        """
        if sock.fileno() in self._members:
            self.replace(sock, member)
        else:
            self.add(sock, member)
        self.call_again(member)

    def close(self, sock: socket.socket) -> None:
        """Take the socket off the board and close it.

        In a batch its descriptor stays taken until the end, so that no event of it can reach another socket.
        """
        self._members.pop(sock.fileno(), None)
        if self._is_in_batch:
            self._to_close.append(sock)
        else:
            sock.close()

    def close_listening(self, sock: socket.socket) -> None:
        """Take a listening socket off the board, and close it here: another process may go on using it."""
        self.close(sock)

    @trio.lowlevel.enable_ki_protection
    def flush_later(self, member: Member) -> None:
        """Call *member*'s `flush` at the end of this batch; at once when there is none."""
        self._to_flush.append(member)
        if not self._is_in_batch:
            self._begin_batch()
            self._end_batch()
            self._wake_if_needed()

    def call_again(self, member: Member) -> None:
        """Call *member*'s `ready` with no events in the next batch: it has used up its turn and has more to do."""
        self._again[member] = None
        if not self._is_in_batch:
            self._wake_if_needed()

    def set_deadline(self, member: Member, delay: float) -> None:
        """Call *member*'s `deadline_passed` in *delay* seconds or up to `TICK` later, unless it is changed before."""
        self._wheel.set(member, self.now + delay)
        self._has_deadlines.set()

    def clear_deadline(self, member: Member) -> None:
        """Take the deadline back."""
        if member.deadline_slot:
            self._wheel.clear(member)

    # The board's own tasks

    def start(self, background: trio.Nursery) -> None:
        """Begin, in *background*."""
        background.start_soon(self._run)
        background.start_soon(self._turn_wheel)

    @abstractmethod
    def _poller(self) -> Callable[[], list[tuple[int, int]]]:
        """Return the call that takes some of the events that are there: descriptors, and what `ready` is told."""

    @abstractmethod
    async def _wait_for_events(self) -> None:
        """Wait until there is one."""

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        """Move bytes until cancelled."""
        poll = self._poller()
        turn_ends = 0.0
        while True:
            events = poll()
            if not events and not self._again:
                await self._wait_for_events()
                turn_ends = trio.current_time() + CHECKPOINT_INTERVAL
                continue
            self._run_batch(events)
            if trio.current_time() >= turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = trio.current_time() + CHECKPOINT_INTERVAL

    @trio.lowlevel.enable_ki_protection
    async def _turn_wheel(self) -> None:
        """Call the members whose deadlines pass, until cancelled."""
        while True:
            await self._has_deadlines.wait()
            await trio.sleep_until((trio.current_time() // TICK + 1) * TICK)
            self._begin_batch()
            while (member := self._wheel.pop_expired(self._now)) is not None:
                self._call(member, member.deadline_passed)
            self._end_batch()
            self._wake_if_needed()
            if not self._wheel:
                self._has_deadlines = trio.Event()

    def end(self) -> None:
        """Abort all members."""
        self._begin_batch()
        for member in self:
            self._call(member, member.abort)
        self._again.clear()
        self._end_batch()
        self._members.clear()

    @trio.lowlevel.enable_ki_protection
    def abort_those(self, is_unwanted: Callable[[Member], bool]) -> None:
        """Abort the members of which *is_unwanted* is true.  Not to be called by one of them."""
        self._begin_batch()
        for member in self:
            if is_unwanted(member):
                self._call(member, member.abort)
        self._end_batch()
        self._wake_if_needed()

    # Batches: while one runs, flushing and closing are put off to its end.

    def _begin_batch(self) -> None:
        self._now = trio.current_time()
        self._is_in_batch = True

    def _run_batch(self, events: list[tuple[int, int]]) -> None:
        again, self._again = self._again, {}
        self._begin_batch()
        members = self._members
        for descriptor, event in events:
            member = members.get(descriptor)
            if member is not None:
                try:
                    member.ready(event)
                except Exception as error:
                    self._failed(member, error)
        for member in again:
            self._call(member, partial(member.ready, 0))
        self._end_batch()

    def _end_batch(self) -> None:
        while self._to_flush:
            members, self._to_flush = self._to_flush, []
            for member in members:
                try:
                    member.flush()
                except Exception as error:
                    self._failed(member, error)
        self._is_in_batch = False
        if self._to_close:
            sockets, self._to_close = self._to_close, []
            for sock in sockets:
                sock.close()

    def _wake_if_needed(self) -> None:
        """See that another batch follows when a member asked for it while `_run` was waiting for sockets."""
        if self._again:
            self._token.run_sync_soon(self._run_batch_of_waiting, idempotent=True)

    def _run_batch_of_waiting(self) -> None:
        self._run_batch([])
        self._wake_if_needed()

    def _call(self, member: Member, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._failed(member, error)

    def _failed(self, member: Member, error: Exception) -> None:
        """A bug in one member ends that one, and nobody else."""
        logger.error("%r failed and is closed", member, exc_info=error)
        try:
            member.abort()
        except Exception:
            logger.exception("%r could not even be closed", member)
