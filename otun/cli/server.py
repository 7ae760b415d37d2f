"""`otun server`: the part that runs on the public machine."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from socket import gethostname
from typing import Annotated, Final

import typer

from ..access.limits import parse_bandwidth, parse_daily
from ..addresses import TcpAddress, is_loopback_host, parse_listen_address, parse_network, parse_port_ranges
from ..control.names import normalize_hostname
from ..errors import ConfigurationError
from ..server import HttpTimeouts, Server, ServerSettings
from ..server.first_token import FILE_NAME as FIRST_TOKEN
from ..server.settings import DEFAULT_DRAIN, DEFAULT_RESERVATION
from .certificates import (
    AcmeCaOption,
    AcmeDirectoryOption,
    AcmeDnsHookOption,
    AcmeEmailOption,
    AcmeOption,
    CertOption,
    ClientCaOption,
    KeyOption,
    read_acme,
    read_certificates,
)
from .descriptors import raise_descriptor_limit
from .layers import Layers, Value, parse_count, parse_seconds, parse_switch, parse_whole_seconds
from .logs import configure_logging
from .options import (
    CommonFlags,
    ConfigOption,
    LogLevelOption,
    VerboseOption,
    VersionOption,
    flags_of,
    prepare,
    read_layers,
    read_log_level,
)
from .output import Output, open_stdout, warn
from .serving import ServerProgram
from .signals import run_until_signal
from .socket_activation import sockets_from_environment
from .state import default_state_folder
from .times import parse_delay, parse_duration
from .tokens import read_tokens_file, tokens_from_environment

_DEFAULTS: Final = ServerSettings()

HTTP: Final = TcpAddress("", 80)
HTTPS: Final = TcpAddress("", 443)
"""The ports that authorities look at."""

ControlOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where clients connect [default: :4443].")]
PublicOption = Annotated[
    str | None,
    typer.Option(
        "--public",
        "--http",
        metavar="ADDRESS",
        help="Where visitors come in by HTTP [default: :8080, or nowhere if there is --https].",
    ),
]
HttpsOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Where visitors come in by HTTPS, for instance :443.")
]
RedirectOption = Annotated[
    bool | None,
    typer.Option(
        "--redirect/--no-redirect",
        help="Send visitors from HTTP to HTTPS [default: where there is a certificate].",
        show_default=False,
    ),
]
HstsOption = Annotated[
    str | None,
    typer.Option(metavar="SECONDS", help="Tell browsers for how long to come by HTTPS only [default: do not]."),
]
AllowPlaintextOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-plaintext",
        help="Take clients without TLS, too. The default is: where only this machine reaches the control port.",
        show_default=False,
    ),
]
DomainOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Tunnels get names under this domain: app.NAME.")
]
PublicUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="How visitors reach a tunnel, when a proxy stands before the server; {name} in it is the tunnel's.",
    ),
]
TokensFileOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Only clients with one of these tokens may open tunnels: one a line, # for comments. "
        "Tokens in the variable OTUN_TOKENS count as well, and those that 'otun token' makes.",
    ),
]
OpenOption = Annotated[
    bool | None,
    typer.Option(
        "--open",
        help="Let everybody who reaches the control port open tunnels, without a token. The default is: where only "
        "this machine reaches it and --https, and nobody has made a token.",
        show_default=False,
    ),
]
ReservationOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long a name is kept for who has used it last: 12h, 7d, or 0 [default: 7d].",
    ),
]
HoldOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long visitors wait for a client that has lost its connection: 5s, 1m, or 0 [default: 5s].",
    ),
]
StateOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder that belongs to this server alone, for what it makes and knows; DIR/tokens is its tokens file "
        "[default: ~/.local/state/otun; nowhere if only this machine reaches the ports for clients].",
    ),
]

AllowHostnameOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Clients may choose this host name, or with *.example.org all names under that; repeatable.",
    ),
]
TcpPortsOption = Annotated[
    str | None, typer.Option(metavar="PORTS", help="Ports for TCP tunnels, for instance 20000-20100.")
]
TrustedProxyOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="Believe visitors from here what they say of whom they speak for, in X-Forwarded-For or a PROXY header; "
        "repeatable.",
    ),
]
HeadTimeoutOption = Annotated[
    str | None, typer.Option(metavar="SECONDS", help="For a visitor's request head [default: 10].")
]
IdleTimeoutOption = Annotated[str | None, typer.Option(metavar="SECONDS", help="Between two requests [default: 75].")]
BodyTimeoutOption = Annotated[
    str | None, typer.Option(metavar="SECONDS", help="Without a byte of a body, either way [default: 60].")
]
ResponseTimeoutOption = Annotated[
    str | None, typer.Option(metavar="SECONDS", help="For the local service's response head [default: 300].")
]
MaxConnectionsOption = Annotated[
    str | None,
    typer.Option(metavar="N", help=f"Visitors' connections at a time [default: {_DEFAULTS.max_connections}]."),
]
MaxStreamsOption = Annotated[
    str | None, typer.Option(metavar="N", help=f"Visitors of one tunnel at a time [default: {_DEFAULTS.max_streams}].")
]

MaxRequestsOption = Annotated[
    str | None,
    typer.Option(metavar="N", help="Requests a second for one tunnel, 10 seconds' worth at once [any number]."),
]
MaxBandwidthOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Bytes a second for one tunnel, both directions together: 10MB [any number]."),
]
MaxDailyOption = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Bytes a day of UTC for one tunnel: 5GB [any number].")
]
DrainOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="For what is under way when SIGTERM ends the server: 30s, 5m, or 0 [default: 30s].",
    ),
]
ReplaceOption = Annotated[
    bool,
    typer.Option(
        "--replace",
        help="Take the place of the server that runs with the same state folder: it hands its sockets over, and "
        "drains. Without such a server, just start.",
    ),
]


def server(
    context: typer.Context,
    control: ControlOption = None,
    public: PublicOption = None,
    https: HttpsOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    acme: AcmeOption = None,
    acme_directory: AcmeDirectoryOption = None,
    acme_ca: AcmeCaOption = None,
    acme_email: AcmeEmailOption = None,
    acme_dns_hook: AcmeDnsHookOption = None,
    redirect: RedirectOption = None,
    hsts: HstsOption = None,
    allow_plaintext: AllowPlaintextOption = None,
    client_ca: ClientCaOption = None,
    domain: DomainOption = None,
    public_url: PublicUrlOption = None,
    tokens_file: TokensFileOption = None,
    open: OpenOption = None,
    reservation: ReservationOption = None,
    hold: HoldOption = None,
    state: StateOption = None,
    allow_hostname: AllowHostnameOption = None,
    tcp_ports: TcpPortsOption = None,
    trusted_proxy: TrustedProxyOption = None,
    head_timeout: HeadTimeoutOption = None,
    idle_timeout: IdleTimeoutOption = None,
    body_timeout: BodyTimeoutOption = None,
    response_timeout: ResponseTimeoutOption = None,
    max_connections: MaxConnectionsOption = None,
    max_streams: MaxStreamsOption = None,
    max_requests: MaxRequestsOption = None,
    max_bandwidth: MaxBandwidthOption = None,
    max_daily: MaxDailyOption = None,
    drain: DrainOption = None,
    replace: ReplaceOption = False,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Run the server: clients open tunnels on its control port, visitors reach them through its public port."""
    raise_descriptor_limit()
    common, flags = CommonFlags.given(context, config, log_level, verbose), flags_of(context)
    layers = prepare("server", common, flags)
    settings = read_server_settings(layers, os.environ)
    sockets = sockets_from_environment(settings, os.environ)
    if replace and sockets is not None:
        raise ConfigurationError("--replace: the sockets of this server come from systemd, not from another server")
    program = ServerProgram(
        settings,
        open_stdout(),
        announce,
        partial(read_again, common, flags),
        sockets=sockets,
        replace=replace,
    )
    run_until_signal(program.run, finish=program.finish)


