"""Which address a visitor's is, where proxies that we trust stand between."""

import re
from collections.abc import Callable, Iterable
from typing import Final

from ..addresses import read_ip_address
from ..http.fields import Field

_FORWARDED_FOR: Final = b"x-forwarded-for"

# An address, as some proxies write it with a port: `192.0.2.1:4711`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}|([0-9A-Fa-f:.]+)")


def visitor_address(peer: str, fields: Iterable[Field], trusts: Callable[[str], bool]) -> str | None:
    """Return the address that counts as the visitor's; None if a proxy that we trust has named none.

    It is that of *peer*, the other end of the connection, unless that is a proxy that we trust.  Then its
    `X-Forwarded-For` is read from the end, where the proxy has written whom it speaks for, and on to the left for as
    long as those are proxies that we trust, too; what stands further left anybody may have written.  A request that
    such a proxy makes of its own accord, without that field, is the proxy's.  `Forwarded` and `X-Real-IP` do not count:
    most proxies pass on what they are sent there.
    """
    if not trusts(peer):
        return peer
    found = peer
    given = b",".join([field.value for field in fields if field.name == _FORWARDED_FOR])
    for entry in reversed(given.decode("latin-1").split(",")):
        text = entry.strip(" \t")
        if not text:
            continue
        address = _read_node(text)
        if address is None:
            return None
        found = address
        if not trusts(found):
            break
    return found


def _read_node(text: str) -> str | None:
    match = _NODE.fullmatch(text)
    address = read_ip_address(match[1] or match[2] or match[3]) if match is not None else None
    return None if address is None else str(address)
