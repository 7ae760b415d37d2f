"""Small files that only their owner may read, written whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what the file at *path* holds; when there is none, it is written, with what *make* returns.

    Of several programs that do so at once, all get the same.  Raises `OSError`.
    """
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    draft = _write_draft(path, make())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path.read_bytes()


def replace(path: Path, data: bytes) -> None:
    """Have the file at *path* hold *data*, whatever it held before.  Raises `OSError`, and then it holds that still."""
    draft = _write_draft(path, data)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink()
        raise


def _write_draft(path: Path, data: bytes) -> Path:
    """Return a new file beside *path* that holds *data*, on the disk."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink()
        raise
    return draft
