"""`otun ban`, `otun unban` and `otun bans`: who is turned away, whether the server runs or not."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
import typer

from ..errors import OtunError
from ..server import queries
from ..server.bans import check_banned_network, check_reason
from ..server.database import NoDatabase, open_database
from ..server.records import Ban
from .escaping import escape_text
from .operators import JsonOption, StateOption, actor, read_flag, state_folder, write_table
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import complain, open_stdout, warn
from .running_server import NoServer, ask, ask_for_all
from .signals import run_until_signal
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


def ban(
    context: typer.Context,
    network: NetworkArgument,
    duration: ForOption = None,
    reason: ReasonOption = "",
    force: ForceOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Turn a network's clients and visitors away, and cut off those who are there."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    new = Ban(
        check_banned_network(network, is_forced=force),
        read_flag(check_reason, "--reason", reason),
        None if duration is None else read_flag(partial(parse_end, now=time.time()), "--for", duration),
    )
    run_until_signal(partial(_ban, state_folder(layers), new, is_forced=force))


def unban(
    context: typer.Context,
    network: NetworkArgument,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Let a network in again.  It must be the one that was banned, not a part of it."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_unban, state_folder(layers), check_banned_network(network, is_forced=True)))


def bans(
    context: typer.Context,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """List the networks that are banned.  Times are in UTC."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_bans, state_folder(layers), as_json=as_json))


async def _ban(folder: Path, new: Ban, *, is_forced: bool) -> None:
    until = "for good" if new.until is None else f"until {show_time(new.until)} UTC"
    try:
        answer = await ask(folder, "ban", **attrs.asdict(new), force=is_forced)
    except NoServer:
        async with open_database(folder, is_created=False) as database:
            await database.write(queries.ban, new, actor(), time.time())
        complain(f"no server runs there: once it does, {new.network} is banned {until}")
        return
    complain(f"{new.network} is banned {until}")
    if not answer["recorded"]:
        warn("it cannot be written down, and ends with the server: see the database in 'otun status'")


async def _unban(folder: Path, network: str) -> None:
    try:
        await ask(folder, "unban", network=network)
    except NoServer:
        async with open_database(folder, is_created=False) as database:
            if not await database.write(queries.unban, network, actor(), time.time()):
                raise OtunError(f"{network} is not banned") from None
        complain(f"no server runs there: once it does, {network} is let in again")
    else:
        complain(f"{network} is let in again")


async def _bans(folder: Path, *, as_json: bool) -> None:
    output = open_stdout()
    found = await _find(folder)
    if as_json:
        shown = [{**attrs.asdict(one), "until": write_time(one.until)} for one in found]
        output.write_line(json.dumps(shown, indent=2))
    elif found:
        rows = [(one.network, show_time(one.until), escape_text(one.reason) or "-") for one in found]
        write_table(output, [("NETWORK", "UNTIL", "REASON"), *rows])


async def _find(folder: Path) -> list[Ban]:
    try:
        rows = await ask_for_all(folder, "bans", "network")
    except NoServer:
        try:
            async with open_database(folder, is_created=False) as database:
                return await database.read(queries.bans, time.time())
        except NoDatabase as error:
            complain(str(error))
            return []
    untils = [None if row["until"] is None else int(str(row["until"])) for row in rows]
    return [Ban(str(row["network"]), str(row["reason"]), until) for row, until in zip(rows, untils, strict=True)]
