"""Which tunnels are open, and which one a visitor's request means."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from ..access.rules import VisitorRules
from ..control.names import MAX_HOSTNAME_LENGTH
from ..http.forwarding import NO_EDITS, FieldEdits
from ..http.pages import Page
from ..mux import Session
from ..yamux import YamuxStream

if TYPE_CHECKING:
    from .throttling import Throttle

EVERY_PATH: Final = b"/"


class StreamOwner(Protocol):
    """A visitor's end of a stream: *moved* counts the bytes that it has relayed, both ways."""

    moved: int

    @property
    def stream(self) -> YamuxStream:
        """The stream."""
        ...

    def cut(self, page: Page) -> None:
        """Relay nothing more; who asks over HTTP, and has no answer yet, gets *page*."""


@attrs.define(eq=False)
class Registration:
    """A tunnel: what leads to it, the session of the client that answers for it, and what its owner asked for.

    *hosts* are whole host names, or wildcards (`*.app.example.org`); *path* is the beginning of the paths that are for
    it, without a slash at its end.  *owner* is the name of who has it, if that is not just anybody; *tunnel_id* is the
    client's own name for it, and *local* its local service's address, for people: both may be empty.  If it
    *is_passthrough*, TLS ends at the local service.  *streams* counts those that are open.

    *rules* are what visitors must comply with; *has_guarded_kin* tells that another tunnel on one of its hosts has
    some.  Whoever lets a visitor in asks `otun.server.visitor_access`.

    *throttle* is to be asked before anything is moved, if there is any limit to that.  *owners* are those of the
    streams that are open, and *moved* counts the bytes of those that were.
    """

    name: str
    session: Session
    hosts: tuple[str, ...] = ()
    path: bytes = EVERY_PATH
    tunnel_id: str = ""
    owner: str | None = None
    local: str = ""
    host_header: bytes | None = None
    request_edits: FieldEdits = NO_EDITS
    response_edits: FieldEdits = NO_EDITS
    has_stream_header: bool = False
    is_passthrough: bool = False
    rules: VisitorRules | None = attrs.field(default=None, repr=False)
    has_guarded_kin: bool = False
    throttle: "Throttle | None" = None
    streams: int = 0
    owners: set[StreamOwner] = attrs.field(factory=set, repr=False)
    moved: int = 0

    def serves(self, path: bytes) -> bool:
        """Whether requests for *path* are for this tunnel: its prefix ends where a segment of *path* does."""
        prefix = self.path
        if prefix == EVERY_PATH:
            return True
        return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?")

    def admits_connection(self) -> bool:
        """Count a connection that is to be relayed as it is, unless there are too many of them."""
        return self.throttle is None or self.throttle.admits_connection()

    def stream_opened(self, owner: StreamOwner) -> None:
        """*owner* has a stream."""
        self.owners.add(owner)
        if self.throttle is not None:
            self.throttle.hold_back(owner.stream)

    def stream_handed_over(self, owner: StreamOwner) -> None:
        """*owner* has left its stream to another one."""
        self.owners.discard(owner)
        self.moved += owner.moved

    def stream_over(self, owner: StreamOwner) -> None:
        """*owner* has no stream any more."""
        self.streams -= 1
        self.stream_handed_over(owner)
        if self.throttle is not None:
            self.throttle.release(owner.stream)

    def count_moved(self) -> int:
        """Return how many bytes visitors have sent and received."""
        return self.moved + sum(owner.moved for owner in self.owners)

    @property
    def url_path(self) -> str:
        """What its URL has behind the host: nothing, if it has every path."""
        return "" if self.path == EVERY_PATH else self.path.decode()

    def is_kin_of(self, other: "Registration") -> bool:
        """Whether both belong to the same client, or to clients who have shown the same token."""
        return self.session is other.session or (self.owner is not None and self.owner == other.owner)


def _is_nobodys(owner: str | None, host: str) -> bool:
    return False


