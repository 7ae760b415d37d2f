"""`otun token`: who may use a server, on the machine that it runs on; it may be running meanwhile."""

import os
import secrets
import time
from functools import partial
from typing import Annotated, Final

import attrs
import typer

from ..access import Grants, Limits, hash_token, token_of
from ..access.identity import MAX_TUNNELS, normalize_token_name
from ..access.rates import day_of
from ..access.tokens import SECRET_SIZE
from ..errors import ConfigurationError, OtunError
from ..server import queries
from ..server.database import Database, open_database
from ..server.first_token import forget_first_token
from ..server.records import TokenRecord
from .escaping import escape_text
from .exit_codes import EPILOG
from .layers import Layers, parse_count
from .name import write_key
from .operators import (
    JsonOption,
    actor,
    operator_command,
    read_flag,
    read_if_there,
    state_folder,
    write_fields,
    write_json,
    write_table,
)
from .output import complain, open_stdout
from .times import parse_end, show_time, write_time

_MAX_CELL: Final = 40
"""Characters of what a token may, and of its limits, in the table; `show` has all of them."""

_MAX_NAMES: Final = 5
"""Names that are listed when their token is revoked; `otun name list` has all of them."""

token: typer.Typer = typer.Typer(
    name="token", no_args_is_help=True, rich_markup_mode=None, epilog=EPILOG, help="Say who may use the server."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The token's name, for people: who or what has it.")]
MayOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GRANTS",
        help="What it may: http:app,http:app-*,tls:app,tcp:20000-20010,host:*.example.org; repeatable "
        "[default: everything that the server's settings allow].",
    ),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="12h, 30d, or the beginning of a day in UTC: 2026-12-31 [default: never]."),
]
MaxTunnelsOption = Annotated[str | None, typer.Option(metavar="N", help="Tunnels at a time [default: any number].")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIMITS",
        help="How much its visitors may do: requests=100 a second, bandwidth=10MB a second, visitors=50 at a time, "
        "daily=5GB; with tunnel. before it (tunnel.requests=20), in each of its tunnels; repeatable "
        "[default: as much as the server's settings allow].",
    ),
]
LimitsArgument = Annotated[
    str, typer.Argument(metavar="LIMITS|none", help="All limits that it is to have, as for --limit of 'create'.")
]


@token.command(short_help="Make a token, and print it: this once.", epilog=EPILOG)
@operator_command
async def create(
    layers: Layers,
    name: NameArgument,
    may: MayOption = None,
    expires: ExpiresOption = None,
    max_tunnels: MaxTunnelsOption = None,
    limit: LimitOption = None,
) -> None:
    """Make a token, and print it on a line of its own.

    It is never shown again: the server keeps a hash of it.
    """
    now = time.time()
    record = TokenRecord(
        name=normalize_token_name(name),
        hash=b"",
        may=str(read_flag(Grants.parse, "--may", ",".join(may))) if may else None,
        max_tunnels=read_flag(_parse_tunnels, "--max-tunnels", max_tunnels) if max_tunnels is not None else None,
        created=int(now),
        expires=read_flag(partial(parse_end, now=now), "--expires", expires) if expires is not None else None,
        limits=str(read_flag(Limits.parse, "--limit", ",".join(limit))) if limit else None,
    )
    folder = state_folder(layers)
    secret = token_of(secrets.token_bytes(SECRET_SIZE))
    async with open_database(folder) as database:
        await database.write(queries.create_token, attrs.evolve(record, hash=hash_token(secret)), actor())
        await _hand_over(secret, database, record.name)
        is_first = len(await database.read(queries.tokens)) == 1
    allowed = record.may or "everything that the server allows"
    complain(f"the token {record.name!r} may have {allowed}; it is not shown again")
    if is_first:  # The folder may be another one than was meant.
        complain(f"it is the first one in {folder}, which must be the server's state folder")


@token.command("list", short_help="List the tokens.", epilog=EPILOG)
@operator_command
async def list_tokens(layers: Layers, as_json: JsonOption = False) -> None:
    """List the tokens that there are and were.  Times are in UTC."""
    records = await read_if_there(state_folder(layers), queries.tokens)
    now = time.time()
    if as_json:
        write_json([_as_json(record, now) for record in records])
        return
    header = ("NAME", "MAY", "TUNNELS", "LIMITS", "CREATED", "EXPIRES", "LAST USED", "STATE")
    write_table(header, [_row(record, now) for record in records])


