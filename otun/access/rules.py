"""What a tunnel's owner demands of visitors: where they come from, what their requests carry, that they log in."""

import hmac
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import attrs

from ..addresses import IpAddress, parse_network, read_ip_address
from ..control.messages import PROTECTIONS
from ..errors import ConfigurationError
from ..http.fields import HOP_BY_HOP, IDENTITY, Field
from ..http.forwarding import Network
from .credentials import AUTHORIZATION
from .passwords import Login, check_users

MAX_NETWORKS: Final = 256
"""Networks that a tunnel may allow, and as many that it may deny."""

MAX_REQUIRED: Final = 8
"""Headers that a tunnel may require."""

MAX_HEADER_LENGTH: Final = 512
"""Characters of such a header."""

_MAX_DECIDED: Final = 1024
"""Addresses for which is remembered how the lists decide."""

_REQUIRED: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?::[ \t]*([\t\x20-\x7e]*?)[ \t]*)?")

# What the edge itself reads, writes or removes says nothing about who has sent the request.
_NOT_REQUIRABLE: Final = HOP_BY_HOP | IDENTITY | {b"host", b"content-length", b"trailer", b"expect"}


@attrs.frozen
class RequiredHeader:
    """A header that a request must carry; with a *value*, which is a secret, just that one."""

    name: bytes
    value: bytes | None = attrs.field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "RequiredHeader":
        """Read `Name` or `Name: value`.  Raises `ConfigurationError`, whose text does not repeat what it was given."""
        match = _REQUIRED.fullmatch(text) if len(text) <= MAX_HEADER_LENGTH else None
        if match is None or match[2] == "":
            raise ConfigurationError(
                f"a required header is 'Name' or 'Name: value', in at most {MAX_HEADER_LENGTH} ASCII characters"
            )
        name = match[1].lower().encode()
        if name in _NOT_REQUIRABLE:
            raise ConfigurationError(f"{match[1]!r} is a header that the server changes itself: it cannot be required")
        return cls(name, None if match[2] is None else match[2].encode())

    def is_in(self, fields: Iterable[Field]) -> bool:
        """Whether *fields* have it; with a value, there must be no other of that name."""
        values = [field.value for field in fields if field.name == self.name]
        if self.value is None:
            return bool(values)
        return len(values) == 1 and hmac.compare_digest(values[0], self.value)


@attrs.frozen(eq=False)
class VisitorRules:
    """All that a tunnel demands.  Made by `VisitorRules.parse`."""

    allowed: tuple[Network, ...] = ()
    denied: tuple[Network, ...] = ()
    headers: tuple[RequiredHeader, ...] = ()
    logins: tuple[Login, ...] = ()
    _decided: dict[str, bool] = attrs.field(factory=dict, init=False, repr=False)

    def is_same_as(self, other: "VisitorRules | None") -> bool:
        """Whether both demand the same, word for word."""
        return other is not None and (self.allowed, self.denied, self.headers, self.logins) == (
            other.allowed,
            other.denied,
            other.headers,
            other.logins,
        )

    @classmethod
    def parse(
        cls,
        *,
        basic_auth: tuple[str, ...] = (),
        allow_ip: tuple[str, ...] = (),
        deny_ip: tuple[str, ...] = (),
        require_header: tuple[str, ...] = (),
    ) -> "VisitorRules | None":
        """Read what a client asks for; None when it asks for nothing.  Raises `ConfigurationError`."""
        if not (basic_auth or allow_ip or deny_ip or require_header):
            return None
        check_required(require_header)
        logins = tuple(map(Login.parse, basic_auth))
        check_users([login.user for login in logins])
        rules = cls(
            _parse_networks(allow_ip),
            _parse_networks(deny_ip),
            tuple(map(RequiredHeader.parse, require_header)),
            logins,
        )
        if logins and any(header.name == AUTHORIZATION for header in rules.headers):
            raise ConfigurationError("'Authorization' is where visitors log in: it cannot be required besides")
        return rules

    @property
    def names(self) -> tuple[str, ...]:
        """What the client is told to be in force: the names of the fields in which it has asked for it."""
        in_force = (self.logins, self.allowed, self.denied, self.headers)
        return tuple(name for name, items in zip(PROTECTIONS, in_force, strict=True) if items)

    @property
    def has_networks(self) -> bool:
        """Whether it matters where a visitor comes from."""
        return bool(self.allowed or self.denied)

    @property
    def secret_fields(self) -> frozenset[bytes]:
        """The fields that are for the edge alone: a log-in, and headers whose value is a secret shared with visitors.

        A header that must only be there is passed on: it means something to the local service.
        """
        secret = {header.name for header in self.headers if header.value is not None}
        return frozenset(secret | {AUTHORIZATION} if self.logins else secret)

    def admits(self, address: str | None) -> bool:
        """Whether a visitor from *address*, None when it is not known, may come.  Who is denied is not allowed."""
        if not self.has_networks:
            return True
        if address is None:
            return False
        decided = self._decided.get(address)
        if decided is None:
            if len(self._decided) >= _MAX_DECIDED:
                self._decided.clear()
            decided = self._decided[address] = self._decide(read_ip_address(address))
        return decided

    def _decide(self, address: IpAddress | None) -> bool:
        if address is None or any(address in network for network in self.denied):
            return False
        return not self.allowed or any(address in network for network in self.allowed)

    def login_of(self, user: str) -> Login | None:
        """Return the user's log-in.  The time taken tells nothing about which one was nearly right."""
        encoded = user.encode()
        found = None
        for login in self.logins:
            if hmac.compare_digest(login.user.encode(), encoded):
                found = login
        return found


def check_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses and networks, as they are compared.  Raises `AddressError` and `ConfigurationError`."""
    return tuple(map(str, _parse_networks(texts)))


def _parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    if len(texts) > MAX_NETWORKS:
        raise ConfigurationError(f"a tunnel allows and denies at most {MAX_NETWORKS} networks each")
    return tuple(unmapped(parse_network(text)) for text in texts)


def check_required(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return required headers, if they can be used.  Raises `ConfigurationError`."""
    if len(texts) > MAX_REQUIRED:
        raise ConfigurationError(f"a tunnel requires at most {MAX_REQUIRED} headers")
    for text in texts:
        RequiredHeader.parse(text)
    return texts


def unmapped(network: Network) -> Network:
    """Return a network of IPv4 addresses in IPv6's form as what it is, since visitors' addresses are compared so."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
