"""The switchboard on Linux: one epoll, in which each socket is registered once."""

import select
import socket
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

import trio

from .board import Member, Switchboard

MAX_EVENTS: Final = 128
"""Events taken from the kernel at once, so that a batch has an end."""


class EpollBoard(Switchboard):
    """A board whose task waits for the epoll's own descriptor.  The kernel remembers who has been told what."""

    is_level_triggered: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll()

    def add(self, sock: socket.socket, member: Member, *, is_listening: bool = False) -> None:
        """Register the socket, once and for all it may do."""
        descriptor = sock.fileno()
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLOUT | select.EPOLLET)
        self._members[descriptor] = member

    def close_listening(self, sock: socket.socket) -> None:
        """Unregister it: epoll forgets a descriptor only when no process has the socket open any more."""
        if sock.fileno() in self._members:
            self._epoll.unregister(sock.fileno())
        super().close_listening(sock)

    def emptied(self, sock: socket.socket) -> None:
        """Nothing to do: the kernel knows."""

    def filled(self, sock: socket.socket) -> None:
        """Nothing to do: the kernel knows."""

    def _poller(self) -> Callable[[], list[tuple[int, int]]]:
        return partial(self._epoll.poll, 0, MAX_EVENTS)

    async def _wait_for_events(self) -> None:
        await trio.lowlevel.wait_readable(self._epoll.fileno())

    def end(self) -> None:
        """Abort all members and close the epoll."""
        super().end()
        self._epoll.close()
