"""What a server is to do."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from ..access import Quota
from ..addresses import TcpAddress
from ..control.names import normalize_hostname
from ..errors import ConfigurationError
from ..http.forwarding import Network
from ..tls.acme.settings import AcmeSettings
from ..tls.contexts import CertificateFiles

DEFAULT_CONTROL: Final = TcpAddress("", 4443)
DEFAULT_PUBLIC: Final = TcpAddress("", 8080)

DEFAULT_MAX_CONNECTIONS: Final = 20_000
"""Visitors' connections at a time: each may hold 32 KiB of an unfinished head."""

DEFAULT_MAX_STREAMS: Final = 10_000
"""Visitors' streams to one tunnel at a time: each is a connection to its local service."""

REQUEST_BURST: Final = 10
"""Seconds' worth of a tunnel's requests that may come at once: one page asks for a hundred things."""

DEFAULT_RESERVATION: Final = 7 * 86_400.0
"""Seconds for which a name is kept for who has had it."""

DEFAULT_DRAIN: Final = 30.0
"""Seconds for what is under way when the server is to end."""

DEFAULT_HOLD: Final = 5.0
"""Seconds for which visitors wait for a client that has lost its connection: most are back in one or two."""

_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)


def _normalize_domain(text: str | None) -> str | None:
    if text is None:
        return None
    domain = text.lower().removesuffix(".")
    if not (text.isascii() and _DOMAIN.fullmatch(domain)):
        raise ConfigurationError(f"{text!r} is no domain name; write one such as tunnel.example.org")
    return domain


def _normalize_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(normalize_hostname, texts))


def _normalize_url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        _ = parts.port  # Raises if it is no number.
    except ValueError:
        is_usable = False
    if not is_usable or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(f"{text!r} is no public URL; write one such as https://tunnel.example.org")
    if re.search(r"[{}]", text.replace("{name}", "")):
        raise ConfigurationError(f"{text!r} has other braces than those of {{name}}, which is the only placeholder")
    return text.rstrip("/")


@attrs.frozen(kw_only=True)
class HttpTimeouts:
    """Seconds for each phase of a visitor's HTTP connection.

    *head*: from a request's first byte to its last field.  *idle*: between two requests.  *body*: without a byte of a
    body moving, in either direction; an event stream (`text/event-stream`) may be silent for longer, until its visitor
    has finished.  *response*: from the request's end to the response's head.
    """

    head: float = 10
    idle: float = 75
    body: float = 60
    response: float = 300


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where the server listens, and whom it serves.

    *control* is for clients, *public* for visitors; an empty host means every interface, port 0 a free one.  With a
    *domain*, visitors of NAME.DOMAIN reach the tunnel NAME; without one, those of NAME.localhost do, and those of any
    other host reach the only tunnel, as long as there is just one.  *public_url* is what clients are told instead of
    what the server would work out; `{name}` in it stands for the tunnel's name.  A client must
    present one of the *tokens*, or one of those in the database in *state*, where one is made if there are none; unless
    the server is *open*, or there are no tokens at all and only this machine can reach *control* and *https*, the ports
    for clients.  Names belong to the identity that has taken them until *reservation* seconds after their last use.
    Visitors of a tunnel whose client was lost wait up to *hold* seconds for it to come back; with 0, they do not.

    *allow_hostnames* are the names that clients may choose outside the domain: `shop.example.org`, or
    `*.example.org` for all below it.  *tcp_ports* are those that raw TCP tunnels may have.  Visitors from
    *trusted_proxies* are believed what they say of whom they speak for: in `X-Forwarded-*` and `Forwarded`, and in a
    PROXY header.  *max_connections* bounds the visitors at a time, *max_streams* those of one tunnel,
    *max_requests* its requests and *max_bandwidth* its bytes a second in the long run, and *max_daily* its bytes a day
    of UTC.  A server that is to end lets what is under way go on for *drain* seconds.

    *https* is for visitors, too, and for clients who share the port; it needs *certificates* or *acme*.  Visitors of
    *public* are then sent there, if there is a certificate for the host that they want, unless *redirect* is off;
    With *acme*, the server gets its certificates itself: for the domain, and for the names and host names of tunnels
    that are open, as far as *certificates* do not cover them; *public* should be reached at port 80 or *https* at 443.
    *hsts* is for how many seconds browsers are told to come by HTTPS only (RFC 6797).  The control port takes TLS; it
    takes clients without it when only this machine can reach it, or *allow_plaintext* is on.  With *client_ca*, a PEM
    file, all clients must show a certificate that is in it, or signed by one of those in it.  *state* is a folder that
    belongs to this server alone: what it makes itself is kept there, such as its certificate when there are no
    *certificates*.

    Raises `ConfigurationError` for a domain or URL that is none, for a URL with other braces, and for settings that do
    not go together.
    """

    control: TcpAddress = DEFAULT_CONTROL
    public: TcpAddress | None = DEFAULT_PUBLIC
    https: TcpAddress | None = None
    domain: str | None = attrs.field(default=None, converter=_normalize_domain)
    public_url: str | None = attrs.field(default=None, converter=_normalize_url)
    tokens: frozenset[str] = attrs.field(default=frozenset(), repr=False)
    open: bool = False
    reservation: float = DEFAULT_RESERVATION
    hold: float = DEFAULT_HOLD
    allow_hostnames: tuple[str, ...] = attrs.field(default=(), converter=_normalize_patterns)
    tcp_ports: tuple[range, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    timeouts: HttpTimeouts = HttpTimeouts()
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    max_streams: int = DEFAULT_MAX_STREAMS
    max_requests: int | None = None
    max_bandwidth: int | None = None
    max_daily: int | None = None
    drain: float = DEFAULT_DRAIN
    certificates: tuple[CertificateFiles, ...] = ()
    acme: AcmeSettings | None = None
    redirect: bool = True
    hsts: int | None = None
    allow_plaintext: bool = False
    client_ca: Path | None = None
    state: Path | None = None

    @property
    def tunnel_quota(self) -> Quota:
        """What each tunnel may use."""
        return Quota(requests=self.max_requests, bandwidth=self.max_bandwidth, daily=self.max_daily)

    def __attrs_post_init__(self) -> None:
        if self.public is None and self.https is None:
            raise ConfigurationError("a server needs a port for visitors: HTTP, HTTPS, or both")
        if self.https is not None and not self.certificates and self.acme is None:
            raise ConfigurationError("HTTPS needs certificates: give --cert and --key, or let --acme get some")
        if self.acme is not None and (self.https is None or self.state is None):
            raise ConfigurationError("automatic certificates need an HTTPS port, and a state folder to be kept in")
        if self.client_ca is not None and self.allow_plaintext:
            raise ConfigurationError(
                "clients without TLS show no certificates: --allow-plaintext and --client-ca exclude each other"
            )
