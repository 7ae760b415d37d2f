"""`otun name`: names, host names and ports that are kept for a token, whether it uses them or not."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import attrs
import typer

from ..access.identity import normalize_token_name
from ..control.names import normalize_hostname, normalize_name
from ..errors import ConfigurationError, OtunError
from ..server import ServerSettings, queries
from ..server.database import NoDatabase, open_database
from ..server.records import Reservation, ReservationKind
from ..server.reservations import Key
from .exit_codes import EPILOG
from .layers import Layers, parse_port
from .operators import JsonOption, StateOption, actor, state_folder, write_table
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import complain, open_stdout
from .signals import run_until_signal
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
def reserve(
    context: typer.Context,
    name: NameArgument,
    token: TokenOption,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Keep a name for a token, for good; whoever has a tunnel of that name at the moment keeps it until it closes."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    kind, key = _parse_key(name, layers)
    run_until_signal(partial(_reserve, state_folder(layers), Reservation(kind, key, normalize_token_name(token))))


@name.command(short_help="Give a name up.", epilog=EPILOG)
def release(
    context: typer.Context,
    name: NameArgument,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Give a name up that is kept for a token: whoever comes next may have it."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_release, state_folder(layers), _parse_key(name, layers)))


@name.command("list", short_help="List the names that are kept.", epilog=EPILOG)
def list_names(
    context: typer.Context,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """List the names that are kept for tokens, and until when.  Times are in UTC."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_list, state_folder(layers), as_json=as_json))


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


async def _reserve(folder: Path, wanted: Reservation) -> None:
    async with open_database(folder, is_created=False) as database:
        found = await database.write(queries.reserve_for_token, wanted, time.time(), actor())
    shown = _show(wanted.kind, wanted.name)
    if found != wanted:
        until = "for good" if found.until is None else f"until {show_time(found.until)} UTC"
        raise OtunError(
            f"{shown} is reserved for {found.identity!r} {until}; "
            f"'otun name release {write_key(found.kind, found.name)}' gives it up"
        )
    complain(f"{shown} is reserved for {wanted.identity!r} for good")


async def _release(folder: Path, key: Key) -> None:
    async with open_database(folder, is_created=False) as database:
        if not await database.write(queries.release, *key, actor(), time.time()):
            raise OtunError(f"{_show(*key)} is not reserved")
    complain(f"{_show(*key)} is reserved for nobody any more")


async def _list(folder: Path, *, as_json: bool) -> None:
    found: list[Reservation] = []
    try:
        async with open_database(folder, is_created=False) as database:
            found = await database.read(queries.reservations, time.time())
    except NoDatabase as error:
        complain(str(error))
    output = open_stdout()
    if as_json:
        shown = [{**attrs.asdict(one), "until": write_time(one.until)} for one in found]
        output.write_line(json.dumps(shown, indent=2))
    elif found:
        rows = [(one.name, _KINDS[one.kind], one.identity, show_time(one.until)) for one in found]
        write_table(output, [("NAME", "KIND", "TOKEN", "UNTIL"), *rows])


def _show(kind: ReservationKind, name: str) -> str:
    return f"the {_KINDS[kind]} {name if kind == 'port' else repr(name)}"
