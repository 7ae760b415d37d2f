"""Host names as HTTP carries them: in the Host field and in absolute-form targets."""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from ..errors import BadRequest

# RFC 3986, section 3.2.2: a reg-name of unreserved characters, sub-delims and percent-encoded octets (an IPv4 address
# is one too), or an IPv6 address in brackets; then RFC 9110, section 7.2: an optional port, whose digits may be absent.
# The reg-name is written as `a*(?:b a*)*`, which has one reading only, so that matching takes linear time.
_AUTHORITY: Final = re.compile(
    rb"([A-Za-z0-9._~!$&'()*+,;=-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=-]*)*|\[[0-9A-Fa-f:.]+\])"
    rb"(?::([0-9]{0,5}))?"
)
_MAX_PORT: Final = 65535


@lru_cache(maxsize=1024)
def parse_authority(value: bytes) -> tuple[str, int | None]:
    """Split *value*, ``host`` or ``host:port``, into a normalised host and the port, None where none is given.

    The host comes in lower case and without the trailing dot of a fully qualified name; an IPv6 address keeps its
    brackets, and is otherwise left as it was spelt.  Percent-encoded octets stay encoded.

    Raises `BadRequest` when *value* is no ``uri-host [ ":" port ]`` (RFC 9110, section 7.2), when it has user
    information, or when its host is empty, which RFC 9110, section 4.2.1, forbids in an http URI.
    """
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        raise BadRequest("the host is not valid: it must be a name or an address, with an optional port")
    host = match[1].decode("ascii").lower()
    if host.startswith("["):
        _check_ipv6(host[1:-1])
    else:
        host = host.removesuffix(".")
        if not host or host.endswith("."):
            raise BadRequest("the host name is empty or ends with an empty label")
    port = int(match[2]) if match[2] else None
    if port is not None and port > _MAX_PORT:
        raise BadRequest(f"the host's port {port} is over {_MAX_PORT}")
    return host, port


def _check_ipv6(address: str) -> None:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise BadRequest("the host in brackets is not an IPv6 address") from None
