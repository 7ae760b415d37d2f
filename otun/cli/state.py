"""The server's state folder: created when missing, and used by one server at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import ConfigurationError, OtunError


class StateFolderBusy(OtunError):
    """Another server uses the folder."""


def default_state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that systemd gives a service (StateDirectory=), or `otun` in the user's; None without a home.

    The latter as the XDG Base Directory Specification says.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(given):
        return Path(given)
    folder = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.local/state")
    return Path(folder, "otun") if os.path.isabs(folder) else None


@contextlib.contextmanager
def claim_state_folder(folder: Path) -> Iterator[None]:
    """Hold the lock on *folder* while the context is open; the folder is created with mode 0700 when missing.

    The lock is the kernel's, on `server.lock`: it goes with the process, however that ends.  Raises `StateFolderBusy`
    when another process holds it and `ConfigurationError` when the folder cannot be used.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"state folder {folder}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateFolderBusy(
                f"state folder {folder} is in use by another otun server; give this one its own with --state"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"state folder {folder} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)
