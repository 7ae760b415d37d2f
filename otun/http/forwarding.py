"""What changes in a head on its way: hop-by-hop fields, who the visitor is, and what the tunnel's owner asked for."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeAlias

import attrs

from ..addresses import read_ip_address
from ..errors import ConfigurationError
from .fields import HOP_BY_HOP, IDENTITY
from .head import RequestHead, ResponseHead

Network: TypeAlias = IPv4Network | IPv6Network

_EDIT: Final = re.compile(r"(-?)([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?::[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*)?")

_MAX_SHOWN: Final = 60
"""Characters of a header's name in an error."""

_NOT_EDITABLE: Final = HOP_BY_HOP | {b"host", b"content-length", b"trailer", b"expect"}


@attrs.frozen
class FieldEdits:
    """Fields to put in the place of those of the same name, or to remove: what an owner asked for, in a list."""

    removed: frozenset[bytes] = frozenset()
    added: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, texts: tuple[str, ...]) -> "FieldEdits":
        """Read `Name: value` and `-Name`.  Raises `ConfigurationError`."""
        removed, added = set(), []
        for text in texts:
            match = _EDIT.fullmatch(text)
            if match is None or not text.isascii() or bool(match[1]) == (match[3] is not None):
                name, colon, _ = text.partition(":")  # A value may be a secret.
                shown = f"{name[:_MAX_SHOWN]}{colon and ': ...'}"
                raise ConfigurationError(f"{shown!r} is no header; write 'Name: value', or '-Name' to remove one")
            field = match[2].lower().encode()
            if field in _NOT_EDITABLE:
                raise ConfigurationError(f"{match[2]!r} says how the message is read, and cannot be changed")
            removed.add(field)
            if match[3] is not None:
                added.append(f"{match[2]}: {match[3]}\r\n".encode())
        return cls(frozenset(removed), tuple(added))

    def hiding(self, names: frozenset[bytes]) -> "FieldEdits":
        """Return them with the fields of these *names* removed, too."""
        return attrs.evolve(self, removed=self.removed | names) if names else self

    def confined(self, base: str) -> "FieldEdits":
        """Return them with cookies that are not for all tunnels of the server whose domain is *base*."""
        return (
            attrs.evolve(self, added=tuple(_confined_line(line, base) for line in self.added)) if self.added else self
        )


NO_EDITS: Final = FieldEdits()


class Visitor:
    """Who sends the requests of one connection: what the local service is told about it.

    Only the fields of a *trusted* visitor, a proxy of ours, are passed on, completed by its own address.
    """

    __slots__ = ("_fields", "_last_authority", "_node", "address", "is_trusted", "scheme")

    def __init__(self, address: str, *, scheme: str = "http", is_trusted: bool = False) -> None:
        self.address = address.partition("%")[0]
        self.scheme = scheme
        self.is_trusted = is_trusted
        self._node = f'"[{self.address}]"' if ":" in self.address else self.address  # RFC 7239, section 6
        self._last_authority: bytes | None = None
        self._fields = b""

    def fields(self, head: RequestHead) -> bytes:
        """Return `X-Forwarded-For`, `-Host`, `-Proto` and `Forwarded` (RFC 7239) for a request."""
        if self.is_trusted:
            return self._completed_fields(head)
        if head.authority != self._last_authority:  # It hardly ever changes on a connection.
            self._last_authority = head.authority
            self._fields = self._write(head.authority)
        return self._fields

    def _write(
        self, authority: bytes, *, before: bytes = b"", forwarded: bytes = b"", host: bytes = b"", proto: bytes = b""
    ) -> bytes:
        proto = proto or self.scheme.encode()
        address, node = self.address.encode(), self._node.encode()
        host = b"X-Forwarded-Host: %s\r\n" % (host or authority) if host or authority else b""
        named = b';host="%s"' % authority if authority else b""
        return b"X-Forwarded-For: %s%s\r\n%sX-Forwarded-Proto: %s\r\nForwarded: %sfor=%s;proto=%s%s\r\n" % (
            before,
            address,
            host,
            proto,
            forwarded,
            node,
            self.scheme.encode(),
            named,
        )

    def _completed_fields(self, head: RequestHead) -> bytes:
        given: dict[bytes, bytes] = {}
        for name, value, _, _ in head.fields:
            if name in IDENTITY:
                given[name] = given[name] + b", " + value if name in given else value
        before, forwarded = given.get(b"x-forwarded-for"), given.get(b"forwarded")
        return self._write(
            head.authority,
            before=before + b", " if before else b"",
            forwarded=forwarded + b", " if forwarded else b"",
            host=given.get(b"x-forwarded-host", b""),
            proto=given.get(b"x-forwarded-proto", b""),
        )


