"""`otun client` and its short forms `otun http`, `otun tcp` and `otun start`: the part beside the local service."""

import os
from functools import partial
from typing import Annotated

import attrs
import trio
import typer

from ..addresses import LocalAddress, LocalTarget, parse_local_address, parse_local_target
from ..client import TunnelKind, open_tunnels
from .connection import (
    CaOption,
    ClientCertOption,
    ClientKeyOption,
    Connection,
    FingerprintOption,
    PlaintextOption,
    ServerOption,
    TokenFileOption,
    TokenOption,
    missing,
    read_connection,
)
from .escaping import escape_text
from .layers import Layers, Value, parse_switch
from .options import (
    CommonFlags,
    ConfigOption,
    LogLevelOption,
    VerboseOption,
    VersionOption,
    flags_of,
    prepare,
    prepare_with_file,
)
from .output import Output, open_stdout
from .proxies import ProxyOption
from .request_log import open_request_printer
from .signals import run_until_signal
from .tunnels import (
    GroupOption,
    HealthOption,
    HostHeaderOption,
    HostnameOption,
    LocalCaOption,
    LocalInsecureOption,
    LocalTunnel,
    PathOption,
    ProxyProtocolOption,
    RemotePortOption,
    RequestHeaderOption,
    ResponseHeaderOption,
    read_tunnel,
    select_tunnels,
)
from .visitor_rules import (
    AllowIpOption,
    BasicAuthFileOption,
    BasicAuthOption,
    DenyIpOption,
    RequireHeaderOption,
    refuse_empty_rules,
    refuse_unused_rules,
)

LocalOption = Annotated[
    str | None,
    typer.Option(metavar="TARGET", help="The local service: PORT, HOST:PORT, https://HOST:PORT or unix:PATH."),
]
TargetArgument = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="The local service: PORT, HOST:PORT, https://HOST:PORT or unix:PATH."),
]
RawTargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="The local service: PORT, HOST:PORT or unix:PATH.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", "--subdomain", metavar="NAME", help="The tunnel's name; the server chooses one otherwise."),
]
NamesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="The tunnels' names.")]
LogRequestsOption = Annotated[
    bool | None,
    typer.Option(
        "--log-requests/--no-log-requests", help="A line for each request [default: on a terminal].", show_default=False
    ),
]


@attrs.frozen(kw_only=True)
class ClientOptions:
    """What the client is to do; *log_requests* None leaves it to whether stdout is a terminal."""

    connection: Connection
    tunnels: tuple[LocalTunnel, ...]
    log_requests: bool | None = None


