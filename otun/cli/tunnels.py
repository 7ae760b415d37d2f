"""The tunnels that a client is asked for: by flags, or by the tables `[[tunnel]]` of the configuration file."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import attrs
import typer

from ..addresses import LocalTarget, UnixAddress, parse_local_target
from ..client import HealthCheck, TunnelKind, TunnelSettings
from ..control.names import normalize_hostname, normalize_name
from ..errors import BadRequest, ConfigurationError
from ..http.hosts import parse_authority
from ..tls.trust import Trust
from .layers import Layer, Layers, Value, as_text, parse_port, parse_switch
from .settings import ConfigFile, TunnelTable
from .visitor_rules import read_visitor_rules

HostnameOption = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST", help="A host name of your own, or *.NAME.DOMAIN for all under a name; repeatable."),
]
PathOption = Annotated[
    str | None, typer.Option(metavar="PREFIX", help="Only requests below this path, for instance /api.")
]
HostHeaderOption = Annotated[
    str | None,
    typer.Option(
        metavar="rewrite|preserve|VALUE",
        help="The Host that the local service sees: its own address, the visitor's [default], or VALUE.",
    ),
]
RequestHeaderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="'NAME: VALUE'", help="Set a header of requests, or with -NAME remove it; repeatable."),
]
ResponseHeaderOption = Annotated[
    list[str] | None,
    typer.Option(metavar="'NAME: VALUE'", help="Set a header of responses, or with -NAME remove it; repeatable."),
]
RemotePortOption = Annotated[
    str | None, typer.Option(metavar="PORT", help="The port on the server; it chooses one otherwise.")
]
GroupOption = Annotated[
    bool | None,
    typer.Option(
        "--group",
        help="Share the name, or the port, with other clients of the same token that say so, too: visitors go to "
        "whoever has the fewest.",
        show_default=False,
    ),
]
HealthOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Ask the local service for this path every 5 s, and let visitors come while it answers with 2xx or 3xx.",
    ),
]
ProxyProtocolOption = Annotated[
    bool | None,
    typer.Option(
        "--proxy-protocol",
        help="Tell the local service who each visitor is, by a PROXY header, version 2.",
        show_default=False,
    ),
]

LocalCaOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Authorities that an https:// service's certificate may come from, in PEM."),
]
LocalInsecureOption = Annotated[
    bool | None,
    typer.Option("--local-insecure", help="Take any certificate of an https:// service.", show_default=False),
]

_KINDS: Final[dict[str, TunnelKind]] = {"http": "http", "tcp": "tcp", "tls": "tls"}


@attrs.frozen(kw_only=True)
class LocalTunnel:
    """A tunnel, and the local service behind it."""

    settings: TunnelSettings
    local: LocalTarget
    trust: Trust | None = None
    proxy_protocol: bool = False
    health: HealthCheck | None = None


def read_tunnel(layers: Layers, local: LocalTarget, *, kind: TunnelKind) -> LocalTunnel:
    """Return the tunnel to *local* that *layers* ask for.  Raises `ConfigurationError` or `InvalidName`."""
    is_http = kind == "http"
    if not is_http and local.is_encrypted:
        raise ConfigurationError(f"{local} is for `otun http`; bytes are passed on as they are here: write HOST:PORT")
    settings = TunnelSettings(
        name=layers.read("name", normalize_name, alias="subdomain"),
        kind=kind,
        hostnames=layers.read_list("hostname", normalize_hostname) if kind != "tcp" else (),
        path=(layers.read("path", _check_path) or "") if is_http else "",
        host_header=(layers.read("host_header", partial(_host_header, local)) or "") if is_http else "",
        request_headers=layers.read_list("request_header", _check_header) if is_http else (),
        response_headers=layers.read_list("response_header", _check_header) if is_http else (),
        remote_port=None if kind != "tcp" else layers.read("remote_port", parse_port),
        local=str(local),
        group=layers.read("group", parse_switch) or False,
        **read_visitor_rules(layers, kind),
    )
    proxy_protocol = layers.read("proxy_protocol", parse_switch) or False
    return LocalTunnel(
        settings=settings,
        local=local,
        trust=_read_trust(layers, local),
        proxy_protocol=proxy_protocol,
        health=layers.read("health", partial(HealthCheck, host=settings.host_header)) if is_http else None,
    )


def _read_trust(layers: Layers, local: LocalTarget) -> Trust | None:
    ca = layers.read_path("local_ca")
    is_blind = layers.read("local_insecure", parse_switch) or False
    if not local.is_encrypted:
        if ca is not None or is_blind:
            raise ConfigurationError(f"--local-ca and --local-insecure are for a service at https://, not at {local}")
        return None
    if ca is not None and is_blind:
        raise ConfigurationError("--local-ca and --local-insecure contradict each other: give one of them")
    trust = Trust(ca=ca, is_blind=is_blind)
    trust.context(())  # So that a mistake in the file shows at once.
    return trust


def select_tunnels(file: ConfigFile, names: list[str]) -> tuple[LocalTunnel, ...]:
    """Return the tunnels of *file* that have these names, or all when there are none.  Raises `ConfigurationError`."""
    where = file.path or "the configuration file"
    if not file.tunnel:
        raise ConfigurationError(f"{where} has no [[tunnel]] tables; `otun start` opens the tunnels that stand there")
    known = dict.fromkeys(table.name for table in file.tunnel if table.name is not None)
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(known) or "none with a name"
        raise ConfigurationError(f"{where} has no tunnel named {unknown[0]!r}; it has {shown}")
    numbered = list(enumerate(file.tunnel))
    # Tunnels may share a name, and differ in their paths.
    chosen = [(index, table) for name in dict.fromkeys(names) for index, table in numbered if table.name == name]
    return tuple(_read_table(file, table, index) for index, table in (chosen if names else numbered))


def _read_table(file: ConfigFile, table: TunnelTable, index: int) -> LocalTunnel:
    values: Mapping[str, Value] = attrs.asdict(table)
    folder = file.path.parent if file.path is not None else Path()
    layers = Layers((Layer(as_text(values), lambda key: f"{file.path}: tunnel[{index}].{key}", folder),))
    local = layers.read("local", parse_local_target)
    if local is None:
        raise ConfigurationError(f"{file.path}: tunnel[{index}].local: which local service? Write a port, or HOST:PORT")
    return read_tunnel(layers, local, kind=layers.read("kind", _check_kind) or "http")


def _check_kind(text: str) -> TunnelKind:
    try:
        return _KINDS[text]
    except KeyError:
        raise ConfigurationError(f"{text!r} is no kind of tunnel; expected http, tcp or tls") from None


def _check_path(text: str) -> str:
    if not text.startswith("/"):
        raise ConfigurationError(f"{text!r} is no path; write one such as /api")
    return text


def _check_header(text: str) -> str:
    TunnelSettings(request_headers=(text,))
    return text


def _host_header(local: LocalTarget, text: str) -> str:
    if text == "preserve":
        return ""
    if text != "rewrite":
        try:
            parse_authority(text.encode())
        except BadRequest as error:
            raise ConfigurationError(f"{text!r} is neither rewrite nor preserve, nor a Host: {error}") from error
        return text
    if isinstance(local.address, UnixAddress):
        return "localhost"
    usual = 443 if local.is_encrypted else 80
    return str(local.address).removesuffix(f":{usual}") if local.address.port == usual else str(local.address)
