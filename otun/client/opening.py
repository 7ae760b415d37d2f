"""Opening tunnels on a server."""

import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal

import attrs
import trio

from ..access.passwords import check_logins, hash_logins
from ..access.rules import check_networks, check_required
from ..addresses import LocalAddress, LocalTarget, TcpAddress, parse_local_target, parse_server_address
from ..background import open_background
from ..control.messages import Register
from ..control.names import normalize_hostname, normalize_name
from ..errors import ConfigurationError
from ..http.forwarding import FieldEdits
from ..switchboard import Switchboard, open_switchboard
from ..tls.trust import Trust
from .connecting import Connector
from .contact import OpenSession
from .health import HealthCheck
from .lease import Lease
from .link import Link
from .proxies import ProxyAddress, parse_proxy
from .request_tap import OnExchange
from .tunnel import Tunnel

DEFAULT_CONTROL_PORT: Final = 4443

TunnelKind = Literal["http", "tcp", "tls"]


def _normalized_hostnames(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(normalize_hostname, names))


def _checked_edits(texts: Iterable[str]) -> tuple[str, ...]:
    edits = tuple(texts)
    FieldEdits.parse(edits)
    return edits


def _checked_logins(texts: Iterable[str]) -> tuple[str, ...]:
    return check_logins(tuple(texts))


def _checked_networks(texts: Iterable[str]) -> tuple[str, ...]:
    return check_networks(tuple(texts))


def _checked_required(texts: Iterable[str]) -> tuple[str, ...]:
    return check_required(tuple(texts))


