"""Files that are there whole or not at all, and that nobody else can read."""

import os
import tempfile
from pathlib import Path
from typing import Final

_UNFINISHED: Final = ".unfinished-"


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by a file of *data* with mode 0600; a crash leaves the old or the new one.  Raises `OSError`."""
    descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # The new name is on the disk, too.
    finally:
        os.close(folder)


def make_private_folder(folder: Path) -> None:
    """Create *folder* with mode 0700 unless it exists, and remove what a crash has left in it.  Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)
