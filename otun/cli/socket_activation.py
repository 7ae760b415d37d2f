"""Listening sockets that systemd, or something like it, has opened for the server (sd_listen_fds(3)).

They are told apart by their names, `FileDescriptorName=control`, `public` (or `http`) and `https` in the socket units;
without such names by the addresses that the settings have, and those that are left are taken in that order.
"""

import os
import socket
from collections.abc import MutableMapping
from contextlib import ExitStack
from typing import Final

from ..addresses import TcpAddress
from ..errors import ConfigurationError
from ..server import ListeningSockets, ServerSettings
from ..server.sockets import KINDS

FIRST_DESCRIPTOR: Final = 3

_NAMES: Final = {"control": "control", "public": "public", "http": "public", "https": "https"}


def sockets_from_environment(
    settings: ServerSettings, environ: MutableMapping[str, str], first: int = FIRST_DESCRIPTOR
) -> ListeningSockets | None:
    """Return the sockets that were passed to this very process; None if there are none.

    The variables are removed, so that no other process takes the sockets for its own.  Raises `ConfigurationError`.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count:
        return None
    if not (count.isascii() and count.isdigit() and len(count) <= 4):
        raise ConfigurationError(f"LISTEN_FDS: {count[:20]!r} is no number of sockets")
    found: dict[str, list[socket.socket]] = {kind: [] for kind in KINDS}
    nameless = []
    given = names.split(":") if names else []
    with ExitStack() as unused:
        for index in range(int(count)):
            name = given[index] if index < len(given) else "unknown"
            sock = unused.enter_context(_open(first + index, name))
            if name in _NAMES:
                found[_NAMES[name]].append(sock)
            else:
                nameless.append(sock)
        _assign(nameless, found, settings)
        unused.pop_all()
    return ListeningSockets(tuple(found["control"]), tuple(found["public"]), tuple(found["https"]))


def _open(descriptor: int, name: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} ({name}) is no socket") from error
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        sock.close()
        raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} ({name}) is no TCP socket")
    return sock


def _assign(nameless: list[socket.socket], found: dict[str, list[socket.socket]], settings: ServerSettings) -> None:
    """Find out what the sockets without a name are for."""
    left = []
    for sock in nameless:
        kind = next((kind for kind in KINDS if _listens_at(getattr(settings, kind), sock)), None)
        if kind is None:
            left.append(sock)
        else:
            found[kind].append(sock)
    missing = [kind for kind in KINDS if not found[kind] and getattr(settings, kind) is not None]
    if len(left) > len(missing):
        places = ", ".join(str(TcpAddress(*sock.getsockname()[:2])) for sock in left)
        raise ConfigurationError(
            f"LISTEN_FDS: what are the sockets for that listen at {places}? Give them names: "
            "FileDescriptorName=control, public or https"
        )
    for kind, sock in zip(missing, left, strict=False):
        found[kind].append(sock)


def _listens_at(address: TcpAddress | None, sock: socket.socket) -> bool:
    host, port = sock.getsockname()[:2]
    return address is not None and address.port == port and address.host in ("", host)