@attrs.frozen(kw_only=True)
class TunnelSettings:
    """What a tunnel is to be.

    Without a *name* the server chooses one.  A tunnel of the *kind* ``http`` has requests routed to it by their Host:
    its name's, or one of *hostnames*, which may be wildcards; with a *path*, only requests below that.  *host_header*
    is sent to the local service in the place of the visitor's Host.  *request_headers* and *response_headers* are
    ``Name: value``, in the place of what has that name, or ``-Name`` to remove it.  A tunnel of the kind ``tcp`` has a
    port for itself: *remote_port*, or any.  *local* is what visitors are told of the local service when it fails.

    With *group*, other sessions of the same token may have the same tunnel: all that have said so share the visitors,
    and must ask for the same hosts, path and rules; they need a *name*, or a *remote_port*.

    Visitors must come from one of the networks *allow_ip*, if there are any, and from none of *deny_ip*.  Those of a
    tunnel of the kind ``http`` must send every header of *require_header*, which is ``Name``, or ``Name: value`` for a
    secret that the local service does not get to see, and log in as one of *basic_auth*: ``USER:PASSWORD``, which is
    hashed before it is sent, or ``USER:$argon2id$…``, which is a hash.  The server must confirm that it sees to that.

    Raises `InvalidName` and `ConfigurationError`.
    """

    name: str | None = attrs.field(default=None, converter=attrs.converters.optional(normalize_name))
    kind: TunnelKind = "http"
    hostnames: tuple[str, ...] = attrs.field(default=(), converter=_normalized_hostnames)
    path: str = ""
    remote_port: int | None = None
    host_header: str = ""
    request_headers: tuple[str, ...] = attrs.field(default=(), converter=_checked_edits, repr=False)
    response_headers: tuple[str, ...] = attrs.field(default=(), converter=_checked_edits, repr=False)
    local: str = ""
    group: bool = False
    basic_auth: tuple[str, ...] = attrs.field(default=(), converter=_checked_logins, repr=False)
    allow_ip: tuple[str, ...] = attrs.field(default=(), converter=_checked_networks)
    deny_ip: tuple[str, ...] = attrs.field(default=(), converter=_checked_networks)
    require_header: tuple[str, ...] = attrs.field(default=(), converter=_checked_required, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.kind != "http" and (self.basic_auth or self.require_header):
            raise ConfigurationError(
                f"a {self.kind.upper()} tunnel can only look at visitors' addresses: it has no log-in and no headers"
            )
        if self.group and (self.remote_port if self.kind == "tcp" else self.name) is None:
            raise ConfigurationError(
                f"a group shares what all its clients ask for: choose a {'port' if self.kind == 'tcp' else 'name'}"
            )


@asynccontextmanager
async def open_tunnel(
    server: str | TcpAddress,
    settings: TunnelSettings | None = None,
    *,
    name: str | None = None,
    token: str | None = None,
    trust: Trust | None = None,
    plaintext: bool = False,
    proxy: str | ProxyAddress | None = None,
    resume: str = "",
    reconnect: bool = True,
    max_retries: int | None = None,
) -> AsyncIterator[Tunnel]:
    """Open a tunnel on *server*, `HOST` or `HOST:PORT` of its control port, until the body ends.

    *name* is short for settings with that name.  *token* is what the server asks for.  *proxy* is one to go through,
    `http://HOST:PORT`, `socks5://HOST:PORT` or `socks5h://HOST:PORT`, with `USER:PASSWORD@` before the host where it
    asks for that.  The environment is not looked at; `proxy_from_environment` does that.  *resume* is the
    `Tunnel.resume_secret` of an earlier session, whose place this one takes, with all its names, whether the server
    believes it to be alive or not; without it, that takes the same token and 15 seconds of silence.

    The connection is encrypted, unless the server is on this machine (its host is a loopback address or `localhost`,
    and so is the address that is reached, without a proxy) and there is no *trust*, or it is to be *plaintext*.
    Without *trust*, the server's certificate must be for its name and from one of the system's authorities.  Nothing is
    said before that is clear.

    A server that is lost later is looked for until it is found again, and has the tunnel as before, with the same name
    or port.  That ends when it refuses the tunnel for good, and after *max_retries* attempts in one outage; at once
    unless the tunnel is to *reconnect*.  Such an end does not interrupt the body: `accept` and `forward` raise
    `SessionClosed`.  Whatever happens then, a certificate that is not trusted included, is taken for a fault on the way
    that passes.

    Raises `otun.errors.ServerUnreachable`, `ServerNotTrusted`, `RegistrationRefused` (`TokenRefused`, `NameTaken`,
    `NotAllowed` or `InvalidRegistration`), `TunnelUnprotected`, `InvalidName`, `AddressError` or `ConfigurationError`
    when the tunnel cannot be opened in the first place: that is tried once.  The body's exceptions come out as they
    are.
    """
    settings = settings or TunnelSettings()
    if name is not None:
        settings = attrs.evolve(settings, name=name)
    async with open_tunnels(
        server,
        [settings],
        token=token,
        trust=trust,
        plaintext=plaintext,
        proxy=proxy,
        resume=resume,
        reconnect=reconnect,
        max_retries=max_retries,
    ) as (tunnel,):
        yield tunnel


@asynccontextmanager
async def open_tunnels(
    server: str | TcpAddress,
    settings: Sequence[TunnelSettings],
    *,
    token: str | None = None,
    trust: Trust | None = None,
    plaintext: bool = False,
    proxy: str | ProxyAddress | None = None,
    resume: str = "",
    reconnect: bool = True,
    max_retries: int | None = None,
) -> AsyncIterator[tuple[Tunnel, ...]]:
    """Open several tunnels over one session, as `open_tunnel` does; if one of them is refused, all are.

    There must be at least one.
    """
    if isinstance(server, str):
        server = parse_server_address(server, default_port=DEFAULT_CONTROL_PORT)
    if isinstance(proxy, str):
        proxy = parse_proxy(proxy)
    if plaintext and trust is not None:
        raise ConfigurationError("without TLS nothing can be checked: plaintext and trust exclude each other")
    async with open_switchboard() as board:
        connector = Connector(server=server, board=board, trust=trust, plaintext=plaintext, proxy=proxy)
        async with open_tunnels_over(
            connector.open_session,
            board,
            server,
            settings,
            token=token,
            resume=resume,
            reconnect=reconnect,
            max_retries=max_retries,
        ) as tunnels:
            yield tunnels


@asynccontextmanager
async def open_tunnels_over(
    open_session: OpenSession,
    board: Switchboard,
    server: TcpAddress,
    settings: Sequence[TunnelSettings],
    *,
    token: str | None = None,
    resume: str = "",
    reconnect: bool = True,
    max_retries: int | None = None,
    random: Callable[[], float] = random.random,
) -> AsyncIterator[tuple[Tunnel, ...]]:
    """Do the same over sessions that *open_session* opens, and call the other end *server*.

    *random* is as for `otun.client.backoff.Backoff`.
    """
    leases = [Lease(await _request(number, tunnel, token)) for number, tunnel in enumerate(settings)]
    link = Link(
        open_session, server, leases, resume=resume, reconnect=reconnect, max_retries=max_retries, random=random
    )
    async with open_background() as background:
        await background.start(link.run)
        try:
            yield tuple(Tunnel(link, lease, board) for lease in leases)
        finally:
            await link.aclose()


async def _request(number: int, settings: TunnelSettings, token: str | None) -> Register:
    """Return what to ask the server for; passwords are hashed, which takes a while."""
    logins = settings.basic_auth
    if logins:
        logins = await trio.to_thread.run_sync(hash_logins, logins, abandon_on_cancel=True)
    return Register(
        subdomain=settings.name,
        token=token,
        id=str(number) if number else "",
        kind=settings.kind,
        remote_port=settings.remote_port,
        hostnames=settings.hostnames,
        path=settings.path,
        host_header=settings.host_header,
        request_headers=settings.request_headers,
        response_headers=settings.response_headers,
        local=settings.local,
        stream_header=True,
        health=True,
        basic_auth=logins,
        allow_ip=settings.allow_ip,
        deny_ip=settings.deny_ip,
        require_header=settings.require_header,
        group=settings.group,
    )


async def forward(
    server: str | TcpAddress,
    local: str | int | LocalAddress | LocalTarget,
    settings: TunnelSettings | None = None,
    *,
    name: str | None = None,
    token: str | None = None,
    trust: Trust | None = None,
    plaintext: bool = False,
    local_trust: Trust | None = None,
    proxy: str | ProxyAddress | None = None,
    proxy_protocol: bool = False,
    on_exchange: OnExchange | None = None,
    health: HealthCheck | None = None,
    reconnect: bool = True,
    max_retries: int | None = None,
    task_status: trio.TaskStatus[Tunnel] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Do a client's whole job: open a tunnel, and relay its visitors to *local* until it ends.

    *local* is a port, `HOST:PORT`, `https://HOST:PORT` or `unix:PATH`; *local_trust* says which certificate a service
    that speaks TLS may show, and *health* what `Tunnel.forward_to` says.  `nursery.start` gives the `Tunnel` once it is
    open.  Raises what `open_tunnel` and `Tunnel.forward` raise: it returns by an exception only.
    """
    if not isinstance(local, LocalAddress | LocalTarget):
        local = parse_local_target(str(local))
    target = local if isinstance(local, LocalTarget) else LocalTarget(local, is_encrypted=local_trust is not None)
    settings = settings or TunnelSettings()
    if not settings.local:
        settings = attrs.evolve(settings, local=str(target))
    async with open_tunnel(
        server,
        settings,
        name=name,
        token=token,
        trust=trust,
        plaintext=plaintext,
        proxy=proxy,
        reconnect=reconnect,
        max_retries=max_retries,
    ) as tunnel:
        task_status.started(tunnel)
        local_trust = (local_trust or Trust()) if target.is_encrypted else None
        await tunnel.forward_to(
            target.address,
            trust=local_trust,
            proxy_protocol=proxy_protocol,
            on_exchange=on_exchange,
            health=health,
        )
