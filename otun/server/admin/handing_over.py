"""How a running server gives its place to another one: see `otun.server.handoff`."""

import array
import logging
import os
import socket
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from ..draining import Draining
from ..hub import Hub
from ..sockets import KINDS
from .place import Place

logger: logging.Logger = logging.getLogger(__name__)

LOCK_NAME: Final = "lock"
ADMIN_NAME: Final = "admin"
TCP_NAME: Final = "tcp:"
"""What the descriptors are called, beside `KINDS`; the last is followed by a port."""

_DESCRIPTORS_AT_ONCE: Final = 250
"""Linux passes 253 in one message at most."""


@attrs.frozen(eq=False)
class HandingOver:
    """What another server is given, and how this one leaves."""

    hub: Hub
    place: Place
    draining: Draining

    def descriptors(self) -> list[tuple[str, int]]:
        """Return what is handed over, by name: this server goes on using it."""
        assert self.place.admin is not None
        found = [(LOCK_NAME, self.place.lock), (ADMIN_NAME, self.place.admin.fileno())]
        found += [(kind, sock.fileno()) for kind in KINDS for sock in self.hub.sockets.of(kind)]
        found += [
            (f"{TCP_NAME}{port}", sock.fileno())
            for port, sock in ((tunnel.port, sock) for tunnel in self.hub.tcp_ports for sock in tunnel.sockets)
        ]
        return found

    def describe(self, descriptors: Sequence[tuple[str, int]]) -> dict[str, object]:
        """Return what the other server is told."""
        tunnels = self.hub.tunnels()
        return {
            "pid": os.getpid(),
            "descriptors": [name for name, _ in descriptors],
            "routes": tunnels.routes,
            "ports": tunnels.ports,
        }

    def leave(self, by: str) -> None:
        """Let the other server have the place, and drain."""
        logger.info("%s takes the place of this server", by)
        self.place.is_ours = False
        self.draining.begin()


async def pass_descriptors(stream: trio.SocketStream, descriptors: Sequence[int]) -> None:
    """Send *descriptors*, some with each of so many spaces: they stand before an answer in JSON."""
    for start in range(0, len(descriptors), _DESCRIPTORS_AT_ONCE):
        some = array.array("i", descriptors[start : start + _DESCRIPTORS_AT_ONCE])
        await stream.socket.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some.tobytes())])
