"""From a visitor's request to the stream that takes it: which tunnel is meant, who answers, and who may ask."""

import math
import socket
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final

from ..access.visitor_address import visitor_address
from ..addresses import TcpAddress
from ..http import forwarding, pages
from ..http.head import RequestHead
from ..http.pages import Page
from ..mux import Session
from ..switchboard import PhasedEndpoint
from .absence import Absence
from .bans import Barrable
from .registry import Registration, Route
from .upstream import Upstream
from .visitor_access import LoginAttempt, Pass, Refusal

if TYPE_CHECKING:
    from .http_port import HttpPort
    from .throttling import Throttle

MAX_UPSTREAMS: Final = 16
"""Tunnels for which a visitor's connection keeps a stream: a browser needs one, a proxy in front some more."""


class Phase(Enum):
    """What the connection is busy with."""

    IDLE = auto()
    HEAD = auto()
    HELD = auto()  # Until the tunnel's client, which is away, is back.
    LOGIN = auto()  # A password is being checked, or the answer is held back.
    PAUSED = auto()  # Until it is this visitor's turn to move bytes.
    WAITING = auto()  # For a stream.
    BODY = auto()  # Of the request; the response may have begun.
    RESPONSE = auto()
    SENDING = auto()  # What the visitor has not taken yet, before the next request is read.


