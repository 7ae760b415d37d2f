"""What the commands have in common that an operator gives on the server's own machine."""

import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Concatenate, ParamSpec, TypeVar

import typer

from ..errors import ConfigurationError
from ..server.admin.people import describe_user
from ..server.database import NoDatabase, open_database
from ..server.records import Actor
from .escaping import escape_text
from .layers import Layers
from .options import CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption, prepare
from .output import complain, open_stdout
from .signals import run_until_signal
from .state import default_state_folder

_P = ParamSpec("_P")
_T = TypeVar("_T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _prepare(
    context: typer.Context,
    state: Annotated[
        str | None, typer.Option(metavar="DIR", help="The server's state folder [default: ~/.local/state/otun].")
    ] = None,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> Layers:
    """Take the options that all of these commands have."""
    return prepare("server", CommonFlags.given(context, config, log_level, verbose), {"state": state})


def operator_command(command: Callable[Concatenate[Layers, _P], Awaitable[None]]) -> Callable[_P, None]:
    """Return for typer what runs *command* on Trio, with the server's settings as its first argument.

    It has the other parameters of *command*, and the options that all commands of an operator have.
    """
    shared = signature(_prepare)
    own = list(signature(command).parameters.values())[1:]

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        given = shared.bind(**{name: kwargs.pop(name) for name in shared.parameters})
        run_until_signal(partial(command, _prepare(*given.args), *args, **kwargs))

    parameters = [one.replace(kind=Parameter.KEYWORD_ONLY) for one in (*own, *shared.parameters.values())]
    vars(run)["__signature__"] = Signature(parameters)  # What typer asks for.
    return run


def actor() -> Actor:
    """Return who gives the command, for the audit."""
    return Actor(describe_user(os.getuid()), "cli")


def state_folder(layers: Layers) -> Path:
    """Return the folder of the server that is meant.  Raises `ConfigurationError`."""
    folder = layers.read_path("state") or default_state_folder(os.environ)
    if folder is None:
        raise ConfigurationError("which server? Give its state folder with --state DIR")
    return folder


def read_flag(parse: Callable[[str], _T], flag: str, text: str) -> _T:
    """Return what *parse* makes of a flag, whose name then stands before what is wrong with it."""
    try:
        return parse(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{flag}: {error}") from error


async def read_if_there(
    folder: Path, query: Callable[Concatenate[sqlite3.Connection, _P], list[_T]], *args: _P.args, **kwargs: _P.kwargs
) -> list[_T]:
    """Return what *query* finds in the database of the state *folder*; as long as there is none, that is nothing."""
    try:
        async with open_database(folder, is_created=False) as database:
            return await database.read(query, *args, **kwargs)
    except NoDatabase as error:
        complain(str(error))
        return []


def write_json(value: object) -> None:
    """Print *value*, as people can read it, too."""
    open_stdout().write_line(json.dumps(value, indent=2))


def write_fields(fields: Mapping[str, str]) -> None:
    """Print what there is to say of one thing, a line for each."""
    output = open_stdout()
    for title, value in fields.items():
        output.write_line(f"{title:<10} {escape_text(value)}")


def write_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print *rows*, if there are any, in columns that are as wide as their widest cell."""
    output = open_stdout()
    lines = [header, *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        output.write_line("  ".join(map(str.ljust, line, widths)).rstrip())
