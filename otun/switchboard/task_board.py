"""The switchboard on systems without epoll: two tasks watch each socket, and tell the board's task what they see."""

import socket
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

import attrs
import trio

from .board import HUNG_UP, READABLE, WRITABLE, Member, Switchboard

ARRIVED: Final = READABLE & ~HUNG_UP
"""What members are told when a socket has become readable: whether the other side has hung up shows in reading only."""


@attrs.define(eq=False)
class _Watch:
    """One direction of a socket, for the task that waits for it."""

    descriptor: int
    event: int
    wait: Callable[[int], Awaitable[None]]
    may_go_on: trio.Event = attrs.field(factory=trio.Event)
    is_closed: bool = False

    async def happens(self) -> bool:
        """Wait until the socket is ready.  False: it is being closed."""
        if not self.is_closed:
            try:
                await self.wait(self.descriptor)
            except trio.ClosedResourceError:
                return False
        return not self.is_closed

    def close(self) -> None:
        """Have the task end."""
        self.is_closed = True
        self.may_go_on.set()


class TaskBoard(Switchboard):
    """A board of Trio's waits, which go by levels, made to look like edges.

    A task that has seen its socket readable (writable) waits until a member has met EAGAIN before it looks again, so
    that nothing ever spins; the price is that a reset shows only to members that read or write.
    """

    is_level_triggered: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[int, _Watch] = {}
        self._writers: dict[int, _Watch] = {}
        self._events: dict[int, int] = {}
        self._has_events = trio.Event()
        self._background: trio.Nursery

    def start(self, background: trio.Nursery) -> None:
        """Begin; the sockets are watched in *background*, too."""
        super().start(background)
        self._background = background

    def add(self, sock: socket.socket, member: Member, *, is_listening: bool = False) -> None:
        """Have the socket watched."""
        descriptor = sock.fileno()
        self._members[descriptor] = member
        reader = self._readers[descriptor] = _Watch(descriptor, ARRIVED, trio.lowlevel.wait_readable)
        self._background.start_soon(self._watch, reader)
        if not is_listening:
            writer = self._writers[descriptor] = _Watch(descriptor, WRITABLE, trio.lowlevel.wait_writable)
            self._background.start_soon(self._watch, writer)

    def emptied(self, sock: socket.socket) -> None:
        """Let the reading side's task wait again."""
        reader = self._readers.get(sock.fileno())
        if reader is not None:
            reader.may_go_on.set()

    def filled(self, sock: socket.socket) -> None:
        """Let the writing side's task wait again."""
        writer = self._writers.get(sock.fileno())
        if writer is not None:
            writer.may_go_on.set()

    def close(self, sock: socket.socket) -> None:
        """End the socket's tasks, and close it."""
        descriptor = sock.fileno()
        self._events.pop(descriptor, None)  # The number may soon be another socket's.
        watches = self._readers.pop(descriptor, None), self._writers.pop(descriptor, None)
        for watch in watches:
            if watch is not None:
                watch.close()
        if any(watches):
            trio.lowlevel.notify_closing(descriptor)
        super().close(sock)

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, watch: _Watch) -> None:
        descriptor = watch.descriptor
        try:
            while await watch.happens():
                may_go_on = watch.may_go_on = trio.Event()
                self._events[descriptor] = self._events.get(descriptor, 0) | watch.event
                self._has_events.set()
                await may_go_on.wait()
        except OSError as error:  # The system cannot watch one more.
            if not watch.is_closed:
                self._failed(self._members[descriptor], error)

    def _poller(self) -> Callable[[], list[tuple[int, int]]]:
        return self._take_events

    def _take_events(self) -> list[tuple[int, int]]:
        events, self._events = self._events, {}
        return list(events.items())

    async def _wait_for_events(self) -> None:
        self._has_events = trio.Event()
        await self._has_events.wait()
