"""`otun audit`: who has changed what."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import attrs
import typer

from ..server import queries
from ..server.database import NoDatabase, open_database
from ..server.records import AuditEntry
from .escaping import escape_text
from .layers import parse_count
from .operators import JsonOption, StateOption, read_flag, state_folder, write_table
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import complain, open_stdout
from .signals import run_until_signal
from .times import show_time, write_time

_DEFAULT_LINES: Final = 50

LastOption = Annotated[str | None, typer.Option(metavar="N", help=f"How many lines [default: {_DEFAULT_LINES}].")]


def audit(
    context: typer.Context,
    last: LastOption = None,
    as_json: JsonOption = False,
    state: StateOption = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    """Show the last changes: who has made them, when, and from where.  Times are in UTC."""
    layers = prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})
    count = _DEFAULT_LINES if last is None else read_flag(parse_count, "--last", last)
    run_until_signal(partial(_audit, state_folder(layers), count, as_json=as_json))


async def _audit(folder: Path, count: int, *, as_json: bool) -> None:
    entries: list[AuditEntry] = []
    try:
        async with open_database(folder, is_created=False) as database:
            entries = await database.read(queries.audit, count)
    except NoDatabase as error:
        complain(str(error))
    output = open_stdout()
    if as_json:
        output.write_line(json.dumps([{**attrs.asdict(one), "at": write_time(one.at)} for one in entries], indent=2))
    elif entries:
        rows = [tuple(map(escape_text, (show_time(e.at), e.who, e.origin, e.what, e.detail))) for e in entries]
        write_table(output, [("TIME", "WHO", "FROM", "WHAT", "DETAIL"), *rows])
