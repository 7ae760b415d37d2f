"""What must be so whatever has happened.  Each function tells what is not, a line for each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from .outcomes import WRONG
from .programs import Descriptors, Usage
from .world import TUNNELS, World

MISTAKES: Final = ("Traceback", "failed and is closed", ": failed: ", "could not even be closed")
"""What is in the log when a program has met a bug of its own."""

SECOND: Final = len("2026-12-31 23:59:59")
"""What lines of the log begin with."""


def wrong_bytes(world: World) -> Iterator[str]:
    """No byte has arrived that was not sent, on either side."""
    for visit in world.visits.all:
        if visit.outcome == WRONG:
            yield f"a visitor got wrong bytes: {visit.detail}"
    for line in world.service.lines:
        if "wrong" in line:
            yield f"the local service got wrong bytes: {line}"


def endings(world: World) -> Iterator[str]:
    """Server and client are running."""
    for program in world.programs:
        if not program.is_running:
            yield f"the {program.name} has ended with {program.endings}: {program.last_words()}"


def mistakes(world: World) -> Iterator[str]:
    """Neither has met a bug of its own."""
    for program in world.programs:
        for line in program.log.read_text(errors="replace").splitlines():
            if any(mistake in line for mistake in MISTAKES):
                yield f"the {program.name} says: {line}"


def chatter(world: World) -> Iterator[str]:
    """A shortage is reported once a second at most."""
    lines = world.server.log.read_text(errors="replace").splitlines()
    seconds = Counter(line[:SECOND] for line in lines if "cannot accept" in line)
    for second, count in seconds.items():
        if count > 1:
            yield f"the server says {count} times in one second ({second}) that it cannot accept connections"


def left_open(idle: Mapping[str, Descriptors], after: Mapping[str, Usage]) -> Iterator[str]:
    """Server and client have the descriptors that they had when they were *idle*."""
    for name, its in after.items():
        more, fewer = its.descriptors - idle[name], idle[name] - its.descriptors
        if more or fewer:
            yield f"the {name} has other descriptors: more {dict(more)}, fewer {dict(fewer)}"


async def leftovers(world: World) -> list[str]:
    """The server has the client's session and tunnels, and no visitor."""
    status = await world.status()
    expected = {"visitors": 0, "sessions": 1, "tunnels": TUNNELS}
    return [f"the server has {status[w]} {w}, not {n}" for w, n in expected.items() if status[w] != n]
