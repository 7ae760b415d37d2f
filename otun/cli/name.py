"""`otun name`: names, host names and ports that are kept for a token, whether it uses them or not."""

import time
from typing import Annotated, Final

import attrs
import typer

from ..access.identity import normalize_token_name
from ..control.names import normalize_hostname, normalize_name
from ..errors import ConfigurationError, OtunError
from ..server import ServerSettings, queries
from ..server.database import open_database
from ..server.records import Reservation, ReservationKind
from ..server.reservations import Key
from .exit_codes import EPILOG
from .layers import Layers, parse_port
from .operators import JsonOption, actor, operator_command, read_if_there, state_folder, write_json, write_table
from .output import complain
from .times import show_time, write_time

_KINDS: Final[dict[ReservationKind, str]] = {"name": "name", "host": "host name", "port": "port"}

name: typer.Typer = typer.Typer(
    name="name", no_args_is_help=True, rich_markup_mode=None, epilog=EPILOG, help="Keep names for tokens."
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A tunnel's name, a host name such as shop.example.org, or a TCP port; name:2026 and host:intranet say "
        "which of them is meant.",
    ),
]
TokenOption = Annotated[str, typer.Option("--for", metavar="TOKEN", help="The name of the token that is to have it.")]


@name.command(short_help="Keep a name for a token, for good.", epilog=EPILOG)
@operator_command
async def reserve(layers: Layers, name: NameArgument, token: TokenOption) -> None:
    """Keep a name for a token, for good; whoever has a tunnel of that name at the moment keeps it until it closes."""
    wanted = Reservation(*_parse_key(name, layers), normalize_token_name(token))
    async with open_database(state_folder(layers), is_created=False) as database:
        found = await database.write(queries.reserve_for_token, wanted, time.time(), actor())
    shown = _show(wanted.kind, wanted.name)
    if found != wanted:
        until = "for good" if found.until is None else f"until {show_time(found.until)} UTC"
        raise OtunError(
            f"{shown} is reserved for {found.identity!r} {until}; "
            f"'otun name release {write_key(found.kind, found.name)}' gives it up"
        )
    complain(f"{shown} is reserved for {wanted.identity!r} for good")


@name.command(short_help="Give a name up.", epilog=EPILOG)
@operator_command
async def release(layers: Layers, name: NameArgument) -> None:
    """Give a name up that is kept for a token: whoever comes next may have it."""
    key = _parse_key(name, layers)
    async with open_database(state_folder(layers), is_created=False) as database:
        if not await database.write(queries.release, *key, actor(), time.time()):
            raise OtunError(f"{_show(*key)} is not reserved")
    complain(f"{_show(*key)} is reserved for nobody any more")


@name.command("list", short_help="List the names that are kept.", epilog=EPILOG)
@operator_command
async def list_names(layers: Layers, as_json: JsonOption = False) -> None:
    """List the names that are kept for tokens, and until when.  Times are in UTC."""
    found = await read_if_there(state_folder(layers), queries.reservations, time.time())
    if as_json:
        write_json([{**attrs.asdict(one), "until": write_time(one.until)} for one in found])
        return
    rows = [(one.name, _KINDS[one.kind], one.identity, show_time(one.until)) for one in found]
    write_table(("NAME", "KIND", "TOKEN", "UNTIL"), rows)


def write_key(kind: ReservationKind, name: str) -> str:
    """Return what stands for a reservation in the commands."""
    return name if _kind_of(name) == kind else f"{kind}:{name}"


def _kind_of(text: str) -> ReservationKind:
    """Return what *text* is taken for when nothing else is said."""
    if text.isascii() and text.isdigit():
        return "port"
    return "host" if "." in text else "name"


def _parse_key(text: str, layers: Layers) -> Key:
    """Read what is to be reserved.  Raises `ConfigurationError` and `InvalidName`."""
    said, _, rest = text.partition(":")
    kind = next((kind for kind in _KINDS if kind == said), None)
    kind, text = (_kind_of(text), text) if kind is None else (kind, rest)
    match kind:
        case "port":
            return kind, str(parse_port(text))
        case "name":
            return kind, normalize_name(text)
        case "host":
            return kind, _check_host(normalize_hostname(text), layers)


def _check_host(host: str, layers: Layers) -> str:
    domain = layers.read("domain", lambda domain: ServerSettings(domain=domain).domain)
    if domain is not None and host.endswith(f".{domain}"):
        own = host.removesuffix(f".{domain}").rpartition(".")[2]
        raise ConfigurationError(
            f"{host!r} is under the server's domain, and comes with the name {own!r}: reserve that"
        )
    return host


def _show(kind: ReservationKind, name: str) -> str:
    return f"the {_KINDS[kind]} {name if kind == 'port' else repr(name)}"
