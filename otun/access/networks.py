"""Networks in which an address is looked up at the same cost, however many there are."""

from ipaddress import IPv4Network, IPv6Network
from math import inf
from typing import Final, TypeAlias

from ..addresses import parse_network, read_ip_address
from ..errors import AddressError
from ..http.forwarding import Network
from .rules import unmapped

_Key: TypeAlias = tuple[int, int]
"""An IP version, and a length of prefixes."""

_BITS: Final = {4: 32, 6: 128}

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1"))


def parse_plain_network(text: str) -> Network:
    """Read a network without a zone, and one of IPv4 addresses in IPv6's form as what it is.  Raises `AddressError`."""
    if "%" in text:
        raise AddressError(f"{text!r} has a zone, which is this machine's own business: leave it out")
    return unmapped(parse_network(text))


def has_loopback(network: Network) -> bool:
    """Whether addresses by which this machine reaches itself are in *network*."""
    return any(own.version == network.version and own.overlaps(network) for own in _LOOPBACK)


class NetworkTable:
    """Networks, each with the time until which it counts, in whatever unit *now* is."""

    def __init__(self) -> None:
        self._untils: dict[_Key, dict[int, float]] = {}  # By the bits of the prefix.
        self._size = 0

    def __repr__(self) -> str:
        return f"<NetworkTable of {self._size} networks>"

    def __len__(self) -> int:
        return self._size

    def put(self, network: Network, until: float = inf) -> None:
        """Add a network, or change until when it counts."""
        untils = self._untils.setdefault((network.version, network.prefixlen), {})
        prefix = _prefix(network)
        self._size += prefix not in untils
        untils[prefix] = until

    def remove(self, network: Network) -> None:
        """Take a network out, if it is there."""
        key = (network.version, network.prefixlen)
        untils = self._untils.get(key, {})
        if untils.pop(_prefix(network), None) is not None:
            self._size -= 1
            if not untils:
                del self._untils[key]

    def covers(self, address: str, now: float) -> bool:
        """Whether *address* is in one of them.  Text that is no address is in none."""
        if not self._untils:
            return False
        found = read_ip_address(address)
        if found is None:
            return False
        version, bits = found.version, int(found)
        # One look for each length of prefix that there is, 33 or 129 at most.
        for (of, length), untils in self._untils.items():
            if of == version:
                until = untils.get(bits >> (_BITS[of] - length))
                if until is not None and until > now:
                    return True
        return False


def _prefix(network: Network) -> int:
    return int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
