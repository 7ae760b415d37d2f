"""What every command understands: `--config`, `--log-level`, `-v`, `--version`; and how a command gets its settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import attrs
import typer

from .. import __version__
from .layers import Layers, Value, open_layers
from .logs import DEFAULT_LEVEL, configure_logging, parse_log_level
from .output import open_stdout
from .settings import ConfigFile, read_config


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        open_stdout().write_line(f"otun {__version__}")
        raise typer.Exit


ConfigOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="Configuration file, instead of ~/.config/otun/config.toml."),
]
LogLevelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--log-level", metavar="LEVEL", help="What to log on stderr: debug, info, warning or error [default: info]."
    ),
]
VerboseOption: TypeAlias = Annotated[
    bool, typer.Option("-v", "--verbose", help="The same as --log-level debug; also shows tracebacks.")
]
VersionOption: TypeAlias = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]

ENVIRONMENT_HELP: Final = (
    "An option that is not given is taken from the environment (--public-url from OTUN_PUBLIC_URL, and so on), "
    "else from the configuration file."
)


@attrs.frozen
class CommonFlags:
    """The flags of every command, as they were given."""

    config: str | None = None
    log_level: str | None = None

    @classmethod
    def given(cls, context: typer.Context, config: str | None, log_level: str | None, verbose: bool) -> "CommonFlags":
        """Return the command's own flags, completed by those that stood before the command's name."""
        outer = context.find_object(CommonFlags) or CommonFlags()
        level = "debug" if verbose else log_level
        return cls(outer.config if config is None else config, outer.log_level if level is None else level)


def prepare(section: Literal["server", "client"], common: CommonFlags, flags: Mapping[str, Value]) -> Layers:
    """Read the settings for a command and set up logging as they say.  Raises `ConfigurationError`."""
    return prepare_with_file(section, common, flags)[0]


def prepare_with_file(
    section: Literal["server", "client"], common: CommonFlags, flags: Mapping[str, Value]
) -> tuple[Layers, ConfigFile]:
    """Do what `prepare` does, and return the configuration file, too."""
    set_up_logging(common)  # for what happens until the settings are known
    layers, file = read_layers(section, common, flags)
    configure_logging(read_log_level(layers))
    return layers, file


def read_layers(
    section: Literal["server", "client"], common: CommonFlags, flags: Mapping[str, Value]
) -> tuple[Layers, ConfigFile]:
    """Read the settings for a command, and return the configuration file, too.  Raises `ConfigurationError`."""
    file = find_config(common)
    return open_layers(section, {**flags, "log_level": common.log_level}, os.environ, file), file


def flags_of(context: typer.Context) -> dict[str, Value]:
    """Return what was given for a command's own parameters, by name: those of every command are left out.

    So a command declares its parameters for typer, and does not list them again.
    """
    common = {"config", "log_level", "verbose", "version"}
    return {name: value for name, value in context.params.items() if name not in common}


def find_config(common: CommonFlags) -> ConfigFile:
    """Read the configuration file that is asked for, or the default one.  Raises `ConfigurationError`."""
    path = common.config or os.environ.get("OTUN_CONFIG")
    return read_config(Path(path) if path else None, os.environ)


def set_up_logging(common: CommonFlags) -> None:
    """Set up logging as *common* and the environment say, without a configuration file.

    Raises `ConfigurationError`.
    """
    layers = open_layers("client", {"log_level": common.log_level}, os.environ, ConfigFile())
    configure_logging(read_log_level(layers))


def read_log_level(layers: Layers) -> int:
    """Return the level that is asked for, or the usual one.  Raises `ConfigurationError`."""
    return layers.read("log_level", parse_log_level) or parse_log_level(DEFAULT_LEVEL)
