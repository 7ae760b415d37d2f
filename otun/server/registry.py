"""Which tunnels are open, and which one a visitor's request means."""

import math
from collections.abc import Callable, Container, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from ..access.rules import VisitorRules
from ..control.names import MAX_HOSTNAME_LENGTH
from ..http.forwarding import NO_EDITS, FieldEdits
from ..http.pages import Page
from ..mux import Session
from ..yamux import YamuxStream
from .absence import Absence, Hold

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

    def retire(self) -> None:
        """Relay what is under way to its end, and nothing else on this stream."""


@attrs.define(eq=False)
class Registration:
    """A tunnel: what leads to it, the session of the client that answers for it, and what its owner asked for.

    *hosts* are whole host names, or wildcards (`*.app.example.org`); *path* is the beginning of the paths that are for
    it, without a slash at its end.  *owner* is the name of who has it, if that is not just anybody; *tunnel_id* is the
    client's own name for it, and *local* its local service's address, for people: both may be empty.  If it
    *is_passthrough*, TLS ends at the local service.  *streams* counts those that are open.

    If it is *in_group*, others of the same owner that are so, too, may be there beside it.  *keeper* is who may come
    back to it when its client is away, and *route* where it is, or was.

    It gets no visitors unless it *is_healthy*, as its client says.

    *rules* are what visitors must comply with.  Whoever lets a visitor in asks `otun.server.visitor_access`.

    *throttle* is to be asked before anything is moved, if there is any limit to that.  *owners* are those of the
    streams that are open, and *moved* counts the bytes of those that were.
    """

    name: str
    session: Session
    hosts: tuple[str, ...] = ()
    path: bytes = EVERY_PATH
    tunnel_id: str = ""
    owner: str | None = None
    keeper: str = ""
    in_group: bool = False
    is_healthy: bool = True
    local: str = ""
    host_header: bytes | None = None
    request_edits: FieldEdits = NO_EDITS
    response_edits: FieldEdits = NO_EDITS
    has_stream_header: bool = False
    is_passthrough: bool = False
    rules: VisitorRules | None = attrs.field(default=None, repr=False)
    route: "Route | None" = attrs.field(default=None, repr=False)
    throttle: "Throttle | None" = None
    streams: int = 0
    owners: set[StreamOwner] = attrs.field(factory=set, repr=False)
    moved: int = 0

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

    def retire(self) -> None:
        """The client leaves: those who have streams may finish what they have begun."""
        for owner in list(self.owners):
            owner.retire()

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


@attrs.define(eq=False)
class Route:
    """A place where visitors come for a tunnel, or for several of a group.

    When the last client is away, it is *keeper* that is expected back.
    *name* is the tunnel's.  Nobody knows whether one *is_passthrough* that has not been there yet.  *has_guarded_kin*
    tells that another one on its *hosts* has rules.
    """

    hosts: tuple[str, ...] = ()
    path: bytes = EVERY_PATH
    keeper: str = ""
    name: str = ""
    is_passthrough: bool | None = None
    rules: VisitorRules | None = attrs.field(default=None, repr=False)
    has_guarded_kin: bool = False
    members: list[Registration] = attrs.field(factory=list)
    absence: Absence | None = None

    def serves(self, path: bytes) -> bool:
        """Whether requests for *path* are for it: its prefix ends where a segment of *path* does."""
        prefix = self.path
        if prefix == EVERY_PATH:
            return True
        return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?")

    def join(self, registration: Registration) -> None:
        """Have *registration* answer from now on, also for those who wait."""
        self.members.append(registration)
        registration.route = self
        registration.rules = self.rules  # Equal ones: what a visitor has shown to one member holds for all.
        self.end_absence()

    def is_group_of(self, registration: Registration) -> bool:
        """Whether those who are here share their place with *registration*, which is another session's."""
        return registration.in_group and all(
            other.in_group and other.owner == registration.owner and other.session is not registration.session
            for other in self.members
        )

    def find_difference(self, registration: Registration, hosts: tuple[str, ...] = ()) -> str | None:
        """Return in what *registration* on *hosts*, which is in the group of those who are here, is not as they are."""
        if set(hosts) != set(self.hosts):
            return "host names"
        if self.is_passthrough is not None and self.is_passthrough is not registration.is_passthrough:
            return "kind"
        rules = registration.rules
        is_same = self.rules is None if rules is None else rules.is_same_as(self.rules)
        return None if is_same else "rules for visitors"

    def choose(self, used: Container[Registration] = ()) -> Registration | None:
        """Return who is to answer next: whoever has the fewest streams open; of several, who was chosen longest ago.

        For somebody who has streams to *used*, these do not count, and are preferred.  None: nobody is healthy.
        """
        if len(self.members) == 1:
            (only,) = self.members
            return only if only.is_healthy else None
        # One plain loop: with `min` and a key, a group of three costs 2.5 us a request more.
        chosen, least = None, math.inf
        for member in self.members:
            if member.is_healthy and not member.session.is_going_away:
                cost = 2 * member.streams - 3 * (member in used)
                if cost < least:
                    chosen, least = member, cost
        if chosen is None:
            return None if self._members_there() else self.members[0]
        self.members.remove(chosen)
        self.members.append(chosen)
        return chosen

    def others(self, registration: Registration) -> list[Registration]:
        """Return who else can answer, in the order in which to try."""
        there = self._members_there()
        others = [member for member in there if member.is_healthy and member is not registration]
        return sorted(others, key=lambda member: member.streams)

    def _members_there(self) -> list[Registration]:
        return [member for member in self.members if not member.session.is_going_away]

    def look_for_absence(self, hold: Hold | None, given_up: Callable[[], None]) -> Absence | None:
        """Return the absence, which begins at once when the session has ended and nobody has said goodbye."""
        has_gone = all(member.session.is_closed and not member.session.has_said_goodbye for member in self.members)
        if self.absence is None and hold is not None and has_gone:
            self.absence = hold.begin(given_up)
        return self.absence

    def end_absence(self, *, in_vain: bool = False) -> None:
        """Let those who wait go on."""
        absence, self.absence = self.absence, None
        if absence is not None:
            absence.end(in_vain=in_vain)


