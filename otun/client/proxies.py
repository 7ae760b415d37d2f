"""Proxies on the way to the server: how one is written, and which one an environment asks for.

What is not said here is as curl does it, since that is what people set these variables for.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

from ..addresses import TcpAddress, is_loopback_host, parse_server_address
from ..errors import AddressError

DEFAULT_PROXY_PORT: Final = 1080
"""For every kind of proxy, as in curl: HTTP proxies have no port that all agree on, either."""

ProxyScheme: TypeAlias = Literal["http", "socks5", "socks5h"]

_SCHEMES: Final[dict[str, ProxyScheme]] = {"http": "http", "socks5": "socks5", "socks5h": "socks5h"}

_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_EXCEPTION_VARIABLES: Final = ("no_proxy", "NO_PROXY")

_USAGE: Final = "write http://HOST:PORT, socks5://HOST:PORT or socks5h://HOST:PORT, with USER:PASSWORD@ before HOST"

_URL: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(?:([^/?#]*)@)?([^/?#@]*)/?")

# An entry of NO_PROXY with a port or with brackets; an IPv6 address without brackets has no port.
_EXCEPTION: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?")

_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_MAX_SOCKS_LENGTH: Final = 255
"""Bytes of a user or a password: each has one byte for its length (RFC 1929)."""


@attrs.frozen
class ProxyAddress:
    """A proxy, and what to show it.  Neither `str` nor `repr` shows the password.

    ``http`` proxies are asked to CONNECT, and resolve the server's name themselves, as ``socks5h`` proxies do; for
    ``socks5`` it is resolved here.  *user* is None when there is nothing to show.  Made by `parse_proxy`.
    """

    scheme: ProxyScheme
    address: TcpAddress
    user: str | None = None
    password: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"


def parse_proxy(text: str) -> ProxyAddress:
    """Read `[SCHEME://][USER:PASSWORD@]HOST[:PORT]`, where user and password may be percent-encoded.

    The scheme is ``http`` when it is not said, and the port 1080.  Raises `AddressError`, whose message repeats
    nothing of *text*: it is not known what is a password in text that cannot be read.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise AddressError(f"this is no proxy; {_USAGE}")
    scheme_text, credentials, place = match.groups()
    scheme = _SCHEMES.get((scheme_text or "http").lower())
    if scheme is None:
        if scheme_text.lower() == "https":
            raise AddressError("TLS to the proxy itself is not supported; http:// does for the same server")
        raise AddressError(f"this kind of proxy is not supported; {_USAGE}")
    try:
        address = parse_server_address(place, default_port=DEFAULT_PROXY_PORT)
    except AddressError:
        raise AddressError(f"the proxy has no valid host and port; {_USAGE}") from None
    if not credentials:
        return ProxyAddress(scheme, address)
    user, _, password = credentials.partition(":")
    return ProxyAddress(scheme, address, *_checked(scheme, _decode(user), _decode(password)))


def _decode(encoded: str) -> str:
    try:
        text = unquote_to_bytes(encoded).decode()
    except UnicodeError:
        raise AddressError("the proxy's user or password is not UTF-8 text") from None
    if _CONTROL_CHARACTER.search(text):  # RFC 7617, section 2
        raise AddressError("the proxy's user or password has control characters")
    return text


def _checked(scheme: ProxyScheme, user: str, password: str) -> tuple[str, str]:
    """Return what the proxy's protocol can carry.  Raises `AddressError`."""
    if scheme == "http":
        if ":" in user:  # RFC 7617, section 2: it would end there.
            raise AddressError("the user of an HTTP proxy cannot have a colon in its name")
    elif not (user.isascii() and password.isascii()):  # RFC 1929 names no encoding, and python-socks knows no other.
        raise AddressError("the user and the password of a SOCKS5 proxy must be ASCII")
    elif not (0 < len(user) <= _MAX_SOCKS_LENGTH and 0 < len(password) <= _MAX_SOCKS_LENGTH):
        raise AddressError(f"a SOCKS5 proxy takes a user and a password of 1 to {_MAX_SOCKS_LENGTH} characters each")
    return user, password


def proxy_from_environment(environ: Mapping[str, str], server: TcpAddress) -> ProxyAddress | None:
    """Return the proxy that *environ* asks for on the way to *server*, or None.

    It is in ``https_proxy``, ``HTTPS_PROXY``, ``all_proxy`` or ``ALL_PROXY``: the first one that is not empty.  A
    server on this machine has none, nor has one that ``no_proxy`` or ``NO_PROXY`` lists: names, which stand for what is
    below them, too, IP addresses, networks, each with or without a port, or ``*``; separated by commas or spaces.

    Raises `AddressError` that names the variable.
    """
    name = next(filter(environ.get, _VARIABLES), None)
    if name is None or is_loopback_host(server.host):
        return None
    exceptions = next(filter(None, map(environ.get, _EXCEPTION_VARIABLES)), "")
    if any(_is_meant(exception, server) for exception in re.split(r"[,\s]+", exceptions)):
        return None
    try:
        return parse_proxy(environ[name])
    except AddressError as error:
        raise AddressError(f"{name}: {error}") from error


def _is_meant(exception: str, server: TcpAddress) -> bool:
    """Whether *exception*, an entry of NO_PROXY, is about *server*."""
    if exception == "*":
        return True
    match = _EXCEPTION.fullmatch(exception)
    if match is not None and match[3] is not None and int(match[3]) != server.port:
        return False
    named = exception if match is None else match[1] or match[2] or ""
    address = _read_address(server.host)
    if address is None:
        domain = _comparable(named.removeprefix("*.").removeprefix("."))
        return bool(domain) and f".{_comparable(server.host)}".endswith(f".{domain}")
    try:
        return address in ip_network(named, strict=False)
    except ValueError:
        return False


def _comparable(host: str) -> str:
    return host.lower().removesuffix(".")


def _read_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None
