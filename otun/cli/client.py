"""`otun client` and its short form `otun http`: the part that runs beside the local service."""

from functools import partial
from typing import Annotated, Final

import attrs
import trio
import typer

from ..addresses import LocalAddress, TcpAddress, parse_local_address, parse_server_address
from ..client import Tunnel, forward
from ..control.names import normalize_name
from ..errors import ConfigurationError
from .escaping import escape_text
from .layers import Layers, flag_for, parse_switch, variable_for
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import Output, open_stdout
from .request_log import open_request_printer
from .signals import run_until_signal
from .tokens import check_token

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
    local: LocalAddress
    name: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    log_requests: bool | None = None


def client(
    context: typer.Context,
    server: ServerOption = None,
    local: LocalOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel: visitors of its public URL reach the local service."""
    flags = {"server": server, "local": local, "name": name, "token": token, "log_requests": log_requests}
    run_client(CommonFlags.given(context, config, log_level, verbose), flags)


def http(
    context: typer.Context,
    target: TargetArgument,
    server: ServerOption = None,
    name: NameOption = None,
    token: TokenOption = None,
    log_requests: LogRequestsOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Open a tunnel to TARGET, for instance `otun http 3000`; the short form of `otun client`."""
    parse_local_address(target)  # here, so that a mistake in it is not called one of --local
    flags = {"server": server, "local": target, "name": name, "token": token, "log_requests": log_requests}
    run_client(CommonFlags.given(context, config, log_level, verbose), flags)


def run_client(common: CommonFlags, flags: dict[str, str | bool | None]) -> None:
    """Open the tunnel that *flags*, the environment and the configuration file describe, until a signal ends it."""
    options = read_client_options(prepare("client", common, flags))
    run_until_signal(partial(forward_and_report, options, open_stdout()))


def read_client_options(layers: Layers) -> ClientOptions:
    """Return what *layers* ask for.  Raises `ConfigurationError`."""
    server = layers.read("server", partial(parse_server_address, default_port=DEFAULT_SERVER_PORT))
    local = layers.read("local", parse_local_address)
    if server is None:
        raise _missing("server", "which server?", "HOST")
    if local is None:
        raise _missing("local", "which local service?", "PORT")
    return ClientOptions(
        server=server,
        local=local,
        name=layers.read("name", normalize_name, alias="subdomain"),
        token=layers.read("token", check_token),
        log_requests=layers.read("log_requests", parse_switch),
    )


def _missing(setting: str, question: str, value: str) -> ConfigurationError:
    return ConfigurationError(
        f"{question} Give {flag_for(setting)} {value}, or set {variable_for(setting)} "
        f"or client.{setting} in the configuration file"
    )


async def forward_and_report(options: ClientOptions, output: Output) -> None:
    """Relay visitors until cancelled; say on *output* under which URL, and what they asked for.

    Raises what `otun.client.forward` raises, in groups.
    """
    is_logging = output.is_terminal if options.log_requests is None else options.log_requests
    async with open_request_printer(output) as printer, trio.open_nursery() as nursery:
        tunnel: Tunnel = await nursery.start(
            partial(
                forward,
                options.server,
                options.local,
                name=options.name,
                token=options.token,
                on_exchange=printer.exchange_finished if is_logging else None,
            )
        )
        output.write_line(describe_tunnel(tunnel.url, options.local, is_terminal=output.is_terminal))


def describe_tunnel(url: str, local: LocalAddress, *, is_terminal: bool) -> str:
    """Return the line that names the public URL: `URL → LOCAL` for people, the URL alone for scripts."""
    shown = escape_text(url)
    return f"{shown} → {local}" if is_terminal else shown
