"""`otun client` and its short forms `otun http`, `otun tcp` and `otun start`: the part beside the local service."""

import logging
import os
from typing import Annotated, Final

import attrs
import trio
import typer

from ..addresses import LocalAddress, LocalTarget, parse_local_address, parse_local_target
from ..background import open_background
from ..client import Connected, OnExchange, Tunnel, TunnelKind, open_tunnels
from ..mux.errors import SessionClosed
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
from .reconnecting import DrainOption, Endurance, MaxRetriesOption, ReconnectOption, read_endurance
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

logger: logging.Logger = logging.getLogger(__name__)

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

_NOTICED_WAIT: Final = 0.5
"""Seconds after which people wonder why the program does not end."""


@attrs.frozen(kw_only=True)
class ClientOptions:
    """What the client is to do; *log_requests* None leaves it to whether stdout is a terminal."""

    connection: Connection
    tunnels: tuple[LocalTunnel, ...]
    endurance: Endurance = attrs.field(factory=Endurance)
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
    reconnect: ReconnectOption = None,
    max_retries: MaxRetriesOption = None,
    drain: DrainOption = None,
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
    reconnect: ReconnectOption = None,
    max_retries: MaxRetriesOption = None,
    drain: DrainOption = None,
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
    reconnect: ReconnectOption = None,
    max_retries: MaxRetriesOption = None,
    drain: DrainOption = None,
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
    reconnect: ReconnectOption = None,
    max_retries: MaxRetriesOption = None,
    drain: DrainOption = None,
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
    reconnect: ReconnectOption = None,
    max_retries: MaxRetriesOption = None,
    drain: DrainOption = None,
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
    client = ForwardingClient(options, open_stdout())
    run_until_signal(client.run, finish=client.finish)


def read_client_options(
    layers: Layers, tunnels: tuple[LocalTunnel, ...], *, connection: Connection | None = None
) -> ClientOptions:
    """Return what *layers* ask for beside the *tunnels*.  Raises `ConfigurationError`."""
    return ClientOptions(
        connection=connection or read_connection(layers),
        tunnels=tunnels,
        endurance=read_endurance(layers),
        log_requests=layers.read("log_requests", parse_switch),
    )


class ForwardingClient:
    """A client's whole job: relays visitors, and says on *output* under which URLs, and what they asked for."""

    def __init__(self, options: ClientOptions, output: Output) -> None:
        self._options = options
        self._output = output
        self._tunnels: tuple[Tunnel, ...] = ()
        self._finishing = trio.Event()

    async def run(self) -> None:
        """Relay visitors until cancelled, or until the last one has left after `finish`.

        Raises what `otun.client.open_tunnels` and `otun.Tunnel.forward` raise, in groups.
        """
        options, output = self._options, self._output
        connection, endurance = options.connection, options.endurance
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
                reconnect=endurance.reconnect,
                max_retries=endurance.max_retries,
            ) as self._tunnels,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._drain, nursery.cancel_scope)
            on_exchange = printer.exchange_finished if is_logging else None
            for tunnel, asked in zip(self._tunnels, options.tunnels, strict=True):
                nursery.start_soon(self._forward, tunnel, asked, on_exchange)
                output.write_line(describe_tunnel(tunnel.url, asked.local, is_terminal=output.is_terminal))
                nursery.start_soon(self._report_moves, tunnel, asked, tunnel.url)

    async def _forward(self, tunnel: Tunnel, asked: LocalTunnel, on_exchange: OnExchange | None) -> None:
        try:
            await tunnel.forward_to(
                asked.local.address,
                trust=asked.trust,
                proxy_protocol=asked.proxy_protocol,
                on_exchange=on_exchange,
                health=asked.health,
            )
        except SessionClosed:
            if not self._finishing.is_set():
                raise

    async def _report_moves(self, tunnel: Tunnel, asked: LocalTunnel, url: str) -> None:
        """Say when the server that was lost has given the tunnel another URL than *url*."""
        async for event in tunnel.events():
            if isinstance(event, Connected) and event.url != url:
                url = event.url
                line = describe_tunnel(url, asked.local, is_terminal=self._output.is_terminal)
                await trio.to_thread.run_sync(self._output.write_line, line, abandon_on_cancel=True)

    def finish(self) -> bool:
        """Have `run` return when visitors have finished, for which they have some time; false if there are none yet."""
        if not self._tunnels:
            return False
        self._finishing.set()
        return True

    async def _drain(self, running: trio.CancelScope) -> None:
        await self._finishing.wait()
        async with open_background() as background:
            background.start_soon(self._explain_waiting)
            with trio.move_on_after(self._options.endurance.drain) as patience:
                await self._tunnels[0].drain()
        if patience.cancelled_caught:
            logger.warning("visitors who had not finished were cut short")
        running.cancel()

    async def _explain_waiting(self) -> None:
        await trio.sleep(_NOTICED_WAIT)
        logger.info("visitors have %g s to finish; another signal ends them at once", self._options.endurance.drain)


def describe_tunnel(url: str, local: LocalTarget | LocalAddress, *, is_terminal: bool) -> str:
    """Return the line that names the public URL: `URL → LOCAL` for people, the URL alone for scripts."""
    shown = escape_text(url)
    return f"{shown} → {local}" if is_terminal else shown
