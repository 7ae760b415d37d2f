"""Small files that only their owner may read, there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_DRAFT: Final = ".unfinished-"
"""How the names of files begin that are being written."""


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what the file at *path* holds; when there is none, it is written, with what *make* returns.

    Of several programs that do so at once, all get the same; what is returned survives a crash.  Raises `OSError`.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    with _draft(path.parent, make()) as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)
    _sync(path.parent)
    return path.read_bytes()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace *path* by a file of *data* with mode 0600; a crash leaves the old or the new one.  Raises `OSError`."""
    with _draft(path.parent, data) as draft:
        draft.replace(path)
    _sync(path.parent)


def make_private_folder(folder: Path) -> None:
    """Create *folder* with mode 0700 unless it exists, and remove what a crash has left in it.  Raises `OSError`.

    Nobody else may be writing there: what they have not finished would be removed as well.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob(f"{_DRAFT}*"):
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """See that the names of the files in it are on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _draft(folder: Path, data: bytes) -> Iterator[Path]:
    """Give a new file in *folder* that holds *data*, on the disk; it is removed unless it has been moved away."""
    descriptor, name = tempfile.mkstemp(prefix=_DRAFT, dir=folder)
    draft = Path(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