@token.command(short_help="Show a token, except its secret.", epilog=EPILOG)
@operator_command
async def show(layers: Layers, name: NameArgument, as_json: JsonOption = False) -> None:
    """Show what is known of a token.  Its secret is not: nobody knows it but who has it."""
    folder, name = state_folder(layers), normalize_token_name(name)
    async with open_database(folder, is_created=False) as database:
        record = await database.read(queries.find_token, name)
        now = time.time()
        used = await database.read(queries.usage_of, name, day_of(now))
    if as_json:
        write_json({**_as_json(record, now), "bytes_today": used})
        return
    fields = {
        "name": record.name,
        "may": record.may or "everything",
        "tunnels": _tunnels(record),
        "limits": record.limits or "-",
        "used today": f"{used:,} bytes",
        "created": show_time(record.created),
        "expires": show_time(record.expires),
        "last used": show_time(record.last_used),
        "revoked": show_time(record.revoked),
        "state": record.state(now),
    }
    write_fields(fields)


@token.command("limit", short_help="Say how much a token's visitors may do.", epilog=EPILOG)
@operator_command
async def limit_token(layers: Layers, name: NameArgument, limits: LimitsArgument) -> None:
    """Give a token these limits instead of those that it had; a running server keeps to them within a second."""
    wanted = None if limits.lower() == "none" else str(read_flag(Limits.parse, "limits", limits))
    folder, name = state_folder(layers), normalize_token_name(name)
    async with open_database(folder, is_created=False) as database:
        await database.write(queries.limit_token, name, wanted, actor(), time.time())


@token.command(short_help="Make a token invalid for good.", epilog=EPILOG)
@operator_command
async def revoke(layers: Layers, name: NameArgument) -> None:
    """Make a token invalid for good; a running server ends its sessions within a second."""
    folder, name = state_folder(layers), normalize_token_name(name)
    async with open_database(folder, is_created=False) as database:
        before = await database.write(queries.revoke_token, name, actor(), time.time())
        await forget_first_token(database, folder)
        reservations = await database.read(queries.reservations, time.time())
    if before.revoked is not None:
        complain(f"the token {name!r} was revoked before, at {show_time(before.revoked)} UTC")
    kept = [write_key(one.kind, one.name) for one in reservations if one.identity == name]
    if kept:  # Nobody should come to its visitors just because it is gone.
        shown = ", ".join(kept[:_MAX_NAMES]) + (f" and {len(kept) - _MAX_NAMES} more" if len(kept) > _MAX_NAMES else "")
        complain(f"still reserved for {name!r}: {shown}; 'otun name release {kept[0]}' lets others have it")


@token.command(short_help="Give a token a new secret.", epilog=EPILOG)
@operator_command
async def rotate(layers: Layers, name: NameArgument) -> None:
    """Give a token a new secret, and print it, this once; the old one is invalid at once, and its sessions end."""
    folder, name = state_folder(layers), normalize_token_name(name)
    secret = token_of(secrets.token_bytes(SECRET_SIZE))
    async with open_database(folder, is_created=False) as database:
        await database.write(queries.rotate_token, name, hash_token(secret), actor(), time.time())
        await forget_first_token(database, folder)
        await _hand_over(secret, database, name)
    complain(f"this is the token {name!r} now, and not shown again; the one before is invalid")


async def _hand_over(secret: str, database: Database, name: str) -> None:
    """Print the token; if nobody can have read it, it is revoked again."""
    data = f"{secret}\n".encode()
    descriptor = open_stdout().descriptor
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        await database.write(queries.revoke_token, name, actor(), time.time())
        raise OtunError(f"the token cannot be printed, and is revoked again: {error.strerror}") from error


def _parse_tunnels(text: str) -> int:
    number = parse_count(text)
    if number > MAX_TUNNELS:
        raise ConfigurationError(f"{text!r} is more than {MAX_TUNNELS}; leave it out for any number")
    return number


def _row(record: TokenRecord, now: float) -> tuple[str, ...]:
    return (
        record.name,
        escape_text(record.may or "everything", limit=_MAX_CELL),
        _tunnels(record),
        escape_text(record.limits or "-", limit=_MAX_CELL),
        show_time(record.created),
        show_time(record.expires),
        show_time(record.last_used),
        record.state(now),
    )


def _tunnels(record: TokenRecord) -> str:
    return "-" if record.max_tunnels is None else str(record.max_tunnels)


def _as_json(record: TokenRecord, now: float) -> dict[str, str | int | None]:
    return {
        "name": record.name,
        "may": record.may,
        "max_tunnels": record.max_tunnels,
        "limits": record.limits,
        "created": write_time(record.created),
        "expires": write_time(record.expires),
        "revoked": write_time(record.revoked),
        "last_used": write_time(record.last_used),
        "state": record.state(now),
    }
