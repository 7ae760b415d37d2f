"""Where the admin socket is: made for its owner alone, whatever the umask, and never in a living server's place."""

import contextlib
import fcntl
import logging
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...errors import ConfigurationError

logger: logging.Logger = logging.getLogger(__name__)

NAME: Final = "admin.sock"

_MAX_ADDRESS: Final = 107
"""Bytes of a Unix socket's path (unix(7)): `sun_path` has 108, with a zero at its end."""

_BACKLOG: Final = 256
"""Connections that the kernel may hold before they are accepted: it refuses more, and does not let them wait."""


@contextlib.contextmanager
def opened_folder(folder: Path) -> Iterator[int]:
    """Give a descriptor of *folder*.  Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def address_of(folder: Path, descriptor: int, name: str = NAME) -> str:
    """Return where to find the socket *name* in *folder*, which is open as *descriptor*, however long its path is."""
    path = str(folder / name)
    return path if len(os.fsencode(path)) <= _MAX_ADDRESS else f"/proc/self/fd/{descriptor}/{name}"


@contextlib.contextmanager
def listening_socket(folder: Path) -> Iterator[socket.socket | None]:
    """Listen in the state *folder*; the socket is gone in the end.

    One that a killed server has left there is replaced.  Raises `ConfigurationError` when a server uses the folder that
    is alive, or something else than a socket has the name.  Where the file system takes no socket, it is None, which
    the log tells: the server can do without.
    """
    sock = None
    with contextlib.ExitStack() as stack:
        try:
            sock = _claim(folder, stack)
        except OSError as error:
            logger.error("no commands for this server can be taken: %s: %s", folder / NAME, error.strerror or error)
        yield sock


def _claim(folder: Path, stack: contextlib.ExitStack) -> socket.socket:
    descriptor = stack.enter_context(opened_folder(folder))
    _lock(folder, descriptor)
    _check_free(folder / NAME, descriptor)
    sock = stack.enter_context(_listen(folder, descriptor))
    stack.callback(_remove, NAME, descriptor)
    return sock


def _lock(folder: Path, descriptor: int) -> None:
    """Hold the lock on the folder for as long as *descriptor* is open: it goes with the process, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"state folder {folder} is in use by another otun server; give this one its own with --state"
        ) from error


def _check_free(path: Path, descriptor: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path.name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            raise ConfigurationError(f"admin socket {path}: there is something else of that name; move it away")


def _listen(folder: Path, descriptor: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    draft = f".{NAME}.{secrets.token_hex(8)}"
    try:
        os.fchmod(sock.fileno(), 0o600)  # On Linux, the file gets this mode, less the umask: it never has another.
        sock.bind(address_of(folder, descriptor, draft))
        try:
            os.chmod(draft, 0o600, dir_fd=descriptor)
            sock.listen(_BACKLOG)
            os.rename(draft, NAME, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except OSError:
            _remove(draft, descriptor)
            raise
    except OSError:
        sock.close()
        raise
    return sock


def _remove(name: str, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=descriptor)