class Registry:
    """The HTTP tunnels that are open on a server.

    *is_kept_from* tells whether a host name is reserved for another owner than this one, who may be None: a wildcard
    does not lead there then.
    """

    def __init__(self, domain: str | None, *, is_kept_from: Callable[[str | None, str], bool] = _is_nobodys) -> None:
        self._is_kept_from = is_kept_from
        self.domain: str = domain or "localhost"
        self._suffix = f".{self.domain}"
        self._has_domain = domain is not None
        self._routes: dict[str, list[Registration]] = {}  # By host; those with the longest path come first.
        self._has_wildcards = False  # Or had some.
        self._tunnels: set[Registration] = set()

    def __len__(self) -> int:
        return len(self._tunnels)

    def __contains__(self, name: object) -> bool:
        return f"{name}{self._suffix}" in self._routes

    def host_of(self, name: str) -> str:
        """Return the host of a tunnel's name."""
        return f"{name}{self._suffix}"

    def routes(self) -> Iterator[tuple[str, str]]:
        """Return every host that leads to a tunnel, with the path that is the tunnel's there."""
        return ((host, route.path.decode()) for host, routes in self._routes.items() for route in routes)

    def hosts_of(self, registration: Registration) -> tuple[str, ...]:
        """Return every host that leads to *registration*."""
        return (self.host_of(registration.name), *registration.hosts)

    def rivals(self, registration: Registration) -> Iterator[tuple[str, Registration]]:
        """Return the hosts that cannot be shared, and with whom: the same path, another owner, TLS of its own."""
        for host in self.hosts_of(registration):
            for other in self._routes.get(host, ()):
                is_alone = other.is_passthrough or registration.is_passthrough  # Nobody sees its paths.
                if is_alone or other.path == registration.path or not other.is_kin_of(registration):
                    yield host, other

    def wildcards_over(self, registration: Registration) -> Iterator[tuple[str, "Registration"]]:
        """Return the hosts that a wildcard has given to another token, and to whom.  Without tokens all are equal."""
        for host in registration.hosts:
            for other in self._routes_of_wildcard(host.removeprefix("*.")) or ():
                if other.owner != registration.owner:
                    yield host, other

    def add(self, registration: Registration) -> None:
        """Open a tunnel; it must have no rival for the very hosts that it has."""
        assert not any(self.rivals(registration))
        for host in self.hosts_of(registration):
            routes = self._routes.setdefault(host, [])
            routes.append(registration)
            routes.sort(key=lambda route: len(route.path), reverse=True)
        self._has_wildcards = self._has_wildcards or any(host.startswith("*.") for host in registration.hosts)
        self._tunnels.add(registration)
        self._look_for_guarded_kin(registration)

    def remove(self, registration: Registration) -> None:
        """Close the tunnel."""
        for host in self.hosts_of(registration):
            routes = self._routes[host]
            routes.remove(registration)
            if not routes:
                del self._routes[host]
        self._tunnels.remove(registration)
        self._look_for_guarded_kin(registration)

    def beside(self, registration: Registration) -> set[Registration]:
        """Return the tunnels on all the hosts of *registration*, itself among them if it is open."""
        return {route for host in self.hosts_of(registration) for route in self._routes.get(host, ())}

    def _look_for_guarded_kin(self, registration: Registration) -> None:
        """Have those on the hosts of *registration* know whether one beside them has rules."""
        for route in self.beside(registration):
            route.has_guarded_kin = any(other.rules is not None and other is not route for other in self.beside(route))

    def find(self, host: str, path: bytes = EVERY_PATH) -> Registration | None:
        """Return the tunnel that *host*, in lower case and without a port, and *path* mean.

        The whole host is compared, never a part of it; else the longest wildcard counts.  On a server without a domain,
        a host that leads nowhere means the only tunnel there is.
        """
        if host.startswith("*"):
            return None  # Nobody's name, although the rules for Host allow it.
        routes = self.routes_of(host)
        if routes is not None:
            for route in routes:
                if route.serves(path):
                    return route
            return None
        if not self._has_domain and len(self._tunnels) == 1 and not host.endswith(self._suffix):
            (only,) = self._tunnels
            return only if only.serves(path) else None
        return None

    def routes_of(self, host: str) -> list[Registration] | None:
        """Return the tunnels on *host*, those with the longest path first; None if nothing has its name."""
        routes = self._routes.get(host)
        if routes is None and self._has_wildcards:
            routes = self._routes_of_wildcard(host)
            if routes and self._is_kept_from(routes[0].owner, host):
                return None
        return routes

    def _routes_of_wildcard(self, host: str) -> list[Registration] | None:
        if host == self.domain or len(host) > MAX_HOSTNAME_LENGTH:  # Thousands of labels would take long.
            return None
        _, dot, rest = host.partition(".")
        while dot and rest != self.domain:  # A wildcard from outside does not reach into it.
            routes = self._routes.get(f"*.{rest}")
            if routes is not None:
                return routes
            _, dot, rest = rest.partition(".")
        return None
