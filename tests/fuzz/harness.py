"""What the harnesses share."""

import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

ADDRESS_SPACE = 2 * 1024**3
"""Bytes: the second line behind `-rss_limit_mb`, which only looks once a second."""


def fuzz(test_one_input: Callable[[bytes], None]) -> None:
    """Hand over to libFuzzer, which never returns; its options are this process's arguments."""
    import otun

    # `run.py --planted` must not fuzz the package instead of its copy.
    copy = os.environ.get("OTUN_COPY")
    assert copy is None or Path(str(otun.__file__)).is_relative_to(copy), otun.__file__
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    def test_and_forget(data: bytes) -> None:
        """Leave no garbage to the next input: what grows from input to input is a leak."""
        test_one_input(data)
        gc.collect()

    gc.disable()
    gc.collect()
    gc.freeze()
    atheris.Setup(sys.argv, test_and_forget)
    atheris.Fuzz()