def _is_nobodys(keeper: str, host: str) -> bool:
    return False


class Registry:
    """The HTTP tunnels that are open on a server, and those whose clients are expected back for as long as *hold*.

    *is_kept_from* tells whether a host name is reserved for another keeper than this one: a wildcard does not lead
    there then.
    """

    def __init__(
        self,
        domain: str | None,
        hold: Hold | None = None,
        *,
        is_kept_from: Callable[[str, str], bool] = _is_nobodys,
    ) -> None:
        self._is_kept_from = is_kept_from
        self.domain: str = domain or "localhost"
        self._suffix = f".{self.domain}"
        self._has_domain = domain is not None
        self._hold = hold
        self._routes: dict[str, list[Route]] = {}  # By host; those with the longest path come first.
        self._has_wildcards = False  # Or had some.
        self._present: set[Route] = set()
        self._absent: set[Route] = set()

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, name: object) -> bool:
        return any(route.members for route in self._routes.get(f"{name}{self._suffix}", ()))

    def host_of(self, name: str) -> str:
        """Return the host of a tunnel's name."""
        return f"{name}{self._suffix}"

    def routes(self) -> Iterator[tuple[str, Route]]:
        """Return every host that leads somewhere, and where."""
        return ((host, route) for host, routes in self._routes.items() for route in routes)

    def hosts_of(self, registration: Registration) -> tuple[str, ...]:
        """Return every host that leads to *registration*."""
        return tuple(dict.fromkeys((self.host_of(registration.name), *registration.hosts)))

    # Tunnels that come and go

    def rivals(self, registration: Registration) -> Iterator[tuple[str, Registration]]:
        """Return the hosts that cannot be shared, and with whom: the same path, another owner, TLS of its own."""
        group = self.group_of(registration)
        for host in self.hosts_of(registration):
            for route in self._routes.get(host, ()):
                for other in route.members if route is not group else ():
                    is_alone = other.is_passthrough or registration.is_passthrough  # Nobody sees its paths.
                    if is_alone or route.path == registration.path or not other.is_kin_of(registration):
                        yield host, other

    def group_of(self, registration: Registration) -> Route | None:
        """Return where other clients of its owner share a place with *registration*, if they do."""
        for host in self.hosts_of(registration):
            for route in self._routes.get(host, ()):
                if route.members and route.path == registration.path and route.is_group_of(registration):
                    return route
        return None

    def wildcards_over(self, registration: Registration) -> Iterator[tuple[str, Registration]]:
        """Return the hosts that a wildcard has given to another token, and to whom.  Without tokens all are equal."""
        for host in registration.hosts:
            for route in self._routes_of_wildcard(host.removeprefix("*.")) or ():
                for other in route.members:
                    if other.owner != registration.owner:
                        yield host, other

    def add(self, registration: Registration) -> None:
        """Open a tunnel; it must have no rival for the very hosts that it has.

        Those whose clients are away give way, if they would be rivals, or the same.  In a group that is there, it must
        not be different from the others.
        """
        assert not any(self.rivals(registration))
        group = self.group_of(registration)
        if group is not None:
            group.join(registration)
            return
        self._make_room(registration)
        route = Route(
            self.hosts_of(registration),
            registration.path,
            registration.keeper,
            registration.name,
            registration.is_passthrough,
            registration.rules,
        )
        route.join(registration)
        self._put(route, self._present)
        if self._hold is not None:
            for host in route.hosts:
                self._hold.missing.discard(host)

    def is_missing(self, host: str) -> bool:
        """Whether a client that had *host* was waited for in vain not long ago."""
        return self._hold is not None and host in self._hold.missing

    def _make_room(self, registration: Registration) -> None:
        for host in self.hosts_of(registration):
            for route in list(self._routes.get(host, ())):
                is_alone = route.is_passthrough or registration.is_passthrough
                is_kin = route.keeper == registration.keeper
                if not route.members and (is_alone or route.path == registration.path or not is_kin):
                    self._drop(route)

    def remove(self, registration: Registration) -> None:
        """Close the tunnel."""
        route = self._leave(registration)
        if not route.members:
            self._drop(route, in_vain=True)

    def lose(self, registration: Registration) -> None:
        """The tunnel's client is away: expect it back, and keep what leads to it meanwhile."""
        route = self._leave(registration)
        if not route.members:
            self._present.remove(route)
            self._absent.add(route)
            if self.absence_of(route) is None:
                self._drop(route)

    def expect(self, host: str, path: bytes = EVERY_PATH, *, keeper: str) -> None:
        """Expect a tunnel of *keeper*'s on *host*, unless something is there: it was before the server started."""
        if all(route.path != path for route in self._routes.get(host, ())):
            route = Route((host,), path, keeper)
            self._put(route, self._absent)
            if self.absence_of(route) is None:
                self._drop(route)

    def absence_of(self, route: Route) -> Absence | None:
        """Return the absence of the client of *route*, which is known here, if it is away and expected back."""
        return route.look_for_absence(self._hold, partial(self._give_up, route))

    def _leave(self, registration: Registration) -> Route:
        route = registration.route
        assert route is not None
        route.members.remove(registration)
        return route

    def _give_up(self, route: Route) -> None:
        if route.members:
            route.end_absence(in_vain=True)
            return
        self._drop(route, in_vain=True)
        if self._hold is not None:
            for host in route.hosts:
                self._hold.missing.add(host)

    def _put(self, route: Route, where: set[Route]) -> None:
        where.add(route)
        for host in route.hosts:
            routes = self._routes.setdefault(host, [])
            routes.append(route)
            routes.sort(key=lambda route: len(route.path), reverse=True)
        self._has_wildcards = self._has_wildcards or any(host.startswith("*.") for host in route.hosts)
        self._look_for_guarded_kin(route)

    def _drop(self, route: Route, *, in_vain: bool = False) -> None:
        """Have nothing lead there any more; those who wait look elsewhere, or have waited *in_vain*."""
        for host in route.hosts:
            routes = self._routes[host]
            routes.remove(route)
            if not routes:
                del self._routes[host]
        self._present.discard(route)
        self._absent.discard(route)
        self._look_for_guarded_kin(route)
        route.end_absence(in_vain=in_vain)

    def beside(self, route: Route) -> set[Route]:
        """Return what there is on all the hosts of *route*, itself among it if it is known here."""
        return {other for host in route.hosts for other in self._routes.get(host, ())}

    def _look_for_guarded_kin(self, changed: Route) -> None:
        """Have those on the hosts of *changed* know whether one beside them has rules."""
        for route in self.beside(changed):
            route.has_guarded_kin = any(other.rules is not None and other is not route for other in self.beside(route))

    # Looking them up

    def find(self, host: str, path: bytes = EVERY_PATH) -> Route | None:
        """Return where *host*, in lower case and without a port, and *path* lead.

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
        if not self._has_domain and not host.endswith(self._suffix):
            all_of_them = self._present or self._absent
            if len(all_of_them) == 1:
                (only,) = all_of_them
                return only if only.serves(path) else None
        return None

    def routes_of(self, host: str) -> list[Route] | None:
        """Return what *host* leads to, what has the longest path first; None if nothing has its name."""
        routes = self._routes.get(host)
        if routes is None and self._has_wildcards:
            routes = self._routes_of_wildcard(host)
            if routes and self._is_kept_from(routes[0].keeper, host):
                return None
        return routes

    def _routes_of_wildcard(self, host: str) -> list[Route] | None:
        if host == self.domain or len(host) > MAX_HOSTNAME_LENGTH:  # Thousands of labels would take long.
            return None
        _, dot, rest = host.partition(".")
        while dot and rest != self.domain:  # A wildcard from outside does not reach into it.
            routes = self._routes.get(f"*.{rest}")
            if routes is not None:
                return routes
            _, dot, rest = rest.partition(".")
        return None