def is_in_networks(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether *address* is in one of *networks*; an IPv4 address in IPv6's form counts as what it is."""
    found = read_ip_address(address) if networks else None
    return found is not None and any(found in network for network in networks)


def write_request(
    head: RequestHead, visitor: Visitor, *, host: bytes, edits: FieldEdits = NO_EDITS, kept: bytes | None = None
) -> bytes:
    """Return the head as the local service is to see it: in HTTP/1.1, with *host* for its Host.

    *kept* is what `kept_lines` has returned for the same fields and *edits*: a third of the work, where it is known.
    """
    framing = head.framing
    out = [head.method.encode(), b" ", head.path, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
    out.append(kept_lines(head, edits) if kept is None else kept)
    if b"te" in framing.options and any(name == b"te" and b"trailers" in value for name, value, _, _ in head.special):
        out.append(b"Connection: TE\r\nTE: trailers\r\n")
    identity = visitor.fields(head)
    out.append(identity if edits.removed.isdisjoint(IDENTITY) else _without(identity, edits.removed))
    if framing.content_length is not None:
        out.append(b"Content-Length: %d\r\n" % framing.content_length)
    elif framing.is_chunked:
        out.append(b"Transfer-Encoding: chunked\r\n")
    if framing.upgrade is not None:
        out.append(b"Connection: Upgrade\r\nUpgrade: %s\r\n" % framing.upgrade)
    out += edits.added
    out.append(b"\r\n")
    return b"".join(out)


def kept_lines(head: RequestHead, edits: FieldEdits) -> bytes:
    """Return the fields of a request that are passed on as they are."""
    return _kept_lines(head, edits, _PASSED_ON_IN_REQUESTS)


def _without(lines: bytes, names: frozenset[bytes]) -> bytes:
    kept = [line for line in lines.splitlines(keepends=True) if line.partition(b":")[0].lower() not in names]
    return b"".join(kept)


def write_response(
    head: ResponseHead, framing: bytes, *, base: str | None = None, edits: FieldEdits = NO_EDITS
) -> bytes:
    """Return the head as the visitor is to see it, with the lines *framing*, which say where the body ends.

    With the server's domain as *base*, no cookie is set for all of its tunnels.
    """
    out = [b"HTTP/1.1 %d " % head.status, head.reason, b"\r\n"]
    out.append(_kept_lines(head, edits, _PASSED_ON_IN_RESPONSES, base))
    out.append(framing)
    out += edits.added
    out.append(b"\r\n")
    return b"".join(out)


_PASSED_ON_IN_REQUESTS: Final = frozenset((b"expect", b"trailer"))
_PASSED_ON_IN_RESPONSES: Final = IDENTITY | {b"expect", b"host", b"proxy-authorization", b"set-cookie", b"trailer"}


def _kept_lines(
    head: RequestHead | ResponseHead, edits: FieldEdits, passed_on: frozenset[bytes], base: str | None = None
) -> bytes:
    """Return the fields that are of no concern to us, and those that are *passed_on*, in their order.

    Those that Connection names or an owner removes are left out; cookies are confined below *base*.
    """
    if head.kept is not None and not edits.removed:
        return head.kept
    gone = head.framing.options - _USUAL_OPTIONS | edits.removed
    if any(field.name in passed_on for field in head.special):
        lines = []
        for name, value, line, is_plain in head.fields:
            if name in gone or not (is_plain or name in passed_on):
                continue
            if name == b"set-cookie" and base is not None:
                line = b"Set-Cookie: %s\r\n" % confine_cookie(value, base)
            lines.append(line)
        return b"".join(lines)
    if gone:
        return b"".join([line for name, _, line, is_plain in head.fields if is_plain and name not in gone])
    head.kept = b"".join([field.line for field in head.fields if field.is_plain])  # Nearly always.
    return head.kept


_USUAL_OPTIONS: Final = frozenset((b"keep-alive", b"close", b"upgrade", b"te"))


def confine_cookie(value: bytes, base: str) -> bytes:
    """Return a Set-Cookie value without a Domain that is *base* or above it: other tunnels are not to see the cookie.

    Without that attribute the cookie is for the tunnel's own host alone (RFC 6265, section 5.3).
    """
    if b"omain" not in value.lower():
        return value
    first, *attributes = value.split(b";")
    kept = [attribute for attribute in attributes if not _is_domain_above(attribute, base)]
    return b";".join([first, *kept])


def _confined_line(line: bytes, base: str) -> bytes:
    name, _, value = line.removesuffix(b"\r\n").partition(b": ")
    return b"%s: %s\r\n" % (name, confine_cookie(value, base)) if name.lower() == b"set-cookie" else line


def _is_domain_above(attribute: bytes, base: str) -> bool:
    name, _, value = attribute.partition(b"=")
    if name.strip().lower() != b"domain":
        return False
    domain = value.strip(b' \t"').lower().strip(b".").decode("latin-1")
    return base == domain or base.endswith(f".{domain}")
