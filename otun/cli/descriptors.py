"""File descriptors: each visitor takes one, and the usual limit of 1,024 is meant for programs that use `select`."""

import contextlib
import resource


def raise_descriptor_limit() -> None:
    """Take as many as the system grants without privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
