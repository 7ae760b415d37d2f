"""`otun ban`, `otun unban` and `otun bans`: who is turned away, whether the server runs or not."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
import typer

from ..errors import OtunError
from ..server import queries
from ..server.bans import check_banned_network, check_reason
from ..server.database import open_database
from ..server.records import Ban
from .escaping import escape_text
from .layers import Layers
from .operators import (
    JsonOption,
    actor,
    operator_command,
    read_flag,
    read_if_there,
    state_folder,
    write_json,
    write_table,
)
from .output import complain, warn
from .running_server import NoServer, ask, ask_for_all
from .times import parse_end, show_time, write_time

NetworkArgument = Annotated[
    str, typer.Argument(metavar="CIDR", help="A network such as 192.0.2.0/24 or 2001:db8::/32, or one address.")
]
ForOption = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="TIME", help="12h, 30d, or until a day begins in UTC: 2026-12-31 [default: for good]."
    ),
]
ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for 'otun bans' and 'otun audit'.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Ban even a network that this machine itself is in.")]


@operator_command
async def ban(
    layers: Layers,
    network: NetworkArgument,
    duration: ForOption = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
) -> None:
    """Turn a network's clients and visitors away, and cut off those who are there."""
    new = Ban(
        check_banned_network(network, is_forced=force),
        read_flag(check_reason, "--reason", reason),
        None if duration is None else read_flag(partial(parse_end, now=time.time()), "--for", duration),
    )
    folder = state_folder(layers)
    until = "for good" if new.until is None else f"until {show_time(new.until)} UTC"
    try:
        answer = await ask(folder, "ban", **attrs.asdict(new), force=force)
    except NoServer:
        async with open_database(folder, is_created=False) as database:
            await database.write(queries.ban, new, actor(), time.time())
        complain(f"no server runs there: once it does, {new.network} is banned {until}")
        return
    complain(f"{new.network} is banned {until}")
    if not answer["recorded"]:
        warn("it cannot be written down, and ends with the server: see the database in 'otun status'")


@operator_command
async def unban(layers: Layers, network: NetworkArgument) -> None:
    """Let a network in again.  It must be the one that was banned, not a part of it."""
    folder = state_folder(layers)
    banned = check_banned_network(network, is_forced=True)
    try:
        await ask(folder, "unban", network=banned)
    except NoServer:
        async with open_database(folder, is_created=False) as database:
            if not await database.write(queries.unban, banned, actor(), time.time()):
                raise OtunError(f"{banned} is not banned") from None
        complain(f"no server runs there: once it does, {banned} is let in again")
    else:
        complain(f"{banned} is let in again")


@operator_command
async def bans(layers: Layers, as_json: JsonOption = False) -> None:
    """List the networks that are banned.  Times are in UTC."""
    found = await _find(state_folder(layers))
    if as_json:
        write_json([{**attrs.asdict(one), "until": write_time(one.until)} for one in found])
        return
    rows = [(one.network, show_time(one.until), escape_text(one.reason) or "-") for one in found]
    write_table(("NETWORK", "UNTIL", "REASON"), rows)


async def _find(folder: Path) -> list[Ban]:
    try:
        rows = await ask_for_all(folder, "bans", "network")
    except NoServer:
        return await read_if_there(folder, queries.bans, time.time())
    untils = [None if row["until"] is None else int(str(row["until"])) for row in rows]
    return [Ban(str(row["network"]), str(row["reason"]), until) for row, until in zip(rows, untils, strict=True)]
