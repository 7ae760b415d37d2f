"""Listening sockets, IPv4 and IPv6."""

import errno
import socket
from typing import Final

import trio

from ..addresses import TcpAddress
from ..errors import ListenError

LISTEN_BACKLOG: Final = 4096
"""Connections that the kernel may hold before they are accepted; it lowers the number to its own limit."""

_PORT_ATTEMPTS: Final = 8
"""Free ports to try until one is free on every address."""


async def open_listening_sockets(address: TcpAddress) -> list[socket.socket]:
    """Listen on every address that *address* stands for, all with the same port.  Raises `ListenError`."""
    addresses = await resolve(address)
    for attempt in range(_PORT_ATTEMPTS):
        try:
            return listen_on_all(addresses, address.port)
        except OSError as error:
            is_unlucky = address.port == 0 and error.errno == errno.EADDRINUSE
            if not is_unlucky or attempt == _PORT_ATTEMPTS - 1:
                raise ListenError(f"cannot listen on {address}: {_explain(error)}") from error
    raise AssertionError("the last attempt returns or raises")


def bound_address(sock: socket.socket) -> TcpAddress:
    """Return where *sock* listens."""
    host, port = sock.getsockname()[:2]
    return TcpAddress(host, port)


def addresses_of(sock: socket.socket) -> list[TcpAddress]:
    """Return where *sock* listens: one for all of IPv6, as systemd makes them, may be one for all of IPv4, too."""
    bound = bound_address(sock)
    if bound.host == "::" and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return [bound, TcpAddress("0.0.0.0", bound.port)]
    return [bound]


def plain_host(host: str) -> str:
    """Return an address that the system has given, if it is IPv4 in IPv6's form as what it is."""
    return host.removeprefix("::ffff:") if "." in host else host


def peer_or_close(sock: socket.socket) -> TcpAddress | None:
    """Return where a new connection comes from; None if it has gone already, and *sock* is closed then."""
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        sock.close()
        return None
    return TcpAddress(plain_host(host), port)


async def resolve(address: TcpAddress) -> list[tuple[socket.AddressFamily, str]]:
    """Return all that *address* stands for.  Raises `ListenError`."""
    if not address.host:
        families = [(socket.AF_INET, "0.0.0.0")]
        return [(socket.AF_INET6, "::"), *families] if _has_ipv6() else families
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # The latter for labels that are too long or empty.
        raise ListenError(f"cannot listen on {address}: {address.host!r} is no known host") from error
    return list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def listen_on_all(addresses: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    """Listen on *port* of every address; port 0 is a free one, the same for all.  Raises `OSError`."""
    sockets: list[socket.socket] = []
    try:
        for family, host in addresses:
            sock = _listen(family, host, port)
            sockets.append(sock)
            port = bound_address(sock).port
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket) -> None:
    """Set what the sockets that *sock* accepts inherit, and never wait for one."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _find_dead_peers(sock)


def is_listening_tcp(sock: socket.socket) -> bool:
    """Whether TCP connections can be accepted on *sock*, which somebody else has opened."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return False
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _find_dead_peers(sock: socket.socket) -> None:
    """Have the kernel ask peers that are silent, so that those that have vanished do not stay for ever."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _explain(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use; stop the program that has it, or choose another port"
        case errno.EACCES:
            return "not permitted; ports below 1024 need privileges, or choose another port"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _:
            return error.strerror or str(error)
