"""DNS-01 through a program of the operator's, which sets and removes TXT records."""

import logging
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from .failures import OrderFailed
from .wording import in_words, one_line

_LOG: Final = logging.getLogger(__name__)

HOOK_LIMIT: Final = 300.0
"""Seconds that a call may take: some DNS services need minutes until all their servers have a record."""

_REMOVAL_LIMIT: Final = 30.0
"""Seconds that a removal may take, and hold up the server's end: nobody waits until it can be seen."""

_LAST_WORDS: Final = 1000
"""Octets from the end of what the program has printed."""


@asynccontextmanager
async def published(hook: str, name: str, value: str) -> AsyncIterator[None]:
    """Have *hook* publish *value* as a TXT record of *name* while the body runs.  Raises `OrderFailed` when it cannot.

    The record is removed in any case, even if the hook was stopped while it added it; a failure of that is logged.
    """
    is_added = False
    try:
        await _run(hook, "add", name, value)
        is_added = True
        yield
    finally:
        with trio.move_on_after(_REMOVAL_LIMIT, shield=True):
            try:
                await _run(hook, "remove", name, value)
            except OrderFailed as error:
                if is_added:  # Else the first failure says it all.
                    _LOG.warning("the TXT record of %s stays: %s", name, error)


async def _run(hook: str, action: str, name: str, value: str) -> None:
    ended: subprocess.CompletedProcess[bytes] | None = None
    try:
        with trio.move_on_after(HOOK_LIMIT):
            ended = await trio.run_process(
                [hook, action, name, value], capture_stdout=True, stderr=subprocess.STDOUT, check=False
            )
    except OSError as error:
        raise OrderFailed(f"the DNS hook cannot be run: {error.strerror}") from error
    if ended is None:
        raise OrderFailed(f"the DNS hook was stopped: {action} took more than {in_words(HOOK_LIMIT)}")
    if ended.returncode:
        said = one_line(ended.stdout[-_LAST_WORDS:].decode(errors="replace"))
        raise OrderFailed(f"the DNS hook failed: {action} ended with {ended.returncode}{said and ': '}{said}")
