"""`otun status`, `otun sessions` and `otun kick`: what goes on in a running server."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from .escaping import escape_text
from .operators import JsonOption, StateOption, state_folder, write_table
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import complain, open_stdout, warn
from .running_server import Answer, ask, ask_for_all, rows_of
from .signals import run_until_signal
from .times import show_time, write_time

_MAX_CELL: Final = 60
"""Characters of a URL in the table; JSON has all of them."""

WhoArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A tunnel's name, a host name, a TCP tunnel's port, or a session's number as in '#7'."
    ),
]


def status(
    context: typer.Context,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Say how the server is that runs with the state folder."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_status, state_folder(layers), as_json=as_json))


def sessions(
    context: typer.Context,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """List the clients that are there, with a line for each of their tunnels.  Times are in UTC."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_sessions, state_folder(layers), as_json=as_json))


def kick(
    context: typer.Context,
    name: WhoArgument,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """End a client's session, with all its tunnels, and say which.  The client can come again: see 'otun ban'."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    run_until_signal(partial(_kick, state_folder(layers), name, as_json=as_json))


async def _status(folder: Path, *, as_json: bool) -> None:
    answer = await ask(folder, "status")
    del answer["ok"]
    output = open_stdout()
    if as_json:
        output.write_line(json.dumps(answer, indent=2))
        return
    database = answer["database"]
    lines = {
        **answer,
        "uptime": _show_span(int(str(answer["uptime"]))),
        "open": "yes: nobody needs a token" if answer["open"] else "no",
        "database": "sound" if database is None else f"in trouble: {database}",
    }
    for title, value in lines.items():
        shown = ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)
        output.write_line(f"{title:<10} {escape_text(shown)}")


async def _sessions(folder: Path, *, as_json: bool) -> None:
    found = await ask_for_all(folder, "sessions", "number")
    _write_sessions(found, as_json=as_json)


async def _kick(folder: Path, who: str, *, as_json: bool) -> None:
    answer = await ask(folder, "kick", who=who)
    _write_sessions(rows_of(answer, "sessions"), as_json=as_json)
    if not as_json:
        complain("ended; the client is told so, and can come again unless its token is revoked or its network banned")
    if not answer["recorded"]:
        warn("the audit has no line for this: see the database in 'otun status'")


def _write_sessions(found: list[Answer], *, as_json: bool) -> None:
    output = open_stdout()
    if as_json:
        sessions = [{**one, "since": write_time(int(str(one["since"])))} for one in found]
        output.write_line(json.dumps(sessions, indent=2))
    elif found:
        header = ("SESSION", "IDENTITY", "ADDRESS", "SINCE", "SILENT", "TUNNEL", "URL", "VISITORS")
        write_table(output, [header, *(row for one in found for row in _rows(one))])


def _rows(session: Answer) -> list[tuple[str, ...]]:
    client = (
        f"#{session['number']}",
        escape_text(str(session["identity"])),
        escape_text(str(session["address"])),
        show_time(int(str(session["since"]))),
        f"{session['silence']} s",
    )
    tunnels = [
        (_show_name(tunnel), escape_text(str(tunnel["url"]), limit=_MAX_CELL), str(tunnel["visitors"]))
        for tunnel in rows_of(session, "tunnels")
    ]
    return [(*client, *tunnel) for tunnel in tunnels or [("-", "-", "-")]]


def _show_name(tunnel: Answer) -> str:
    return f"{tunnel['name']}{'' if tunnel['healthy'] else ' (unhealthy)'}"


def _show_span(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    shown = {"d": days, "h": hours, "m": minutes, "s": seconds}
    return " ".join([f"{number}{unit}" for unit, number in shown.items() if number][:2]) or "0s"
