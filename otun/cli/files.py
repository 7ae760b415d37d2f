"""Files that belong to the settings."""

import os
from pathlib import Path


def read_file(path: Path) -> tuple[bytes, int]:
    """Return what the file at *path* holds, and its mode.  Raises `OSError`.

    It may be /dev/null, or a pipe of the shell's, as in `--tokens-file <(pass show otun)`.
    """
    with path.open("rb") as file:
        return file.read(), os.fstat(file.fileno()).st_mode
