"""What systemd is told about the server, if it wants to know (sd_notify(3))."""

import contextlib
import os
import socket
import time

_VARIABLE = "NOTIFY_SOCKET"


def notify(*lines: str) -> None:
    """Send `NAME=VALUE` lines to the service manager, if there is one; it does not matter whether it hears them."""
    path = os.environ.get(_VARIABLE)
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address)


def notify_reloading() -> None:
    """Say that settings are being read again, until the next READY=1."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