class Reception(PhasedEndpoint, Barrable):
    """A visitor's connection, as far as it has to find who takes its requests; the rest is `Visitor`'s."""

    __slots__ = (
        "_absence",
        "_answer",
        "_attempt",
        "_head",
        "_pass",
        "_peer",
        "_phase",
        "_port",
        "_registration",
        "_session",
        "_upstreams",
        "_visitor",
    )

    def __init__(self, port: "HttpPort", sock: socket.socket, peer: TcpAddress, *, scheme: str) -> None:
        super().__init__(port.board, sock)
        self._port = port
        self._peer = peer
        self._visitor = forwarding.Visitor(peer.host, scheme=scheme, is_trusted=port.trusts(peer.host))
        self._phase = Phase.HEAD
        self._head: RequestHead | None = None
        self._registration: Registration | None = None
        self._absence: Absence | None = None  # Of the tunnel's client, which is waited for.
        self._pass: Pass | None = None  # The last one: it may do for the next request.
        self._attempt: LoginAttempt | None = None  # To log in, which is being checked.
        self._answer: Page | None = None  # That is held back.
        self._session: Session | None = None  # The one that a stream is waited for.
        self._upstreams: dict[Registration, Upstream] = {}

    # For `Visitor`

    def slot_granted(self, session: Session) -> None:
        """Open the stream, and send the request."""
        raise NotImplementedError

    def take_turn(self) -> bool:
        """Go on with what had to wait until bytes may be moved."""
        raise NotImplementedError

    def _send_head(self, upstream: Upstream) -> None:
        raise NotImplementedError

    def _linger(self, last_bytes: bytes) -> None:
        raise NotImplementedError

    def _look_for_end(self) -> None:
        raise NotImplementedError

    # Who comes, and where to

    def _begin(self, head: RequestHead) -> None:
        self._head = head
        redirects, visitor = self._port.redirects, self._visitor
        if visitor.is_trusted and self._port.bans.covers_any(self.origins):
            self._refuse(pages.banned())
            return
        if redirects is not None and visitor.scheme == "http":
            answer = redirects.answer(head, is_trusted=visitor.is_trusted)
            if answer is not None:
                self._linger(answer)
                return
        route = self._port.registry.find(head.host, head.path)
        if route is None:
            registry = self._port.registry
            is_missing, has_tunnels = registry.is_missing(head.host), len(registry) > 0
            self._refuse(pages.tunnel_lost() if is_missing else pages.nobody_there(head.host, has_tunnels=has_tunnels))
            return
        if route.is_passthrough:
            self._refuse(pages.misdirected(head.host))
            return
        if route.absence is not None:
            self._wait_for(route.absence)
            return
        registration = self._registration = route.choose(self._upstreams)
        if registration is None:
            self._refuse(pages.unhealthy())
            return
        if (route.rules is None and not route.has_guarded_kin) or self._has_access(route, head):
            self._find_upstream(registration)

    def _wait_for(self, absence: Absence) -> None:
        """Keep the request, its body unread, until the tunnel's client is back."""
        if not absence.wait(self):
            self._refuse(pages.tunnel_lost())
            return
        self._absence = absence
        self._phase = Phase.HELD
        self.limit(math.inf)  # The absence has an end.
        if self.has_hung_up:
            self._look_for_end()

    def _end_absence(self, absence: Absence) -> None:
        self._absence = None
        if absence.is_in_vain:
            self._refuse(pages.tunnel_lost())
        else:
            assert self._head is not None
            self._begin(self._head)

    def _has_access(self, route: Route, head: RequestHead) -> bool:
        """Whether the request may go on now; else it is refused, or waits for its log-in to be checked."""
        match self._port.access.check(self, route, head, self._pass):
            case Pass() as known:
                self._pass = known
            case Page() as page:
                self._refuse(page)
                return False
            case LoginAttempt() as attempt:
                self._attempt = attempt
                self._phase = Phase.LOGIN
                self.limit(self._port.timeouts.head)
                if self.has_hung_up:
                    self._look_for_end()
                return False
        return True

    @property
    def peer_address(self) -> str:
        """The other end of the connection, or whom it speaks for by a PROXY header."""
        return self._visitor.address

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the visitor comes from, and the address that counts as the present request's, if that is named."""
        named = None
        if self._head is not None and self._visitor.is_trusted:
            named = visitor_address(self.peer_address, self._head.fields, self._port.trusts)
        return (self.peer_address,) if named is None else (self.peer_address, named)

    def _end_login(self, verdict: Pass | Refusal) -> None:
        registration = self._registration
        assert registration is not None
        self._attempt = None
        match verdict:
            case Pass():
                self._pass = verdict
                self._go_on(registration, self._find_upstream)
            case Refusal(page, delay):
                if page.realm is not None:
                    self._port.reports.add(self._peer, f"wrong log-in at tunnel {page.realm}")
                if delay:
                    self._answer = page
                    self.limit(delay)
                else:
                    self._refuse(page)

    def _go_on(self, registration: Registration, step: Callable[[Registration], None]) -> None:
        """Take the next *step* after a while in which the tunnel may have closed."""
        head = self._head
        assert head is not None
        route = self._port.registry.find(head.host, head.path)
        if route is not None and registration in route.members:
            step(registration)
        else:
            self._begin(head)  # Another may be in its place.

    def _find_upstream(self, registration: Registration, *, is_admitted: bool = False) -> None:
        # Those who may not visit at all use nothing up.
        if registration.throttle is not None and not (is_admitted or self._is_admitted(registration.throttle)):
            return
        upstream = self._upstreams.get(registration)
        if upstream is not None:
            self._send_head(upstream)
        else:
            self._open_upstream(registration)

    def _is_admitted(self, throttle: "Throttle") -> bool:
        """Whether the request may go on now; else it is refused, or waits for its turn."""
        page = throttle.refuse_request()
        if page is not None:
            self._refuse(page)
            return False
        if not throttle.turn(self):
            self._phase = Phase.PAUSED
            self.limit(self._port.timeouts.head)
            return False
        return True

    def _end_pause(self, registration: Registration) -> None:
        self._go_on(registration, partial(self._find_upstream, is_admitted=True))

    def cut(self, page: Page) -> None:
        """Answer with *page*: it is never to be this visitor's turn."""
        if self._phase is Phase.PAUSED:
            self._refuse(page)

    # A stream

    def _open_upstream(self, registration: Registration) -> None:
        if self._is_full(registration):
            self._refuse(pages.busy())
            return
        if len(self._upstreams) >= MAX_UPSTREAMS:
            next(iter(self._upstreams.values())).close()
        self._phase = Phase.WAITING
        self.limit(self._port.timeouts.head)
        if not self._reaches(registration):
            route = registration.route
            others = route.others(registration) if route is not None else []
            if not any(map(self._reaches, others)):
                self._look_again(registration)

    def _reaches(self, registration: Registration) -> bool:
        """Send the request there, as soon as there is a stream; False if there can be none."""
        self._registration = registration
        upstream = self._upstreams.get(registration)
        if upstream is not None:
            self._send_head(upstream)
            return True
        self._session = registration.session
        if registration.session.open_soon(self):
            return True
        self._session = None
        return False

    def _look_again(self, registration: Registration) -> None:
        """There is no stream to be had there: as nothing of the request has left, it may go elsewhere, or wait."""
        head = self._head
        assert head is not None
        if not registration.session.is_going_away:
            self._refuse(pages.busy())
            return
        route = self._port.registry.find(head.host, head.path)
        absence = self._port.registry.absence_of(route) if route is not None else None
        if absence is not None:
            self._wait_for(absence)
        elif route is not None and registration not in route.members:
            self._begin(head)  # Another is in its place.
        else:
            self._refuse(pages.tunnel_lost())

    def _is_full(self, registration: Registration) -> bool:
        throttle = registration.throttle
        return registration.streams >= self._port.max_streams or (throttle is not None and throttle.is_full)

    def connection_lost(self) -> None:
        """The tunnel's session ended before the stream was open."""
        self._session = None
        assert self._registration is not None
        self._open_upstream(self._registration)

    # Waiting, and refusing

    def _goes_on(self) -> bool:
        """Go on, if what was waited for has come; else return False."""
        if self._absence is not None and self._absence.is_over:
            self._end_absence(self._absence)
        elif self._attempt is not None and self._attempt.verdict is not None:
            self._end_login(self._attempt.verdict)
        else:
            return False
        return True

    def _wait_no_more(self) -> None:
        if self._session is not None:
            self._session.forget_opener(self)
            self._session = None
        if self._absence is not None:
            self._absence.leave(self)
            self._absence = None
        if self._attempt is not None:
            self._attempt.withdraw()
            self._attempt = None
        if self._registration is not None and self._registration.throttle is not None:
            self._registration.throttle.withdraw(self)

    def _refuse(self, page: Page) -> None:
        """Answer the request with a page of ours, and end the connection."""
        self._linger(page.write(self._head))
