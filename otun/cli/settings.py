"""The configuration file: its tables, where it is looked for, and what is said about mistakes in it."""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import GenericAlias
from typing import Final

import attrs
from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, transform_error

from ..errors import ConfigurationError
from .files import read_file
from .output import warn


@attrs.frozen(kw_only=True)
class ServerTable:
    """The table `[server]`."""

    control: str | None = None
    public: str | None = None
    http: str | None = None
    https: str | None = None
    cert: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    acme: bool | None = None
    acme_directory: str | None = None
    acme_ca: str | None = None
    acme_email: str | None = None
    acme_dns_hook: str | None = None
    redirect: bool | None = None
    hsts: int | None = None
    allow_plaintext: bool | None = None
    client_ca: str | None = None
    domain: str | None = None
    public_url: str | None = None
    tokens_file: str | None = None
    open: bool | None = None
    reservation: str | None = None
    hold: str | None = None
    state: str | None = None
    allow_hostname: tuple[str, ...] = ()
    tcp_ports: str | None = None
    trusted_proxy: tuple[str, ...] = ()
    head_timeout: float | None = None
    idle_timeout: float | None = None
    body_timeout: float | None = None
    response_timeout: float | None = None
    max_connections: int | None = None
    max_streams: int | None = None
    max_requests: int | None = None
    max_bandwidth: str | None = None
    max_daily: str | None = None
    drain: str | None = None
    log_level: str | None = None


@attrs.frozen(kw_only=True)
class TunnelKeys:
    """What `[client]` and `[[tunnel]]` both say of a tunnel."""

    name: str | None = None
    local: str | None = None
    hostname: tuple[str, ...] = ()
    path: str | None = None
    host_header: str | None = None
    request_header: tuple[str, ...] = ()
    response_header: tuple[str, ...] = ()
    remote_port: int | None = None
    group: bool | None = None
    health: str | None = None
    local_ca: str | None = None
    local_insecure: bool | None = None
    proxy_protocol: bool | None = None
    basic_auth: tuple[str, ...] = ()
    basic_auth_file: str | None = None
    allow_ip: tuple[str, ...] = ()
    deny_ip: tuple[str, ...] = ()
    require_header: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ClientTable(TunnelKeys):
    """The table `[client]`."""

    server: str | None = None
    subdomain: str | None = None
    token: str | None = None
    token_file: str | None = None
    plaintext: bool | None = None
    ca: str | None = None
    fingerprint: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None
    reconnect: bool | None = None
    max_retries: int | None = None
    drain: str | None = None
    log_requests: bool | None = None
    log_level: str | None = None


@attrs.frozen(kw_only=True)
class TunnelTable(TunnelKeys):
    """One table `[[tunnel]]`, for `otun start`."""

    kind: str | None = None


@attrs.frozen(kw_only=True)
class ConfigTables:
    """What a configuration file may hold."""

    server: ServerTable = ServerTable()
    client: ClientTable = ClientTable()
    tunnel: tuple[TunnelTable, ...] = ()


@attrs.frozen(kw_only=True)
class ConfigFile(ConfigTables):
    """A configuration file that was read; *path* is None when there is none."""

    path: Path | None = None


_TABLES: Final = (ServerTable, ClientTable, TunnelTable, ConfigTables)

# TOML's own words for what tomllib returns; everything else is one of its date and time types.
_KINDS: Final = {
    bool: "true or false",
    int: "an integer",
    float: "a float",
    str: "a string",
    dict: "a table",
    list: "an array",
}


class _WrongKind(Exception):
    """A value is not of the kind that its key takes."""

    def __init__(self, expected: type, found: object) -> None:
        # The value itself is not shown: it may be a secret in the wrong place.
        super().__init__(f"expected {_KINDS[expected]}, found {_KINDS.get(type(found), 'a date or time')}")


