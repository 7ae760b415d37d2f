"""Sessions whose two ends are in one program."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from ..mux import Session, open_board_session, open_session
from ..switchboard import open_switchboard
from ..yamux import DEFAULT_LIMITS, SessionLimits


@asynccontextmanager
async def session_pair(
    *, limits: SessionLimits = DEFAULT_LIMITS, transports: tuple[trio.abc.Stream, trio.abc.Stream] | None = None
) -> AsyncIterator[tuple[Session, Session]]:
    """Give a client's and a server's session that are connected in memory, or by *transports*.

    No socket is involved, so that it works under `trio.testing.MockClock`.
    """
    client_side, server_side = transports or trio.testing.memory_stream_pair()
    async with (
        open_session(client_side, "client", limits=limits) as client,
        open_session(server_side, "server", limits=limits) as server,
    ):
        yield client, server


@asynccontextmanager
async def board_session_pair(*, limits: SessionLimits = DEFAULT_LIMITS) -> AsyncIterator[tuple[Session, Session]]:
    """The same over a pair of real sockets on a switchboard."""
    client_side, server_side = socket.socketpair()
    async with (
        open_switchboard() as board,
        open_board_session(board, client_side, "client", limits=limits) as client,
        open_board_session(board, server_side, "server", limits=limits) as server,
    ):
        yield client, server
