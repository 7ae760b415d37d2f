"""A link between two programs of this machine, by relay.c: long, or narrow, or both."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
from harness import HERE, Missing, build, running

SMALLEST_QUEUE: Final = 64 * 1024


@attrs.frozen
class Link:
    """*delay* is in seconds, each way; *rate* in bytes/s, 0 for no limit.

    *queue* bytes may wait in front of the link before the sender must; 0: as many as the kernel likes.
    """

    delay: float
    rate: float
    queue: int

    @classmethod
    def with_usual_queue(cls, delay: float, rate: float) -> "Link":
        """A link whose queue holds what is under way in one round trip, as routers are commonly given."""
        return cls(delay, rate, max(SMALLEST_QUEUE, round(rate * delay * 2)) if rate else 0)

    @contextlib.contextmanager
    def to(self, target: int, folder: Path) -> Iterator[int]:
        """Give the port through which *target* is reached over the link."""
        words = [str(target), f"{self.delay * 1000}", str(self.rate), str(self.queue)]
        with running("relay", [relay_program(), *words], folder) as program:
            yield int(program.read_line())


def relay_program() -> Path:
    """The relay, built when needed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Missing("there is no C compiler for relay.c")
    return build("relay", HERE / "relay.c", [compiler, "-O2", "-pthread", "-o", "OUTPUT", HERE / "relay.c"])
