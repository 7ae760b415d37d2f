"""What the client's tests share: large bodies, a tunnel to a local service, what servers it may meet."""

import hashlib
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final
from urllib.parse import urlsplit

import attrs
import pytest
import trio

from otun import Session, SessionClosed, TcpAddress, Tunnel, TunnelSettings, forward, open_tunnel
from otun.addresses import LocalAddress

from ..server.harness import RunningServer
from ..server.services import Service, receive_head

MIB: Final = 1024 * 1024
_BLOCK: Final = 64 * 1024


def blocks(size: int, seed: int = 0) -> Iterator[bytes]:
    """A body of *size* bytes in which no two blocks are equal, different for each *seed*."""
    block = random.Random(seed).randbytes(_BLOCK - 8)
    for number in range(-(-size // _BLOCK)):
        yield (number.to_bytes(8) + block)[: size - number * _BLOCK]


def digest_of(size: int, seed: int = 0) -> str:
    """The SHA-256 of that body."""
    digest = hashlib.sha256()
    for block in blocks(size, seed):
        digest.update(block)
    return digest.hexdigest()


async def receive_digest(stream: trio.abc.ReceiveStream, size: int, start: bytes = b"") -> str:
    """Receive *size* bytes, *start* being the first of them; the SHA-256."""
    digest = hashlib.sha256(start)
    missing = size - len(start)
    while missing:
        piece = await stream.receive_some(min(missing, _BLOCK))
        assert piece, f"the stream ended {missing} bytes early"
        digest.update(piece)
        missing -= len(piece)
    return digest.hexdigest()


@attrs.frozen
class Place:
    """A server, a tunnel on it, and the service behind that."""

    server: RunningServer
    tunnel: Tunnel
    service: Service | None

    @property
    def public(self) -> TcpAddress:
        """Where its visitors connect."""
        return public_address(self.server, self.tunnel)


def public_address(server: RunningServer, tunnel: Tunnel) -> TcpAddress:
    """Where visitors of *tunnel* connect: to the server's public port, or to the one that a TCP tunnel has."""
    url = urlsplit(tunnel.url)
    if url.scheme == "http":
        return server.public
    assert url.scheme == "tcp"
    assert url.hostname is not None
    assert url.port is not None
    return TcpAddress(url.hostname, url.port)


def session_of(tunnel: Tunnel) -> Session:
    """The client's end of the tunnel's newest session."""
    return tunnel._link._contacts[-1].session


def open_tcp_tunnel(server: RunningServer) -> AbstractAsyncContextManager[Tunnel]:
    """Open the tunnel `app`, which relays bytes as they are."""
    return open_tunnel(server.control, TunnelSettings(name="app", kind="tcp"))


kinds: Final = pytest.mark.parametrize("kind", ["http", "tcp"])
"""For tests of what tunnels of all kinds have in common; visitors of the third kind would have to speak TLS."""

ForwardTo = Callable[..., Awaitable[Tunnel]]


async def forward_until_end(
    server: TcpAddress, local: LocalAddress | str | int, *, task_status: trio.TaskStatus[Tunnel], **options: object
) -> None:
    """`otun.forward`, but the server's end is no error."""
    with suppress(SessionClosed):
        await forward(server, local, task_status=task_status, reconnect=False, **options)


class Names(trio.abc.HostnameResolver):
    """A name service that knows the names that it is told; the others it does not know."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(self, host: bytes | None, port: object, *_arguments: object, **_keywords: object) -> list:
        await trio.lowlevel.checkpoint()
        assert host is not None
        found = self.addresses.get(host.decode())
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", _place(address, port))
            for address in found
        ]

    async def getnameinfo(self, *arguments: object, **keywords: object) -> tuple[str, str]:
        raise NotImplementedError


def _place(address: str, port: object) -> tuple[object, ...]:
    return (address, port, 0, 0) if ":" in address else (address, port)


async def forward_it(tunnel: Tunnel) -> None:
    await tunnel.forward("localhost", 3000)


async def accept_one(tunnel: Tunnel) -> None:
    await tunnel.accept()


async def serve_all(tunnel: Tunnel) -> None:
    await tunnel.serve(receive_head)


uses = pytest.mark.parametrize("use", [forward_it, accept_one, serve_all], ids=lambda use: use.__name__)
Use = Callable[[Tunnel], Awaitable[None]]
"""What a program may be doing with a tunnel when that ends."""
