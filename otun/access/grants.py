"""What a token may, as it is written down: `http:app,http:app-*,tls:app,tcp:20000-20010,host:*.example.org`.

Each grant names one thing; what none of them names is not allowed.  `http:` and `tls:` are for the names of tunnels of
that kind, under the server's domain: whoever may terminate TLS for a name need not be one who may serve it through the
server, so neither implies the other.  `host:` is for host names outside the domain, for both kinds; those under a
tunnel's own name come with the name.  `tcp:` is for ports.

A name may end with `*`, which stands for the rest of a label and never for a dot: `app-*`, or `*` for all names.
`host:*.example.org` means every name under example.org at any depth, as `--allow-hostname` does, and not example.org
itself; `host:*` and `tcp:*` mean all that the server allows.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeAlias

import attrs

from ..addresses import parse_port_ranges
from ..control.excerpt import excerpt
from ..control.names import covers, normalize_hostname, normalize_name
from ..errors import AddressError, ConfigurationError, InvalidName

NameKind: TypeAlias = Literal["http", "tls"]
"""A kind of tunnel that has a name to itself."""

MAX_GRANTS: Final = 64
"""Grants of one token: as many as a session has tunnels."""

MAX_LENGTH: Final = MAX_GRANTS * 300
"""Characters of the text: room for as many host names, which have at most 253."""

_HELP: Final = "write http:NAME, tls:NAME, tcp:PORT, tcp:FIRST-LAST or host:NAME, with commas between them"
_SEPARATORS: Final = re.compile(r"[, \t\r\n]+")
_OPEN_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,61})?\*")
_EVERY_HOST: Final = "*"
_EVERY_PORT: Final = range(1, 65536)
_MAX_LABEL: Final = 63


@attrs.frozen(order=True)
class NamePattern:
    """A tunnel's name; if it *is_open*, all names that begin with it, also every name if it is empty."""

    name: str
    is_open: bool = False

    @classmethod
    def parse(cls, text: str) -> "NamePattern":
        """Read `app`, `app-*` or `*`.  Raises `InvalidName`."""
        match = _OPEN_NAME.fullmatch(text)
        if match is not None:
            return cls((match[1] or "").lower(), is_open=True)
        if "*" in text:
            raise InvalidName(f"{excerpt(text)}: a name may have one *, at its end, as in app-*")
        return cls(normalize_name(text))

    def __str__(self) -> str:
        return f"{self.name}*" if self.is_open else self.name

    def matches(self, name: str) -> bool:
        """Whether it means *name*, in lower case.  A dot belongs to no name."""
        if "." in name:
            return False
        return name.startswith(self.name) if self.is_open else name == self.name


