"""How a client's tunnel is opened: everything that must hold is checked here, for each tunnel anew."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Final, NoReturn

import attrs

from ..access import Identity, NameKind
from ..addresses import TcpAddress
from ..control.excerpt import excerpt
from ..control.messages import Error, Register, Registered
from .absence import keeper_of
from .admission import Refused, admit_host, chosen_name, refuse, visitor_rules
from .authentication import Authenticator
from .authorization import authorize_another, authorize_hosts, authorize_port, fit_name
from .automatic_certificates import AutomaticCertificates
from .clients import Client, Clients, OpenTunnel
from .given_names import GivenNames
from .registry import EVERY_PATH, Registration, Registry, Route
from .reservations import Key, Reservations
from .settings import ServerSettings
from .tcp_port import TcpPorts, TcpTunnel
from .traffic import Traffic
from .urls import PublicPorts, public_url

logger: logging.Logger = logging.getLogger(__name__)

TAKEOVER_SILENCE: Final = 15.0
"""Seconds of silence after which a session leaves its names to another one of the same identity."""

MAX_MEMBERS: Final = 64
"""Tunnels in a group: all are looked at for each request, which takes 7 us then."""

MAX_EXPECTED: Final = 10_000
"""Reserved names that are expected after a start: some KiB each, for a few seconds."""

_TAKEN_OVER: Final = Error("another session of this client has taken its place", code="taken_over")

ENDING: Final = Error("this server is about to end", code="server_ending", retryable=True)
"""What clients are told who come too late, or stay to the end."""


@attrs.frozen(eq=False)
class _Wish:
    """A client that asks for a tunnel; if it gets one, it takes the place of the sessions that are *giving_way*."""

    client: Client
    request: Register
    giving_way: set[Client] = attrs.field(factory=set, init=False)

    def grant(self) -> None:
        """End those sessions."""
        for before in self.giving_way:
            logger.info("client %s: gives way to %s, the same client", before, self.client)
            before.end(_TAKEN_OVER, is_expected=True)  # Those who wait for it wait for this one.
        self.giving_way.clear()


class TunnelOpener:
    """Opens tunnels for clients: knows what there is, and asks who may have it.

    It waits for nothing in between, so that what it has found out still holds when the tunnel opens.
    """

    def __init__(
        self,
        settings: ServerSettings,
        clients: Clients,
        authenticator: Authenticator,
        reservations: Reservations,
        registry: Registry,
        tcp_ports: TcpPorts,
        traffic: Traffic,
        *,
        ports: PublicPorts,
        certificates: AutomaticCertificates | None = None,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._authenticator = authenticator
        self._reservations = reservations
        self._registry = registry
        self._tcp_ports = tcp_ports
        self._traffic = traffic
        self._ports = ports
        self._certificates = certificates
        self._given_names = GivenNames(settings.state)
        self.is_draining: bool = False

    def apply(self, settings: ServerSettings) -> None:
        """Open tunnels by *settings* from now on."""
        self._settings = settings

    def expect_reserved(self) -> None:
        """Expect the clients that had names and ports before the server started."""
        for one in islice(self._reservations.in_force(), MAX_EXPECTED):
            keeper = keeper_of(one.identity)
            match one.kind:
                case "name":
                    self._registry.expect(self._registry.host_of(one.name), keeper=keeper)
                case "host":
                    self._registry.expect(one.name, keeper=keeper)
                case "port" if one.name.isdecimal():
                    self._tcp_ports.expect(int(one.name), keeper=keeper)

    async def look_for_token(self, request: Register) -> None:
        """See that a token which was made a moment ago is known."""
        await self._authenticator.look_for(request.token)

    def authenticate(self, request: Register) -> Identity:
        """Return who asks.  Raises `otun.server.admission.Refused`."""
        return self._authenticator.authenticate(request.token, time.time())

    def open(self, client: Client, request: Register) -> Registered:
        """Open a tunnel for *client*, which is among the clients, and return the answer.

        Raises `otun.server.admission.Refused`: then no session has given way, unless it had the only port that there
        was, and somebody else's program has been faster to take that.
        """
        if self.is_draining:
            raise Refused(ENDING)
        client.check()
        identity = self.authenticate(request)
        if identity.name != client.identity.name:
            raise refuse("all tunnels of a session belong to the same token", "bad_token")
        client.identity = identity  # What it may can have changed.
        wish = _Wish(client, request)
        self._look_for_predecessor(wish)
        match request.kind:
            case "http":
                tunnel = self._open_http(wish)
            case "tls":
                tunnel = self._open_tls(wish)
            case "tcp":
                tunnel = self._open_tcp(wish)
            case kind:
                raise refuse(f"this server has no tunnels of the kind {excerpt(kind)}", "kind_unknown")
        is_first = not client.tunnels
        client.tunnels[request.id] = tunnel
        registration = tunnel.registration
        self._reservations.take(identity, tunnel.keys, str(client))
        self._traffic.tunnel_opened(client, tunnel.kind, registration)
        logger.info("client %s: opened tunnel %s at %s", client, registration.name, tunnel.url)
        return Registered(
            tunnel.url,
            registration.name,
            id=request.id,
            stream_header=request.stream_header,
            health=request.health,
            protections=registration.rules.names if registration.rules is not None else (),
            resume=client.new_resume_secret() if is_first and request.resume is not None else "",
        )

    def _look_for_predecessor(self, wish: _Wish) -> None:
        """Have the session give way whose secret the client shows, if it does."""
        if wish.request.resume:
            before = self._clients.find_resumed(wish.client.identity, wish.request.resume)
            if before is not None and before is not wish.client:
                wish.client.resume(before)
                wish.giving_way.add(before)

    # Tunnels with host names

    def _open_http(self, wish: _Wish) -> OpenTunnel:
        client = wish.client
        registration, keys = self._open_host(wish)
        url = public_url(
            self._settings,
            registration.name,
            host=_own_host(registration),
            client_host=client.address.peer.host,
            reached_host=client.address.reached_host,
            ports=self._ports,
        )
        return self._host_tunnel(registration, "http", url + registration.url_path, keys)

    def _open_tls(self, wish: _Wish) -> OpenTunnel:
        if self._ports.https is None:
            raise refuse(
                "this server has no port for TLS tunnels; its operator can give it one with --https", "kind_unknown"
            )
        registration, keys = self._open_host(wish)
        host = _own_host(registration) or self._registry.host_of(registration.name)
        return self._host_tunnel(registration, "tls", f"tls://{TcpAddress(host, self._ports.https)}", keys)

    def _host_tunnel(self, registration: Registration, kind: str, url: str, keys: tuple[Key, ...]) -> OpenTunnel:
        def end(leave: Callable[[Registration], None]) -> None:
            leave(registration)
            if self._certificates is not None and not registration.is_passthrough:
                self._certificates.tunnel_closed(self._registry.hosts_of(registration))

        registry = self._registry
        return OpenTunnel(registration, kind, url, keys, partial(end, registry.remove), partial(end, registry.lose))

    def _open_host(self, wish: _Wish) -> tuple[Registration, tuple[Key, ...]]:
        client = wish.client
        registration = admit_host(
            wish.request,
            client.session,
            _owner(client),
            client.keeper,
            self._settings,
            self._registry,
            partial(self._free_name, wish),
        )
        authorize_hosts(client.identity, registration, self._registry.domain)
        keys = self._keys_of(registration)
        self._reservations.check(client.identity, keys)  # What is somebody else's is so whether they are there or not.
        self._look_for_rivals(wish, registration)
        self._authorize_another(wish)
        wish.grant()
        self._registry.add(registration)
        if self._certificates is not None and not registration.is_passthrough:
            self._certificates.tunnel_opened(self._registry.hosts_of(registration), _known_as(client))
        return registration, keys

    def _free_name(self, wish: _Wish) -> str:
        """Return a name for a tunnel whose client has chosen none: the same again, if nobody else has it.

        Its own session that gives way, or has fallen silent, is nobody else.
        """
        client, request = wish.client, wish.request
        kind: NameKind = "tls" if request.kind == "tls" else "http"
        who = f"{_known_as(client)}\n{request.kind}\n{request.local}\n{request.id}"
        name = ""
        for made_up in self._given_names.candidates(who):
            name = fit_name(client.identity, kind, made_up)
            holders = self._registry.routes_of(self._registry.host_of(name)) or ()
            has_room = all(self._may_take_over(wish, member) for holder in holders for member in holder.members)
            if has_room and self._reservations.is_free_for(client.identity, ("name", name)):
                break
        return name

    def _keys_of(self, registration: Registration) -> tuple[Key, ...]:
        """Return what is reserved with the tunnel.  Hosts below its name come with the name."""
        own = self._registry.host_of(registration.name)
        hosts = (host for host in registration.hosts if host != own and not host.endswith(f".{own}"))
        return ("name", registration.name), *(("host", host) for host in hosts)

    def _look_for_rivals(self, wish: _Wish, registration: Registration) -> None:
        """See that nobody else has its hosts.  Raises `Refused`."""
        group = self._registry.group_of(registration)
        if group is not None:
            hosts = self._registry.hosts_of(registration)
            self._check_group(wish, group, registration, f"subdomain '{registration.name}'", hosts)
        # Nobody takes a name out of a wildcard of another token's, unless it was there first.
        above = [
            (host, rival)
            for host, rival in self._registry.wildcards_over(registration)
            if not self._reservations.is_kept_for(wish.client.identity, ("host", host))
        ]
        for host, rival in [*self._registry.rivals(registration), *above]:
            what = f"subdomain '{registration.name}'"
            if host != self._registry.host_of(registration.name):
                what = f"hostname '{host}'"
            if registration.path != EVERY_PATH:
                what += f" with the path {registration.path.decode()!r}"
            self._take_over(wish, rival, what, "name_taken")

    def _check_group(
        self, wish: _Wish, group: Route, registration: Registration, what: str, hosts: tuple[str, ...] = ()
    ) -> None:
        """Raise `Refused` unless there is room, and *registration* asks for what all have who share *what* and stay."""
        staying = sum(self._clients.client_of(member) not in wish.giving_way for member in group.members)
        difference = group.find_difference(registration, hosts) if staying else None
        if difference is not None:
            raise refuse(f"{what} is shared by a group that has other {difference}", "group_mismatch")
        if staying >= MAX_MEMBERS:
            raise refuse(f"{what} is shared by {MAX_MEMBERS} clients, which are as many as may be", "too_many_tunnels")

    def _authorize_another(self, wish: _Wish) -> None:
        identity = wish.client.identity
        authorize_another(identity, self._clients.count_tunnels(identity, besides=wish.giving_way))

    def _take_over(self, wish: _Wish, rival: Registration, what: str, code: str) -> None:
        """Have the session give way that has *what*, if it is the client's and has fallen silent.  Raises `Refused`."""
        if not self._may_take_over(wish, rival):
            _refuse_taken(what, code, is_same=self._is_same(wish.client, rival))
        wish.giving_way.add(self._clients.client_of(rival))

    def _may_take_over(self, wish: _Wish, rival: Registration) -> bool:
        holder = self._clients.client_of(rival)
        if holder in wish.giving_way:
            return True
        return holder.silence >= TAKEOVER_SILENCE and self._is_same(wish.client, rival)

    def _is_same(self, client: Client, rival: Registration) -> bool:
        """Whether another session of the same token has it."""
        is_other = self._clients.client_of(rival) is not client
        return is_other and rival.owner is not None and rival.owner == client.identity.name

    # Tunnels with ports

    def _open_tcp(self, wish: _Wish) -> OpenTunnel:
        client, request = wish.client, wish.request
        name = chosen_name(request)
        registration = Registration(
            name or "tcp",
            client.session,
            owner=_owner(client),
            keeper=client.keeper,
            in_group=request.group,
            tunnel_id=request.id,
            local=request.local,
            has_stream_header=request.stream_header,
            rules=visitor_rules(request),
        )
        wanted = request.remote_port
        ranges = authorize_port(client.identity, wanted, self._tcp_ports.check(wanted))
        keys: tuple[Key, ...] = () if wanted is None else (("port", str(wanted)),)
        self._reservations.check(client.identity, keys)
        if wanted is not None and wanted in self._tcp_ports:
            self._look_for_rivals_on(self._tcp_ports[wanted], wish, registration)
        self._authorize_another(wish)
        ports = [wanted] if wanted is not None else self._ports_for(client.identity, ranges)
        if self._are_left_by(wish, ports):
            wish.grant()
        if wanted is not None:
            tunnel = self._tcp_ports.open(registration, wanted)
        else:
            tunnel = self._tcp_ports.open_any(registration, ports)
        wish.grant()
        registration.name = name or f"tcp-{tunnel.port}"
        url = f"tcp://{TcpAddress(self._settings.domain or client.address.reached_host, tunnel.port)}"
        close, lose = partial(tunnel.close, registration), partial(tunnel.lose, registration)
        return OpenTunnel(registration, "tcp", url, keys, close, lose)

    def _look_for_rivals_on(self, tunnel: TcpTunnel, wish: _Wish, registration: Registration) -> None:
        what = f"port {tunnel.port}"
        if tunnel.is_shared_with(registration):
            self._check_group(wish, tunnel.route, registration, what)
        else:
            for rival in tunnel.route.members:
                self._take_over(wish, rival, what, "port_taken")

    def _ports_for(self, identity: Identity, ranges: Iterable[range]) -> list[int]:
        """Return those that nobody else has reserved."""
        ports = chain.from_iterable(ranges)
        return [port for port in ports if self._reservations.is_free_for(identity, ("port", str(port)))]

    def _are_left_by(self, wish: _Wish, ports: Sequence[int]) -> bool:
        """Whether none of *ports* is free before the sessions that give way have ended, and one is then."""
        tunnels = [self._tcp_ports[port] for port in ports if port in self._tcp_ports]
        if len(tunnels) < len(ports):
            return False
        members = (member for tunnel in tunnels for member in tunnel.route.members)
        return any(self._clients.client_of(member) in wish.giving_way for member in members)


def _owner(client: Client) -> str | None:
    return None if client.identity.is_anonymous else client.identity.name


def _known_as(client: Client) -> str:
    """Return who has the client's names: those who cannot be told apart otherwise are where they come from."""
    return client.address.peer.host if client.identity.is_anonymous else client.identity.name


def _own_host(registration: Registration) -> str | None:
    """Return the first whole host name that the tunnel has beside its name."""
    return next((host for host in registration.hosts if not host.startswith("*.")), None)


def _refuse_taken(what: str, code: str, *, is_same: bool) -> NoReturn:
    by = f" by a session of the same token; once that is silent for {TAKEOVER_SILENCE:.0f} s, it can be taken over"
    raise refuse(f"{what} is already in use{by if is_same else ''}", code, retryable=True)
