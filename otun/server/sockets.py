"""The sockets that a server listens on: opened by itself, or given by whoever had them before."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final

import attrs

from ..addresses import TcpAddress
from ..errors import ConfigurationError
from .listening import addresses_of, bound_address, is_listening_tcp, open_listening_sockets, prepare, resolve
from .settings import ServerSettings

KINDS: Final = ("control", "public", "https")
"""What the fields of the settings and of `ListeningSockets` have in common."""


@attrs.frozen(eq=False)
class ListeningSockets:
    """Sockets by what they are for, in IPv4 and IPv6; *tcp* are those of TCP tunnels, by port."""

    control: tuple[socket.socket, ...] = ()
    public: tuple[socket.socket, ...] = ()
    https: tuple[socket.socket, ...] = ()
    tcp: Mapping[int, tuple[socket.socket, ...]] = attrs.field(factory=dict)

    def __iter__(self) -> Iterator[socket.socket]:
        yield from (*self.control, *self.public, *self.https)
        for sockets in self.tcp.values():
            yield from sockets

    def of(self, kind: str) -> tuple[socket.socket, ...]:
        """Return those of one of `KINDS`."""
        found: tuple[socket.socket, ...] = getattr(self, kind)
        return found

    def addresses(self, kind: str) -> tuple[TcpAddress, ...]:
        """Return where those of one of `KINDS` listen."""
        return tuple(address for sock in self.of(kind) for address in addresses_of(sock))

    def close(self) -> None:
        """Close them all."""
        for sock in self:
            sock.close()


async def open_sockets(settings: ServerSettings, given: ListeningSockets | None = None) -> ListeningSockets:
    """Listen as *settings* say, on the sockets that are *given* as far as there are any.

    Raises `ListenError`, and `ConfigurationError` for sockets that are given for what the settings do not have, or do
    not listen; all are closed then.
    """
    given = given or ListeningSockets()
    with ExitStack() as unused:
        unused.callback(given.close)
        for sock in given:
            if not is_listening_tcp(sock):
                raise ConfigurationError(f"descriptor {sock.fileno()} was handed over, but is no listening TCP socket")
            prepare(sock)
        found: dict[str, tuple[socket.socket, ...]] = {}
        for kind in KINDS:
            address: TcpAddress | None = getattr(settings, kind)
            found[kind] = given.of(kind)
            if found[kind] and address is None:
                raise ConfigurationError(f"a socket was handed over for --{kind}, which the settings do not have")
            if not found[kind] and address is not None:
                found[kind] = tuple(await open_listening_sockets(address))
                for sock in found[kind]:
                    unused.callback(sock.close)
        unused.pop_all()
        return attrs.evolve(given, control=found["control"], public=found["public"], https=found["https"])


async def fitting(settings: ServerSettings, given: ListeningSockets) -> ListeningSockets:
    """Return those of *given* that listen where *settings* say; the others are closed.  Raises `ListenError`."""
    kept = {}
    for kind in KINDS:
        kept[kind] = given.of(kind)
        if not await _listens_at(getattr(settings, kind), kept[kind]):
            for sock in kept[kind]:
                sock.close()
            kept[kind] = ()
    return attrs.evolve(given, control=kept["control"], public=kept["public"], https=kept["https"])


async def _listens_at(address: TcpAddress | None, sockets: tuple[socket.socket, ...]) -> bool:
    if address is None or not sockets:
        return False
    hosts = {each.host for sock in sockets for each in addresses_of(sock)}
    return address.port in (0, bound_address(sockets[0]).port) and hosts == {host for _, host in await resolve(address)}
