"""`otun client` and its short forms `otun http`, `otun tcp` and `otun start`: the part beside the local service."""

from functools import partial
from typing import Annotated, Final, Literal

import attrs
import trio
import typer

from ..addresses import LocalAddress, TcpAddress, parse_local_address, parse_server_address
from ..client import open_tunnels
from ..errors import ConfigurationError
from .escaping import escape_text
from .layers import Layers, Value, flag_for, parse_switch, variable_for
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
from .request_log import open_request_printer
from .signals import run_until_signal
from .tokens import check_token
from .tunnels import (
    HostHeaderOption,
    HostnameOption,
    LocalTunnel,
    PathOption,
    ProxyProtocolOption,
    RemotePortOption,
    RequestHeaderOption,
    ResponseHeaderOption,
    read_tunnel,
    select_tunnels,
)

DEFAULT_SERVER_PORT: Final = 4443

ServerOption = Annotated[
    str | None,
    typer.Option(metavar="HOST[:PORT]", help=f"The server's control port [default port: {DEFAULT_SERVER_PORT}]."),
]
LocalOption = Annotated[
    str | None, typer.Option(metavar="TARGET", help="The local service: PORT, HOST:PORT or unix:PATH.")
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="The local service: PORT, HOST:PORT or unix:PATH.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", "--subdomain", metavar="NAME", help="The tunnel's name; the server chooses one otherwise."),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="What the server asks for. Other users see it in the process list: "
        "OTUN_TOKEN or the configuration file keep it to yourself.",
    ),
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

    server: TcpAddress
    tunnels: tuple[LocalTunnel, ...]
    token: str | None = attrs.field(default=None, repr=False)
    log_requests: bool | None = None


def client(
    context: typer.Context,
    server: ServerOption = None,
    local: LocalOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    hostname: HostnameOption = None,
    path: PathOption = None,
    host_header: HostHeaderOption = None,
    request_header: RequestHeaderOption = None,
    response_header: ResponseHeaderOption = None,
    proxy_protocol: ProxyProtocolOption = None,
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
    hostname: HostnameOption = None,
    path: PathOption = None,
    host_header: HostHeaderOption = None,
    request_header: RequestHeaderOption = None,
    response_header: ResponseHeaderOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel to TARGET, for instance `otun http 3000`; the short form of `otun client`."""
    parse_local_address(target)  # here, so that a mistake in it is not called one of --local
    flags = flags_of(context)
    flags["local"] = flags.pop("target")
    run_client(CommonFlags.given(context, config, log_level, verbose), flags)


def tcp(
    context: typer.Context,
    target: TargetArgument,
    server: ServerOption = None,
    remote_port: RemotePortOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    proxy_protocol: ProxyProtocolOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a raw TCP tunnel to TARGET, for instance `otun tcp 22 --remote-port 2222`."""
    parse_local_address(target)
    flags = flags_of(context)
    flags["local"] = flags.pop("target")
    run_client(CommonFlags.given(context, config, log_level, verbose), flags, kind="tcp")


def start(
    context: typer.Context,
    names: NamesArgument = None,
    server: ServerOption = None,
    token: TokenOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open the tunnels that stand in the configuration file, in [[tunnel]] tables: all, or those with these NAMES."""
    common = CommonFlags.given(context, config, log_level, verbose)
    layers, file = prepare_with_file("client", common, flags_of(context))
    _run(read_client_options(layers, select_tunnels(file, names or [])))


def run_client(common: CommonFlags, flags: dict[str, Value], *, kind: Literal["http", "tcp"] = "http") -> None:
    """Open the tunnel that *flags*, the environment and the configuration file describe, until a signal ends it."""
    layers = prepare("client", common, flags)
    server = _read_server(layers)
    local = layers.read("local", parse_local_address)
    if local is None:
        raise _missing("local", "which local service?", "PORT")
    _run(read_client_options(layers, (read_tunnel(layers, local, kind=kind),), server=server))


def _run(options: ClientOptions) -> None:
    run_until_signal(partial(forward_and_report, options, open_stdout()))


def read_client_options(
    layers: Layers, tunnels: tuple[LocalTunnel, ...], *, server: TcpAddress | None = None
) -> ClientOptions:
    """Return what *layers* ask for beside the *tunnels*.  Raises `ConfigurationError`."""
    return ClientOptions(
        server=server or _read_server(layers),
        tunnels=tunnels,
        token=layers.read("token", check_token),
        log_requests=layers.read("log_requests", parse_switch),
    )


def _read_server(layers: Layers) -> TcpAddress:
    server = layers.read("server", partial(parse_server_address, default_port=DEFAULT_SERVER_PORT))
    if server is None:
        raise _missing("server", "which server?", "HOST")
    return server


def _missing(setting: str, question: str, value: str) -> ConfigurationError:
    return ConfigurationError(
        f"{question} Give {flag_for(setting)} {value}, or set {variable_for(setting)} "
        f"or client.{setting} in the configuration file"
    )


async def forward_and_report(options: ClientOptions, output: Output) -> None:
    """Relay visitors until cancelled; say on *output* under which URLs, and what they asked for.

    Raises what `otun.client.open_tunnels` and `otun.Tunnel.forward` raise, in groups.
    """
    is_logging = output.is_terminal if options.log_requests is None else options.log_requests
    async with (
        open_request_printer(output) as printer,
        open_tunnels(options.server, [tunnel.settings for tunnel in options.tunnels], token=options.token) as tunnels,
        trio.open_nursery() as nursery,
    ):
        on_exchange = printer.exchange_finished if is_logging else None
        for tunnel, asked in zip(tunnels, options.tunnels, strict=True):
            nursery.start_soon(
                partial(tunnel.forward_to, asked.local, proxy_protocol=asked.proxy_protocol, on_exchange=on_exchange)
            )
            output.write_line(describe_tunnel(tunnel.url, asked.local, is_terminal=output.is_terminal))


def describe_tunnel(url: str, local: LocalAddress, *, is_terminal: bool) -> str:
    """Return the line that names the public URL: `URL → LOCAL` for people, the URL alone for scripts."""
    shown = escape_text(url)
    return f"{shown} → {local}" if is_terminal else shown
