"""Addresses as people write them: `:4443`, `host:4443`, `[::1]:4443`, `3000`, `unix:PATH`."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

import attrs

from .errors import AddressError

_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@attrs.frozen
class TcpAddress:
    """A host and a port.  An empty *host* means every interface when listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixAddress:
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


IpAddress: TypeAlias = IPv4Address | IPv6Address

LocalAddress: TypeAlias = TcpAddress | UnixAddress


@attrs.frozen
class LocalTarget:
    """A local service: its address, and whether it speaks TLS."""

    address: LocalAddress
    is_encrypted: bool = False

    def __str__(self) -> str:
        return f"https://{self.address}" if self.is_encrypted else str(self.address)


def parse_listen_address(text: str) -> TcpAddress:
    """Read `:PORT`, `HOST:PORT` or `[IPV6]:PORT`; port 0 lets the system choose.  Raises `AddressError`."""
    return _parse_tcp(text, lowest_port=0, is_host_required=False)


def parse_server_address(text: str, *, default_port: int | None = None) -> TcpAddress:
    """Read `HOST:PORT` or `[IPV6]:PORT`, and a bare `HOST` when *default_port* is given.  Raises `AddressError`."""
    if default_port is not None and (_HOST.fullmatch(text) or re.fullmatch(r"\[[^\]]*\]", text)):
        text = f"{text}:{default_port}"
    return _parse_tcp(text, lowest_port=1, is_host_required=True)


def parse_port_ranges(text: str) -> tuple[range, ...]:
    """Read ports and ranges of them, `20000-20100,22022`.  Raises `AddressError`."""
    return tuple(map(_parse_port_range, text.split(",")))


def _parse_port_range(text: str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text.strip(), re.ASCII)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise AddressError(f"{text!r} is no port and no range of ports; write 20000-20100")
    return range(first, last + 1)


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """Read an IP address, or a network such as `10.0.0.0/8`.  Raises `AddressError`."""
    try:
        return ip_network(text)
    except ValueError:
        raise AddressError(f"{text!r} is no IP address and no network; write one such as 10.0.0.0/8") from None


@lru_cache(maxsize=1024)
def read_ip_address(text: str) -> IpAddress | None:
    """Read an IP address, without a zone, and IPv4 in IPv6's form as what it is.  None if it is none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def is_loopback_host(host: str) -> bool:
    """Whether *host* is this machine by its very name: an address such as 127.0.0.1, or `localhost`."""
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return f".{host.lower()}".removesuffix(".").endswith(".localhost")  # RFC 6761, section 6.3


def parse_local_target(text: str) -> LocalTarget:
    """Read what `parse_local_address` reads, and `http://HOST[:PORT]` or `https://HOST[:PORT]`.

    Raises `AddressError`.
    """
    scheme, mark, rest = text.partition("://")
    if not mark:
        return LocalTarget(parse_local_address(text))
    default_port = {"http": 80, "https": 443}.get(scheme.lower())
    if default_port is None:
        raise AddressError(f"{text!r} begins with {scheme}://; a local service is PORT, HOST:PORT or https://HOST:PORT")
    rest = rest.removesuffix("/")
    if "/" in rest or "?" in rest:
        raise AddressError(f"{text!r} has a path; write {scheme}://HOST:PORT: requests keep their own paths")
    address = parse_server_address(rest, default_port=default_port)
    return LocalTarget(address, is_encrypted=scheme.lower() == "https")


def parse_local_address(text: str) -> LocalAddress:
    """Read a local service's address: `PORT`, `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.  Raises `AddressError`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise AddressError(f"{text!r} names no Unix socket; write unix:PATH")
        return UnixAddress(path)
    if text.isascii() and text.isdigit():
        text = f"localhost:{text}"
    return _parse_tcp(text, lowest_port=1, is_host_required=False, default_host="localhost")


def _parse_tcp(text: str, *, lowest_port: int, is_host_required: bool, default_host: str = "") -> TcpAddress:
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise AddressError(f"{text!r} has no port; write HOST:PORT")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise AddressError(f"{text!r} has no valid port; a port is a number from {lowest_port} to 65535")
    port = int(port_text)
    if not lowest_port <= port <= 65535:
        raise AddressError(f"{text!r}: port {port} is not between {lowest_port} and 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,32})?", host) or ":" not in host:
            raise AddressError(f"{text!r}: what stands in brackets must be an IPv6 address")
    elif ":" in host:
        raise AddressError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:{port}")
    elif host and not _HOST.fullmatch(host):
        raise AddressError(f"{text!r} has no valid host name")
    if not host and is_host_required:
        raise AddressError(f"{text!r} has no host; write HOST:{port}")
    return TcpAddress(host or default_host, port)