def default_config_path(environ: Mapping[str, str]) -> Path | None:
    """Return `otun/config.toml` in the user's configuration folder, or None for a user without a home."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(folder):  # the specification: a relative path is to be ignored
        folder = os.path.expanduser("~/.config")
    return Path(folder, "otun", "config.toml") if os.path.isabs(folder) else None


def read_config(path: Path | None, environ: Mapping[str, str]) -> ConfigFile:
    """Read the file at *path*, or the default one when *path* is None; a missing default file is an empty one.

    Warns on stderr about a token or a password that others can read.  Raises `ConfigurationError` that names the file
    and the key.
    """
    where = path or default_config_path(environ)
    if where is None:
        return ConfigFile()
    try:
        data, mode = read_file(where)
    except (FileNotFoundError, NotADirectoryError) as error:
        if path is None:
            return ConfigFile()
        raise ConfigurationError(f"configuration file {where}: {error.strerror}") from error
    except OSError as error:
        raise ConfigurationError(f"configuration file {where}: {error.strerror}") from error
    config = parse_config(data, where)
    secret = _secret_in(config)
    if secret is not None and mode & stat.S_IROTH:
        warn(f"{where} holds {secret} and other users can read it; run: chmod o-r {where}")
    return config


def _secret_in(config: ConfigFile) -> str | None:
    if config.client.token is not None:
        return "a token"
    if "@" in (config.client.proxy or ""):
        return "a proxy's password"
    tables: tuple[TunnelKeys, ...] = (config.client, *config.tunnel)
    if any(table.basic_auth for table in tables):
        return "passwords of visitors"
    return (
        "a header that is a secret" if any(":" in text for table in tables for text in table.require_header) else None
    )


def parse_config(data: bytes, path: Path) -> ConfigFile:
    """Read *data* as a configuration file.  Raises `ConfigurationError`."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}: line {line}: not UTF-8 text") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {_locate(str(error), text)}") from error
    except RecursionError:  # Without its traceback, which has a thousand lines.
        raise ConfigurationError(f"{path}: arrays or tables are nested too deeply") from None
    except ValueError as error:  # An integer of more digits than Python converts.
        raise ConfigurationError(f"{path}: a value cannot be read: {error}") from error
    return _structure(tables, path)


def _locate(message: str, text: str) -> str:
    """Put the line first; tomllib names it at the end of its message, except for what the end of the file lacks."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if found is None:
        return message
    line = found[2] or str(len(text.rstrip().splitlines()))
    return f"line {line}: {found[1]}"


def _structure(tables: dict[str, object], path: Path) -> ConfigFile:
    try:
        config = _converter().structure(tables, ConfigTables)
    except BaseValidationError as error:
        mistakes = [_name_key(text) for text in transform_error(error, "", _describe)]
        raise ConfigurationError(f"{path}: {'; '.join(mistakes)}") from error
    return ConfigFile(path=path, server=config.server, client=config.client, tunnel=config.tunnel)


def _converter() -> Converter:
    """Return a converter that takes TOML values as they are: cattrs alone would turn 5 into '5' and 'no' into True."""
    converter = Converter(forbid_extra_keys=True)
    for kind in (str, bool, int):
        converter.register_structure_hook(kind, _expect_exactly(kind))
    converter.register_structure_hook(float, _expect_number)
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _expect_array(converter, str))
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[TunnelTable, ...], _expect_array(converter, TunnelTable)
    )
    for table in _TABLES:  # At last: what is generated here knows the hooks that there are.
        converter.register_structure_hook(table, _expect_table(converter.gen_structure_attrs_fromdict(table)))
    return converter


def _expect_array(converter: Converter, item: type) -> Callable[[object, type], object]:
    items: type[list[object]] = GenericAlias(list, (item,))  # type: ignore[assignment]  # cattrs numbers the mistakes.

    def checked(value: object, _: type) -> object:
        if not isinstance(value, list):
            raise _WrongKind(list, value)
        return tuple(converter.structure(value, items))

    return checked


def _expect_number(value: object, _: type) -> float:
    if type(value) not in (int, float):
        raise _WrongKind(float, value)
    return float(value)  # type: ignore[arg-type]  # checked


def _expect_table(structure: Callable[[Mapping[str, object], type], object]) -> Callable[[object, type], object]:
    def checked(value: object, target: type) -> object:
        if not isinstance(value, dict):
            raise _WrongKind(dict, value)
        return structure(value, target)

    return checked


def _expect_exactly(kind: type) -> Callable[[object, type], object]:
    def checked(value: object, _: type) -> object:
        if type(value) is not kind:
            raise _WrongKind(kind, value)
        return value

    return checked


def _describe(error: BaseException, _: type | None) -> str:
    """Say what is wrong, beginning with what belongs to the key's path; one line for each mistake."""
    if not isinstance(error, ForbiddenExtraKeysError):
        return f": {error}"
    known = [field.name for field in attrs.fields(error.cl)]
    return "\n".join(_describe_unknown(key, known) for key in sorted(error.extra_fields))


def _describe_unknown(key: str, known: list[str]) -> str:
    shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key)
    close = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f".{shown}: unknown key; {hint}"


def _name_key(text: str) -> str:
    """Turn transform_error's `DESCRIPTION @ PATH` round: the key first."""
    description, _, path = text.rpartition(" @ ")
    return "; ".join(f"{path}{line}".removeprefix(".") for line in description.split("\n"))