def read_again(common: CommonFlags, flags: Mapping[str, Value]) -> tuple[ServerSettings, Callable[[], None]]:
    """Return what flags, environment and files say now, and what sets up logging so.

    Raises `ConfigurationError` and `InvalidName`.
    """
    layers, _ = read_layers("server", common, flags)
    settings, level = read_server_settings(layers, os.environ), read_log_level(layers)
    return settings, partial(configure_logging, level)


def read_server_settings(layers: Layers, environ: Mapping[str, str]) -> ServerSettings:
    """Return what *layers* ask for, with the tokens that belong to it.  Raises `ConfigurationError`."""
    control = layers.read("control", parse_listen_address) or _DEFAULTS.control
    public = layers.read("public", parse_listen_address, alias="http")
    https = layers.read("https", parse_listen_address)
    acme = read_acme(layers)
    if acme is not None:
        public, https = public or HTTP, https or HTTPS
    certificates = read_certificates(layers)
    state = layers.read_path("state")
    client_ca = layers.read_path("client_ca")
    for_clients = [control] if https is None else [control, https]
    if state is None and (acme is not None or client_ca is not None or is_open_to_others(for_clients)):
        state = default_state_folder(environ)
    file = layers.read_path("tokens_file")
    if file is None and state is not None and os.path.lexists(state / "tokens"):
        file = state / "tokens"
    tokens = read_tokens_file(file) if file is not None else frozenset()
    reservation = layers.read("reservation", parse_duration)
    drain = layers.read("drain", parse_duration)
    hold = layers.read("hold", parse_delay)
    return ServerSettings(
        control=control,
        public=_DEFAULTS.public if public is None and https is None else public,
        https=https,
        certificates=certificates,
        acme=acme,
        redirect=layers.read("redirect", parse_switch) is not False,
        hsts=layers.read("hsts", parse_whole_seconds),
        allow_plaintext=layers.read("allow_plaintext", parse_switch) or False,
        client_ca=client_ca,
        state=state,
        # Checked one by one, so that a mistake is named with the flag, variable or key that it stands in.
        domain=layers.read("domain", lambda text: ServerSettings(domain=text).domain),
        public_url=layers.read("public_url", lambda text: ServerSettings(public_url=text).public_url),
        tokens=tokens | tokens_from_environment(environ),
        open=layers.read("open", parse_switch) or False,
        reservation=DEFAULT_RESERVATION if reservation is None else reservation,
        hold=_DEFAULTS.hold if hold is None else hold,
        allow_hostnames=layers.read_list("allow_hostname", normalize_hostname),
        tcp_ports=layers.read("tcp_ports", parse_port_ranges) or (),
        trusted_proxies=layers.read_list("trusted_proxy", parse_network),
        timeouts=HttpTimeouts(
            head=layers.read("head_timeout", parse_seconds) or _DEFAULTS.timeouts.head,
            idle=layers.read("idle_timeout", parse_seconds) or _DEFAULTS.timeouts.idle,
            body=layers.read("body_timeout", parse_seconds) or _DEFAULTS.timeouts.body,
            response=layers.read("response_timeout", parse_seconds) or _DEFAULTS.timeouts.response,
        ),
        max_connections=layers.read("max_connections", parse_count) or _DEFAULTS.max_connections,
        max_streams=layers.read("max_streams", parse_count) or _DEFAULTS.max_streams,
        max_requests=layers.read("max_requests", parse_count),
        max_bandwidth=layers.read("max_bandwidth", parse_bandwidth),
        max_daily=layers.read("max_daily", parse_daily),
        drain=DEFAULT_DRAIN if drain is None else drain,
    )


