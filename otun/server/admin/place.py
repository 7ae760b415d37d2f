"""A server's place in its state folder: a lock that keeps others out, and the admin socket.

The socket is made for its owner alone, whatever the umask, and never in a living server's place.
"""

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

import attrs

from ...errors import ConfigurationError, OtunError

logger: logging.Logger = logging.getLogger(__name__)

NAME: Final = "admin.sock"

LOCK: Final = "server.lock"

_MAX_ADDRESS: Final = 107
"""Bytes of a Unix socket's path (unix(7)): `sun_path` has 108, with a zero at its end."""

_BACKLOG: Final = 256
"""Connections that the kernel may hold before they are accepted: it refuses more, and does not let them wait."""


class StateFolderBusy(OtunError):
    """Another server uses the folder."""


@attrs.define(eq=False)
class Place:
    """What a server has in its state folder for as long as it runs.

    *lock* is the descriptor of the lock's file; the kernel frees the lock when nobody has that open any more, however
    the process ends.  *admin* is the listening admin socket, where the file system takes one.  Another server can be
    given both: as long as the place is not *is_ours*, the socket's file is left where it is.
    """

    lock: int
    admin: socket.socket | None = None
    is_ours: bool = True


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
def claimed_place(folder: Path, given: Place | None = None) -> Iterator[Place]:
    """Take the place in the state *folder*, which is made with mode 0700 when it is missing; it is free in the end.

    A *given* place is that of a server which is still there; it belongs to this context from now on.

    A socket that a killed server has left there is replaced.  Raises `StateFolderBusy` when another server uses the
    folder, and `ConfigurationError` when it cannot be used, or something else than a socket has the name.  Where the
    file system takes no socket, there is none, which the log tells: the server can do without.
    """
    with contextlib.ExitStack() as stack:
        place = Place(_lock(folder)) if given is None else given
        stack.callback(os.close, place.lock)
        try:
            descriptor = stack.enter_context(opened_folder(folder))
            if place.admin is None:
                _check_free(folder / NAME, descriptor)
                place.admin = _listen(folder, descriptor)
            stack.callback(_leave, place, place.admin, descriptor)
        except OSError as error:
            logger.error("no commands for this server can be taken: %s: %s", folder / NAME, error.strerror or error)
        yield place


def _lock(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigurationError(f"state folder {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StateFolderBusy(
            f"state folder {folder} is in use by another otun server; give this one its own with --state, "
            "or have it take that one's place with --replace"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"state folder {folder} cannot be locked: {error.strerror}") from error
    return descriptor


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


def _leave(place: Place, admin: socket.socket, descriptor: int) -> None:
    admin.close()
    if place.is_ours:
        _remove(NAME, descriptor)


def _remove(name: str, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=descriptor)
