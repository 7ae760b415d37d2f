"""Sessions as context managers: over any Trio stream, or over a socket on the switchboard."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import trio

from ..background import open_background
from ..switchboard import Switchboard
from ..yamux import DEFAULT_LIMITS, Role, SessionLimits
from .board_driver import BoardDriver
from .session import Session
from .task_driver import TaskDriver

RoleName = Literal["client", "server"]


@asynccontextmanager
async def open_session(
    transport: trio.abc.Stream, role: RoleName | Role, *, limits: SessionLimits = DEFAULT_LIMITS
) -> AsyncIterator[Session]:
    """Run a yamux session over *transport*, which belongs to it from now on, until the body ends.

    *role* is "client" on the side that connected and "server" on the other; they must differ.  *limits* is what the
    peer may make the session keep, do and wait for.

    On leaving, the session is closed as by `Session.aclose`.  The body's exceptions come out as they are; a connection
    that fails does not interrupt the body: the next call on the session or a stream of it raises `SessionClosed`.
    """
    session = Session(_role(role), limits)
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
    limits: SessionLimits = DEFAULT_LIMITS,
    received: bytes = b"",
) -> AsyncIterator[Session]:
    """Run a session over a connected socket, as `open_session` does over a Trio stream.

    The socket may be on *board* already; *received* is what was read from it there.
    """
    session = Session(_role(role), limits)
    async with open_background() as background:
        BoardDriver(board, sock, session)
        if received:
            session.feed(received)
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
