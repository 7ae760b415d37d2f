"""What the commands have in common that an operator gives on the server's own machine."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ..errors import ConfigurationError
from ..server.admin.people import describe_user
from ..server.records import Actor
from .layers import Layers
from .output import Output
from .state import default_state_folder

_T = TypeVar("_T")

StateOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="The server's state folder [default: ~/.local/state/otun].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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


def write_table(output: Output, rows: Sequence[tuple[str, ...]]) -> None:
    """Write *rows* in columns that are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        output.write_line("  ".join(map(str.ljust, row, widths)).rstrip())
