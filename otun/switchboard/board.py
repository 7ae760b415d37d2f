"""The switchboard: it waits for sockets, and calls the members that own them."""

import logging
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

import trio

from ..background import open_background
from .deadlines import TICK, DeadlineWheel

logger: logging.Logger = logging.getLogger(__name__)

HAS_SWITCHBOARD: Final = hasattr(select, "epoll")
"""Whether this system has epoll.  Elsewhere tasks move the bytes."""

MAX_EVENTS: Final = 128
"""Events taken from the kernel at once, so that a batch has an end."""

CHECKPOINT_INTERVAL: Final = 0.005
"""Seconds after which Trio's other tasks get their turn: a checkpoint costs as much as several events."""

BYTES_PER_CALL: Final = 1024 * 1024
"""Bytes that a member may move in one call before it has to let the others go ahead (see `Switchboard.call_again`)."""

SECONDS_PER_CALL: Final = 0.003
"""Time that a member may take for one call, likewise: small pieces take far longer than large ones."""

if HAS_SWITCHBOARD:
    READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    HUNG_UP: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    FAILED: Final = select.EPOLLERR
    WRITABLE: Final = select.EPOLLOUT
    _INTEREST: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT | select.EPOLLET


class Member(Protocol):
    """Whoever owns a socket on the board.  All calls are plain, and must neither wait nor take long."""

    deadline_slot: int

    def ready(self, events: int) -> None:
        """The socket has become readable, writable or broken.

        Edge-triggered: whoever stops before the socket says EAGAIN remembers that there may be more.
        """

    def flush(self) -> None:
        """The batch in which `flush_later` was called has ended."""

    def deadline_passed(self) -> None:
        """The time given to `set_deadline` has come."""

    def abort(self) -> None:
        """Close everything at once and take the socket off the board: the board ends, or one of the calls failed."""


class Switchboard:
    """One epoll and the members whose sockets are on it.  Made by `open_switchboard`."""

    def __init__(self) -> None:
        self._now = trio.current_time()
        self._epoll = select.epoll()
        self._members: dict[int, Member] = {}
        self._again: dict[Member, None] = {}
        self._to_flush: list[Member] = []
        self._to_close: list[socket.socket] = []
        self._is_in_batch = False
        self._wheel: DeadlineWheel[Member] = DeadlineWheel()
        self._has_deadlines = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def __repr__(self) -> str:
        return f"<Switchboard members={len(self._members)}>"

    # For members

    @property
    def now(self) -> float:
        """Trio's time: in a batch, when it began."""
        return self._now if self._is_in_batch else trio.current_time()

    def add(self, sock: socket.socket, member: Member) -> None:
        """Put a non-blocking socket on the board; *member* is called from now on."""
        descriptor = sock.fileno()
        self._epoll.register(descriptor, _INTEREST)
        self._members[descriptor] = member

    def replace(self, sock: socket.socket, member: Member) -> None:
        """Hand the socket over to another member.  No event is lost if that one looks for what is there already."""
        self._members[sock.fileno()] = member

    def close(self, sock: socket.socket) -> None:
        """Take the socket off the board and close it.

        In a batch its descriptor stays taken until the end, so that no event of it can reach another socket.
        """
        self._members.pop(sock.fileno(), None)
        if self._is_in_batch:
            self._to_close.append(sock)
        else:
            sock.close()

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

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Move bytes until cancelled."""
        poll, descriptor = self._epoll.poll, self._epoll.fileno()
        turn_ends = 0.0
        while True:
            events = poll(0, MAX_EVENTS)
            if not events and not self._again:
                await trio.lowlevel.wait_readable(descriptor)
                turn_ends = trio.current_time() + CHECKPOINT_INTERVAL
                continue
            self._run_batch(events)
            if trio.current_time() >= turn_ends:
                await trio.lowlevel.checkpoint()
                turn_ends = trio.current_time() + CHECKPOINT_INTERVAL

    @trio.lowlevel.enable_ki_protection
    async def turn_wheel(self) -> None:
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
        """Abort all members and close the epoll."""
        self._begin_batch()
        for member in list(self._members.values()):
            self._call(member, member.abort)
        self._again.clear()
        self._end_batch()
        self._members.clear()
        self._epoll.close()

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
        """See that another batch follows when a member asked for it while `run` was waiting for sockets."""
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


@asynccontextmanager
async def open_switchboard() -> AsyncIterator[Switchboard]:
    """Give a switchboard that runs until the body ends; then every socket that is still on it is closed."""
    board = Switchboard()
    try:
        async with open_background() as background:
            background.start_soon(board.run)
            background.start_soon(board.turn_wheel)
            yield board
    finally:
        board.end()
