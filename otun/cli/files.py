"""Files that belong to the settings."""

import errno
import os
from pathlib import Path
from typing import Final

MAX_FILE_SIZE: Final = 16 * 1024 * 1024
"""Bytes of a file: far more than anybody writes, and /dev/zero does not fill the memory."""


def read_file(path: Path, *, max_size: int = MAX_FILE_SIZE) -> tuple[bytes, int]:
    """Return what the file at *path* holds, and its mode.  Raises `OSError`, also for more than *max_size* bytes.

    It may be /dev/null, or a pipe of the shell's, as in `--tokens-file <(pass show otun)`.  A pipe is read to its end,
    for as long as somebody has it open to write; one that nobody has is empty.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        os.set_blocking(file.fileno(), True)
        data = file.read(max_size + 1)
        if len(data) > max_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return data, os.fstat(file.fileno()).st_mode


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for whoever is to write to it."""
    return os.open(path, flags | os.O_NONBLOCK)