def client(
    context: typer.Context,
    server: ServerOption = None,
    local: LocalOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    plaintext: PlaintextOption = None,
    ca: CaOption = None,
    fingerprint: FingerprintOption = None,
    client_cert: ClientCertOption = None,
    client_key: ClientKeyOption = None,
    proxy: ProxyOption = None,
    hostname: HostnameOption = None,
    path: PathOption = None,
    host_header: HostHeaderOption = None,
    request_header: RequestHeaderOption = None,
    response_header: ResponseHeaderOption = None,
    local_ca: LocalCaOption = None,
    local_insecure: LocalInsecureOption = None,
    group: GroupOption = None,
    health: HealthOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    basic_auth: BasicAuthOption = None,
    basic_auth_file: BasicAuthFileOption = None,
    allow_ip: AllowIpOption = None,
    deny_ip: DenyIpOption = None,
    require_header: RequireHeaderOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel: visitors of its public URL reach the local service."""
    run_client(CommonFlags.given(context, config, log_level, verbose), flags_of(context))


def http(
    context: typer.Context,
    target: TargetArgument,
    server: ServerOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    plaintext: PlaintextOption = None,
    ca: CaOption = None,
    fingerprint: FingerprintOption = None,
    client_cert: ClientCertOption = None,
    client_key: ClientKeyOption = None,
    proxy: ProxyOption = None,
    hostname: HostnameOption = None,
    path: PathOption = None,
    host_header: HostHeaderOption = None,
    request_header: RequestHeaderOption = None,
    response_header: ResponseHeaderOption = None,
    local_ca: LocalCaOption = None,
    local_insecure: LocalInsecureOption = None,
    group: GroupOption = None,
    health: HealthOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    basic_auth: BasicAuthOption = None,
    basic_auth_file: BasicAuthFileOption = None,
    allow_ip: AllowIpOption = None,
    deny_ip: DenyIpOption = None,
    require_header: RequireHeaderOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel to TARGET, for instance `otun http 3000`; the short form of `otun client`."""
    _run_short_form(context, CommonFlags.given(context, config, log_level, verbose), target, kind="http")


def tcp(
    context: typer.Context,
    target: RawTargetArgument,
    server: ServerOption = None,
    remote_port: RemotePortOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    plaintext: PlaintextOption = None,
    ca: CaOption = None,
    fingerprint: FingerprintOption = None,
    client_cert: ClientCertOption = None,
    client_key: ClientKeyOption = None,
    proxy: ProxyOption = None,
    group: GroupOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    allow_ip: AllowIpOption = None,
    deny_ip: DenyIpOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a raw TCP tunnel to TARGET, for instance `otun tcp 22 --remote-port 2222`."""
    _run_short_form(context, CommonFlags.given(context, config, log_level, verbose), target, kind="tcp")


def tls(
    context: typer.Context,
    target: RawTargetArgument,
    server: ServerOption = None,
    name: NameOption = None,
    hostname: HostnameOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    plaintext: PlaintextOption = None,
    ca: CaOption = None,
    fingerprint: FingerprintOption = None,
    client_cert: ClientCertOption = None,
    client_key: ClientKeyOption = None,
    proxy: ProxyOption = None,
    group: GroupOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    allow_ip: AllowIpOption = None,
    deny_ip: DenyIpOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel for TLS that ends at TARGET, for instance `otun tls 8443 --name app`: its key stays there."""
    _run_short_form(context, CommonFlags.given(context, config, log_level, verbose), target, kind="tls")


def start(
    context: typer.Context,
    names: NamesArgument = None,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    plaintext: PlaintextOption = None,
    ca: CaOption = None,
    fingerprint: FingerprintOption = None,
    client_cert: ClientCertOption = None,
    client_key: ClientKeyOption = None,
    proxy: ProxyOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open the tunnels that stand in the configuration file, in [[tunnel]] tables: all, or those with these NAMES."""
    common = CommonFlags.given(context, config, log_level, verbose)
    layers, file = prepare_with_file("client", common, flags_of(context))
    refuse_empty_rules(os.environ)
    refuse_unused_rules(layers)
    _run(read_client_options(layers, select_tunnels(file, names or [])))


def _run_short_form(context: typer.Context, common: CommonFlags, target: str, *, kind: TunnelKind) -> None:
    parse = parse_local_target if kind == "http" else parse_local_address
    parse(target)  # here, so that a mistake in it is not called one of --local
    flags = flags_of(context)
    flags["local"] = flags.pop("target")
    run_client(common, flags, kind=kind)


def run_client(common: CommonFlags, flags: dict[str, Value], *, kind: TunnelKind = "http") -> None:
    """Open the tunnel that *flags*, the environment and the configuration file describe, until a signal ends it."""
    layers = prepare("client", common, flags)
    refuse_empty_rules(os.environ)
    connection = read_connection(layers)
    local = layers.read("local", parse_local_target)
    if local is None:
        raise missing("local", "which local service?", "PORT")
    _run(read_client_options(layers, (read_tunnel(layers, local, kind=kind),), connection=connection))


def _run(options: ClientOptions) -> None:
    run_until_signal(partial(forward_and_report, options, open_stdout()))


def read_client_options(
    layers: Layers, tunnels: tuple[LocalTunnel, ...], *, connection: Connection | None = None
) -> ClientOptions:
    """Return what *layers* ask for beside the *tunnels*.  Raises `ConfigurationError`."""
    return ClientOptions(
        connection=connection or read_connection(layers),
        tunnels=tunnels,
        log_requests=layers.read("log_requests", parse_switch),
    )


async def forward_and_report(options: ClientOptions, output: Output) -> None:
    """Relay visitors until cancelled; say on *output* under which URLs, and what they asked for.

    Raises what `otun.client.open_tunnels` and `otun.Tunnel.forward` raise, in groups.
    """
    connection = options.connection
    is_logging = output.is_terminal if options.log_requests is None else options.log_requests
    async with (
        open_request_printer(output) as printer,
        open_tunnels(
            connection.server,
            [tunnel.settings for tunnel in options.tunnels],
            token=connection.token,
            trust=connection.trust,
            plaintext=connection.plaintext,
            proxy=connection.proxy,
            reconnect=False,
        ) as tunnels,
        trio.open_nursery() as nursery,
    ):
        on_exchange = printer.exchange_finished if is_logging else None
        for tunnel, asked in zip(tunnels, options.tunnels, strict=True):
            nursery.start_soon(
                partial(
                    tunnel.forward_to,
                    asked.local.address,
                    trust=asked.trust,
                    proxy_protocol=asked.proxy_protocol,
                    on_exchange=on_exchange,
                    health=asked.health,
                )
            )
            output.write_line(describe_tunnel(tunnel.url, asked.local, is_terminal=output.is_terminal))


def describe_tunnel(url: str, local: LocalTarget | LocalAddress, *, is_terminal: bool) -> str:
    """Return the line that names the public URL: `URL → LOCAL` for people, the URL alone for scripts."""
    shown = escape_text(url)
    return f"{shown} → {local}" if is_terminal else shown
