"""Keeping up with the database, which other processes change, too."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from ..errors import DatabaseError
from .database import Database

logger: logging.Logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at the database: what is changed in it takes effect within twice that."""


async def follow(database: Database, load: Callable[[], Awaitable[None]], what: str) -> None:
    """Call *load* when the database has changed, until cancelled.

    While it cannot be read, which is logged once, *what* was loaded last stays in force.
    """
    version = None
    is_failing = False
    while True:
        try:
            current = await database.version()
            if current != version:
                await load()
                version = current
            is_failing = False
        except DatabaseError as error:
            if not is_failing:
                logger.error("%s cannot be read anew, and stay as they were: %s", what, error)
            is_failing = True
        await trio.sleep(POLL_INTERVAL)