def announce(settings: ServerSettings, running: Server, output: Output) -> None:
    """Say where a server listens, and how clients reach it."""
    for address in running.control_addresses:
        output.write_line(f"control {address}")
    for address in running.public_addresses:
        output.write_line(f"public {address}")
    for address in running.https_addresses:
        output.write_line(f"https {address}")
    output.write_line(f"client: {describe_client(settings, running, shows_token=output.is_terminal)}")
    if running.first_token is not None and settings.state is not None and not output.is_terminal:
        output.write_line(f"token: in {settings.state / FIRST_TOKEN}")
    if settings.allow_plaintext and is_open_to_others(running.control_addresses):
        warn("clients may connect without TLS: their tokens and all that passes can be read on the way")
    if settings.open:
        warn("everybody who reaches the control port can open tunnels (--open)")


def describe_client(settings: ServerSettings, running: Server, *, shows_token: bool = False) -> str:
    """Return a command that opens a tunnel on this server.

    The token that the server has made is part of it if this *shows_token*; any other is left to be filled in.
    """
    bound = running.control_addresses[0]
    is_wildcard = bound.host in ("", "0.0.0.0", "::")
    host = (settings.domain or gethostname()) if is_wildcard else bound.host
    token = (running.first_token if shows_token else None) or "TOKEN"
    variable = "" if running.is_open else f"OTUN_TOKEN={token} "
    is_encrypted = settings.client_ca is not None or is_open_to_others(running.control_addresses)
    fingerprint = f" --fingerprint {running.fingerprint}" if running.is_self_made and is_encrypted else ""
    certificate = " --client-cert FILE" if settings.client_ca is not None else ""
    return f"{variable}otun http 3000 --server {TcpAddress(host, bound.port)}{fingerprint}{certificate}"


def is_open_to_others(addresses: Iterable[TcpAddress]) -> bool:
    """Whether other machines may reach one of *addresses*, as far as the addresses tell."""
    return not all(is_loopback_host(address.host) for address in addresses)
