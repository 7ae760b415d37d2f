"""`otun server`: the part that runs on the public machine."""

import contextlib
import os
from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import Annotated, Final

import trio
import typer

from ..addresses import TcpAddress, parse_listen_address, parse_network, parse_port_ranges
from ..control.names import normalize_hostname
from ..server import HttpTimeouts, Server, ServerSettings, serve
from .descriptors import raise_descriptor_limit
from .layers import Layers, parse_count, parse_seconds
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, flags_of, prepare
from .output import Output, open_stdout, warn
from .signals import run_until_signal
from .state import claim_state_folder
from .tokens import read_tokens_file, tokens_from_environment

_DEFAULTS: Final = ServerSettings()

ControlOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where clients connect [default: :4443].")]
PublicOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where visitors come in [default: :8080].")]
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
        "Tokens in the variable OTUN_TOKENS count as well.",
    ),
]
StateOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder that belongs to this server alone; DIR/tokens is its tokens file."),
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


def server(
    context: typer.Context,
    control: ControlOption = None,
    public: PublicOption = None,
    domain: DomainOption = None,
    public_url: PublicUrlOption = None,
    tokens_file: TokensFileOption = None,
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
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Run the server: clients open tunnels on its control port, visitors reach them through its public port."""
    raise_descriptor_limit()
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), flags_of(context))
    folder = layers.read_path("state")
    with claim_state_folder(folder) if folder is not None else contextlib.nullcontext():
        run_until_signal(partial(serve_and_announce, read_server_settings(layers, folder), open_stdout()))


def read_server_settings(layers: Layers, state: Path | None) -> ServerSettings:
    """Return what *layers* ask for, with the tokens that belong to it.  Raises `ConfigurationError`."""
    file = layers.read_path("tokens_file")
    if file is None and state is not None and os.path.lexists(state / "tokens"):
        file = state / "tokens"
    tokens = read_tokens_file(file) if file is not None else frozenset()
    return ServerSettings(
        control=layers.read("control", parse_listen_address) or _DEFAULTS.control,
        public=layers.read("public", parse_listen_address) or _DEFAULTS.public,
        # Checked one by one, so that a mistake is named with the flag, variable or key that it stands in.
        domain=layers.read("domain", lambda text: ServerSettings(domain=text).domain),
        public_url=layers.read("public_url", lambda text: ServerSettings(public_url=text).public_url),
        tokens=tokens | tokens_from_environment(os.environ),
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
    )


async def serve_and_announce(settings: ServerSettings, output: Output) -> None:
    """Serve until cancelled; say on *output* where, once that is known.  Raises `ListenError`."""
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, settings)
        for address in running.control_addresses:
            output.write_line(f"control {address}")
        for address in running.public_addresses:
            output.write_line(f"public {address}")
        output.write_line(f"client: {describe_client(settings, running.control_addresses)}")
        if not settings.tokens and is_open_to_others(running.control_addresses):
            warn("everybody who reaches the control port can open tunnels; set tokens with --tokens-file")


def describe_client(settings: ServerSettings, addresses: Iterable[TcpAddress]) -> str:
    """Return a command that opens a tunnel on this server; a token is left for the reader to fill in."""
    bound = next(iter(addresses))
    is_wildcard = bound.host in ("", "0.0.0.0", "::")
    host = (settings.domain or gethostname()) if is_wildcard else bound.host
    token = " --token TOKEN" if settings.tokens else ""
    return f"otun http 3000 --server {TcpAddress(host, bound.port)}{token}"


def is_open_to_others(addresses: Iterable[TcpAddress]) -> bool:
    """Whether other machines may reach one of *addresses*, as far as the addresses tell."""
    return not all(_is_loopback(address.host) for address in addresses)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
