"""Switchboards as context managers, of the kind that the system allows."""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ..background import open_background
from .board import Switchboard
from .epoll_board import EpollBoard
from .task_board import TaskBoard

HAS_EPOLL: Final = hasattr(select, "epoll")
"""Whether this system has epoll: Linux."""


@asynccontextmanager
async def open_switchboard() -> AsyncIterator[Switchboard]:
    """Give a switchboard that runs until the body ends; then every socket that is still on it is closed."""
    board = EpollBoard() if HAS_EPOLL else TaskBoard()
    try:
        async with open_background() as background:
            board.start(background)
            yield board
    finally:
        board.end()
