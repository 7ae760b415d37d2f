"""Files that belong to the settings."""

import os
import stat
from pathlib import Path


def read_regular_file(path: Path) -> tuple[bytes, int]:
    """Return what the file at *path* holds, and its mode.

    Raises `OSError`, also for what is no regular file: a pipe, to begin with, might never say anything.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(None, "Not a regular file")
        return file.read(), mode


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
