"""What a client does when its server is lost, and when it is told to end itself."""

from typing import Annotated, Final

import attrs
import typer

from .layers import Layers, parse_count, parse_switch
from .times import parse_duration

DEFAULT_DRAIN: Final = 30.0
"""Seconds: the time that supervisors leave between SIGTERM and SIGKILL is often this, or more."""

ReconnectOption = Annotated[
    bool | None,
    typer.Option(
        "--reconnect/--no-reconnect",
        help="Look for a server that is lost until it is back [default], or exit.",
        show_default=False,
    ),
]
MaxRetriesOption = Annotated[
    str | None, typer.Option(metavar="N", help="Attempts to find a lost server before exiting [default: no limit].")
]
DrainOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long visitors may take to finish after SIGTERM, such as 30s, 5m or 0 "
        f"[default: {DEFAULT_DRAIN:.0f}s]; another signal ends them at once.",
    ),
]


@attrs.frozen(kw_only=True)
class Endurance:
    """Whether to look for a lost server, how often in one outage, and how many seconds visitors have at the end."""

    reconnect: bool = True
    max_retries: int | None = None
    drain: float = DEFAULT_DRAIN


def read_endurance(layers: Layers) -> Endurance:
    """Return what *layers* ask for.  Raises `ConfigurationError`."""
    reconnect, drain = layers.read("reconnect", parse_switch), layers.read("drain", parse_duration)
    return Endurance(
        reconnect=True if reconnect is None else reconnect,
        max_retries=layers.read("max_retries", parse_count),
        drain=DEFAULT_DRAIN if drain is None else drain,
    )
