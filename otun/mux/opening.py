"""Sessions as context managers: over any Trio stream, or over a socket on the switchboard."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from ..background import open_background
from ..switchboard import Switchboard
from ..yamux import Role
from ..yamux.connection import ACCEPT_BACKLOG, DEFAULT_RECEIVE_WINDOW
from .board_driver import BoardDriver
from .session import Session
from .task_driver import TaskDriver

RoleName = Literal["client", "server"]


@asynccontextmanager
async def open_session(
    transport: trio.abc.Stream,
    role: RoleName | Role,
    *,
    receive_window: int = DEFAULT_RECEIVE_WINDOW,
    accept_backlog: int = ACCEPT_BACKLOG,
) -> AsyncIterator[Session]:
    """Run a yamux session over *transport*, which belongs to it from now on, until the body ends.

    *role* is "client" on the side that connected and "server" on the other; they must differ.  *receive_window* is what
    the peer may send on each stream before somebody reads it, in bytes, from 256 KiB on; *accept_backlog* is how many
    streams of the peer's may wait for `Session.accept`.

    On leaving, the session is closed as by `Session.aclose`.  The body's exceptions come out as they are; a connection
    that fails does not interrupt the body: the next call on the session or a stream of it raises `SessionClosed`.
    """
    session = Session(_role(role), receive_window=receive_window, accept_backlog=accept_backlog)
    async with open_background() as background:
        driver = TaskDriver(transport, session)
        driver.start(background)
        async with _running(session, background):
            yield session


@asynccontextmanager
async def open_board_session(
    board: Switchboard,
    sock: socket.socket,
    role: RoleName | Role,
    *,
    receive_window: int = DEFAULT_RECEIVE_WINDOW,
    accept_backlog: int = ACCEPT_BACKLOG,
) -> AsyncIterator[Session]:
    """Run a session over a connected socket on *board*, as `open_session` does over a Trio stream."""
    session = Session(_role(role), receive_window=receive_window, accept_backlog=accept_backlog)
    async with open_background() as background:
        BoardDriver(board, sock, session)
        async with _running(session, background):
            yield session


@asynccontextmanager
async def _running(session: Session, background: trio.Nursery) -> AsyncIterator[None]:
    background.start_soon(session.keep_time)
    try:
        yield
    except BaseException:
        # The body's error is the one to come out; a cancellation is delivered again at the next checkpoint.
        with suppress(trio.Cancelled):
            await session.aclose()
        raise
    await session.aclose()


def _role(role: RoleName | Role) -> Role:
    return Role[role.upper()] if isinstance(role, str) else role
