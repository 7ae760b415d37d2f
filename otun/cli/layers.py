"""Where a setting comes from: a flag, else the environment, else the configuration file."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import attrs

from ..errors import ConfigurationError, InvalidName
from .settings import ConfigFile

_T = TypeVar("_T")

Value: TypeAlias = str | bool | int | float | Sequence[str] | None
"""A setting as a flag or the configuration file gives it; in the environment, the items of a list are lines."""

_SWITCH_WORDS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@attrs.frozen
class Layer:
    """One source of settings, all as text.

    *name_of* tells how the source spells a setting, for messages; relative paths in *values* are meant from *folder*.
    """

    values: Mapping[str, str]
    name_of: Callable[[str], str]
    folder: Path = Path()

    def path(self, setting: str, text: str) -> Path:
        """Return *text*, a value of the setting, as a path.  Raises `ConfigurationError`."""
        if "\0" in text:  # Only TOML can say so.
            raise ConfigurationError(f"{self.name_of(setting)}: {text!r} is no path: it has a NUL in it")
        return self.folder / os.path.expanduser(text)


@attrs.frozen
class Layers:
    """All sources, the strongest first."""

    _layers: tuple[Layer, ...]

    def read(self, setting: str, parse: Callable[[str], _T], *, alias: str | None = None) -> _T | None:
        """Return what *parse* makes of the setting's strongest value; None when no source has one.

        *alias* is another name for the setting.  Raises `ConfigurationError` when one source has different values under
        both.  Such an error from *parse*, or an `InvalidName`, is raised again with the name of the flag, variable or
        key before it.
        """
        for layer in self._layers:
            given = {name: layer.values[name] for name in (setting, alias or setting) if name in layer.values}
            if not given:
                continue
            if len(set(given.values())) > 1:
                raise ConfigurationError(f"{' and '.join(map(layer.name_of, given))} are one setting, but differ")
            name, value = given.popitem()
            try:
                return parse(value)
            except (ConfigurationError, InvalidName) as error:
                # The class is kept: AddressError is told apart from others by callers.
                raise type(error)(f"{layer.name_of(name)}: {error}") from error
        return None

    def read_list(self, setting: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
        """Return what *parse* makes of each of the setting's values, all from the strongest source that has any."""
        return self.read(setting, lambda text: tuple(map(parse, filter(None, text.split("\n"))))) or ()

    def names_of(self, *settings: str) -> list[str]:
        """Return how those sources that have one of *settings* call it."""
        return [layer.name_of(name) for layer in self._layers for name in settings if name in layer.values]

    def strongest_with(self, *settings: str) -> "Layers":
        """Return the strongest source alone that has any of *settings*, for those that stand together."""
        return Layers(tuple([layer for layer in self._layers if not layer.values.keys().isdisjoint(settings)][:1]))

    def read_path(self, setting: str) -> Path | None:
        """Return the setting as a path: `~` expanded, and relative to the configuration file that names it.

        Raises `ConfigurationError`.
        """
        for layer in self._layers:
            if setting in layer.values:
                return layer.path(setting, layer.values[setting])
        return None

    def read_paths(self, setting: str) -> tuple[Path, ...]:
        """Return all of the setting's paths, in the same way."""
        for layer in self._layers:
            if setting in layer.values:
                paths = filter(None, layer.values[setting].split("\n"))
                return tuple(layer.path(setting, path) for path in paths)
        return ()


def open_layers(
    section: Literal["server", "client"],
    flags: Mapping[str, Value],
    environ: Mapping[str, str],
    file: ConfigFile,
) -> Layers:
    """Return the layers for the command that reads the table *section*, `server` or `client`.

    The variable of a setting is `OTUN_` and its name in capitals; an empty one counts as not set.
    """
    table = file.server if section == "server" else file.client
    names = [field.name for field in attrs.fields(type(table))]
    variables = {name: environ[variable_for(name)] for name in names if environ.get(variable_for(name))}
    path = file.path or Path()
    return Layers(
        (
            Layer(as_text(flags), flag_for),
            Layer(variables, variable_for),
            Layer(as_text(attrs.asdict(table)), lambda name: f"{path}: {section}.{name}", path.parent),
        )
    )


def flag_for(setting: str) -> str:
    """Return the setting's flag."""
    return f"--{setting.replace('_', '-')}"


def variable_for(setting: str) -> str:
    """Return the setting's environment variable."""
    return f"OTUN_{setting.upper()}"


def parse_count(text: str) -> int:
    """Read a number of things, at least one.  Raises `ConfigurationError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise ConfigurationError(f"{text!r} is no number from 1 up")
    return int(text)


def parse_port(text: str) -> int:
    """Read a port.  Raises `ConfigurationError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535):
        raise ConfigurationError(f"{text!r} is no port; a port is a number from 1 to 65535")
    return int(text)


def parse_seconds(text: str) -> float:
    """Read a time in seconds, which may have a fraction.  Raises `ConfigurationError`."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not float(text):
        raise ConfigurationError(f"{text!r} is no number of seconds")
    return float(text)


def parse_whole_seconds(text: str) -> int:
    """Read a time in whole seconds.  Raises `ConfigurationError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ConfigurationError(f"{text!r} is no whole number of seconds")
    return int(text)


def parse_switch(text: str) -> bool:
    """Read `true`, `yes`, `on`, `1` or their opposites, in any case.  Raises `ConfigurationError`."""
    try:
        return _SWITCH_WORDS[text.lower()]
    except KeyError:
        raise ConfigurationError(f"{text!r} is neither true nor false") from None


def as_text(values: Mapping[str, Value]) -> dict[str, str]:
    """Return the settings that are given, as text."""
    return {name: _text_of(value) for name, value in values.items() if value is not None and value != ()}


def _text_of(value: Value) -> str:
    match value:
        case str():
            return value
        case list() | tuple():
            return "\n".join(value)
        case _:
            return str(value).lower()
