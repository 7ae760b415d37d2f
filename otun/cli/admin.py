"""`otun status`, `otun sessions` and `otun kick`: what goes on in a running server."""

from typing import Annotated, Final

import typer

from .escaping import escape_text
from .layers import Layers
from .operators import JsonOption, operator_command, state_folder, write_fields, write_json, write_table
from .output import complain, warn
from .running_server import Answer, ask, ask_for_all, rows_of
from .times import show_time, write_time

_MAX_CELL: Final = 60
"""Characters of a URL in the table; JSON has all of them."""

WhoArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A tunnel's name, a host name, a TCP tunnel's port, or a session's number as in '#7'."
    ),
]


@operator_command
async def status(layers: Layers, as_json: JsonOption = False) -> None:
    """Say how the server is that runs with the state folder."""
    answer = await ask(state_folder(layers), "status")
    del answer["ok"]
    if as_json:
        write_json(answer)
        return
    database = answer["database"]
    fields = {
        **answer,
        "uptime": _show_span(int(str(answer["uptime"]))),
        "open": "yes: nobody needs a token" if answer["open"] else "no",
        "draining": "yes: it is about to end" if answer["draining"] else "no",
        "database": "sound" if database is None else f"in trouble: {database}",
    }
    write_fields({title: _show(value) for title, value in fields.items()})


@operator_command
async def sessions(layers: Layers, as_json: JsonOption = False) -> None:
    """List the clients that are there, with a line for each of their tunnels.  Times are in UTC."""
    _write_sessions(await ask_for_all(state_folder(layers), "sessions", "number"), as_json=as_json)


@operator_command
async def kick(layers: Layers, name: WhoArgument, as_json: JsonOption = False) -> None:
    """End a client's session, with all its tunnels, and say which.  The client can come again: see 'otun ban'."""
    answer = await ask(state_folder(layers), "kick", who=name)
    _write_sessions(rows_of(answer, "sessions"), as_json=as_json)
    if not as_json:
        complain("ended; the client is told so, and can come again unless its token is revoked or its network banned")
    if not answer["recorded"]:
        warn("the audit has no line for this: see the database in 'otun status'")


def _write_sessions(found: list[Answer], *, as_json: bool) -> None:
    if as_json:
        write_json([{**one, "since": write_time(int(str(one["since"])))} for one in found])
        return
    header = ("SESSION", "IDENTITY", "ADDRESS", "SINCE", "SILENT", "TUNNEL", "URL", "VISITORS")
    write_table(header, [row for one in found for row in _rows(one)])


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


def _show(value: object) -> str:
    return ", ".join(map(str, value)) or "-" if isinstance(value, list) else str(value)


def _show_name(tunnel: Answer) -> str:
    return f"{tunnel['name']}{'' if tunnel['healthy'] else ' (unhealthy)'}"


def _show_span(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    shown = {"d": days, "h": hours, "m": minutes, "s": seconds}
    return " ".join([f"{number}{unit}" for unit, number in shown.items() if number][:2]) or "0s"
