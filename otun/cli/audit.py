"""`otun audit`: who has changed what."""

from typing import Annotated, Final

import attrs
import typer

from ..server import queries
from .escaping import escape_text
from .layers import Layers, parse_count
from .operators import JsonOption, operator_command, read_flag, read_if_there, state_folder, write_json, write_table
from .times import show_time, write_time

_DEFAULT_LINES: Final = 50

LastOption = Annotated[str | None, typer.Option(metavar="N", help=f"How many lines [default: {_DEFAULT_LINES}].")]


@operator_command
async def audit(layers: Layers, last: LastOption = None, as_json: JsonOption = False) -> None:
    """Show the last changes: who has made them, when, and from where.  Times are in UTC."""
    count = _DEFAULT_LINES if last is None else read_flag(parse_count, "--last", last)
    entries = await read_if_there(state_folder(layers), queries.audit, count)
    if as_json:
        write_json([{**attrs.asdict(one), "at": write_time(one.at)} for one in entries])
        return
    rows = [tuple(map(escape_text, (show_time(e.at), e.who, e.origin, e.what, e.detail))) for e in entries]
    write_table(("TIME", "WHO", "FROM", "WHAT", "DETAIL"), rows)