@attrs.frozen
class Grants:
    """What a token may.  Equal ones have the same text: `str` gives it, in a fixed order and without repetitions."""

    http: tuple[NamePattern, ...] = ()
    tls: tuple[NamePattern, ...] = ()
    tcp: tuple[range, ...] = ()
    hosts: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Grants":
        """Read grants with commas or white space between them.  Raises `ConfigurationError`."""
        if len(text) > MAX_LENGTH:
            raise ConfigurationError(f"that is too long for what a token may: {len(text)} characters of {MAX_LENGTH}")
        items = [item for item in _SEPARATORS.split(text) if item]
        if not items:
            raise ConfigurationError(f"what may the token do? {_HELP}")
        if len(items) > MAX_GRANTS:
            raise ConfigurationError(f"a token has at most {MAX_GRANTS} grants, and these are {len(items)}")
        found = _Found()
        for item in items:
            found.add(item)
        return cls(
            http=tuple(sorted(found.http)),
            tls=tuple(sorted(found.tls)),
            tcp=tuple(_joined(found.tcp)),
            hosts=tuple(sorted(found.hosts)),
        )

    def __str__(self) -> str:
        return ",".join(
            [
                *(f"http:{pattern}" for pattern in self.http),
                *(f"tls:{pattern}" for pattern in self.tls),
                *(f"tcp:{_text_of(ports)}" for ports in self.tcp),
                *(f"host:{pattern}" for pattern in self.hosts),
            ]
        )

    def may_use_name(self, kind: NameKind, name: str) -> bool:
        """Whether a tunnel of *kind* may have *name*, which `normalize_name` has returned."""
        return any(pattern.matches(name) for pattern in self._names(kind))

    def may_use_hostname(self, hostname: str) -> bool:
        """Whether a tunnel may have *hostname*, or a wildcard, which `normalize_hostname` has returned."""
        return any(pattern == _EVERY_HOST or covers(pattern, hostname) for pattern in self.hosts)

    def may_use_port(self, port: int) -> bool:
        """Whether a TCP tunnel may have *port*."""
        return any(port in ports for ports in self.tcp)

    def ports(self, offered: Iterable[range]) -> tuple[range, ...]:
        """Return those of the *offered* ports that a TCP tunnel may have."""
        found = (range(max(one.start, other.start), min(one.stop, other.stop)) for one in offered for other in self.tcp)
        return tuple(filter(None, found))

    def fit_name(self, kind: NameKind, made_up: str) -> str | None:
        """Return a name for a tunnel whose client chose none, made of *made_up* as far as the grants leave room for it.

        That is *made_up* itself, or with the beginning that a grant asks for, or else the first name that is granted;
        None when the grants have no name of that *kind*.  *made_up* is of letters and digits.
        """
        patterns = self._names(kind)
        if not patterns:
            return None
        if self.may_use_name(kind, made_up):
            return made_up
        pattern = next((pattern for pattern in patterns if pattern.is_open), patterns[0])
        return f"{pattern.name}{made_up}"[:_MAX_LABEL] if pattern.is_open else pattern.name

    def _names(self, kind: NameKind) -> tuple[NamePattern, ...]:
        return self.http if kind == "http" else self.tls


@attrs.define
class _Found:
    """Grants as they are read."""

    http: set[NamePattern] = attrs.Factory(set)
    tls: set[NamePattern] = attrs.Factory(set)
    tcp: list[range] = attrs.Factory(list)
    hosts: set[str] = attrs.Factory(set)

    def add(self, item: str) -> None:
        """Read one grant.  Raises `ConfigurationError`."""
        kind, colon, what = item.partition(":")
        try:
            match kind.lower() if colon else None:
                case "http":
                    self.http.add(NamePattern.parse(what))
                case "tls":
                    self.tls.add(NamePattern.parse(what))
                case "tcp":
                    self.tcp.extend([_EVERY_PORT] if what == "*" else parse_port_ranges(what))
                case "host":
                    self.hosts.add(what if what == _EVERY_HOST else normalize_hostname(what))
                case _:
                    raise ConfigurationError(f"{excerpt(item)} is no grant: {_HELP}")
        except InvalidName as error:
            raise ConfigurationError(f"{excerpt(item)} is no grant: {error}") from error
        except AddressError as error:  # Its text repeats the whole of what was given.
            raise ConfigurationError(
                f"{excerpt(item)} is no grant: write tcp:PORT, tcp:FIRST-LAST or tcp:*, with ports from 1 to 65535"
            ) from error


def _joined(ranges: Iterable[range]) -> Iterator[range]:
    """Return the same ports in as few ranges as there can be, the lowest first."""
    last: range | None = None
    for ports in sorted(ranges, key=lambda ports: ports.start):
        if last is not None and ports.start <= last.stop:
            last = range(last.start, max(last.stop, ports.stop))
            continue
        if last is not None:
            yield last
        last = ports
    if last is not None:
        yield last


def _text_of(ports: range) -> str:
    if ports == _EVERY_PORT:
        return "*"
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"


EVERYTHING: Final = Grants.parse("http:*,tls:*,tcp:*,host:*")
"""What a token may that says nothing about it: all that the server's settings allow."""
