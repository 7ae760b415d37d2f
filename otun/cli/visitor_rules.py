"""Who may visit a tunnel: the options for it, and the file with users and passwords."""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, TypedDict

import typer

from ..access.passwords import check_login, check_logins
from ..access.rules import check_networks, check_required
from ..client import TunnelKind
from ..control.messages import PROTECTIONS
from ..errors import ConfigurationError
from .files import read_file
from .layers import Layers, flag_for, variable_for
from .output import warn

BasicAuthOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="USER:PASSWORD",
        help="Visitors must log in as one of these users; repeatable. Other users of this machine see it in the "
        "process list: OTUN_BASIC_AUTH or --basic-auth-file keep it to yourself. USER:$argon2id$... is a hash.",
    ),
]
BasicAuthFileOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="The same from a file, USER:PASSWORD a line; # begins a comment.")
]
AllowIpOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK", help="Only visitors from there, an address or a network such as 10.0.0.0/8; repeatable."
    ),
]
DenyIpOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NETWORK", help="No visitors from there, even if they are allowed; repeatable."),
]
RequireHeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'NAME[: VALUE]'",
        help="Only requests with this header; repeatable. A VALUE is a secret, and not passed on: OTUN_REQUIRE_HEADER "
        "or the configuration file keep it out of the process list.",
    ),
]

VISITOR_SETTINGS: Final = (*PROTECTIONS, "basic_auth_file")
"""The settings of this module."""


class VisitorRuleSettings(TypedDict):
    """What `otun.TunnelSettings` is told of visitors."""

    basic_auth: tuple[str, ...]
    allow_ip: tuple[str, ...]
    deny_ip: tuple[str, ...]
    require_header: tuple[str, ...]


def read_visitor_rules(layers: Layers, kind: TunnelKind) -> VisitorRuleSettings:
    """Return what *layers* demand of visitors.  Raises `ConfigurationError`, whose text shows no password.

    What a tunnel of this *kind* cannot see to is an error, since it would be open otherwise.
    """
    unfit = [] if kind == "http" else layers.names_of("basic_auth", "basic_auth_file", "require_header")
    if unfit:
        raise ConfigurationError(
            f"{unfit[0]}: a {kind.upper()} tunnel can only look at visitors' addresses: it has no log-in and no headers"
        )
    return {
        "basic_auth": _read_logins(layers),
        "allow_ip": _read_list(layers, "allow_ip", _check_network),
        "deny_ip": _read_list(layers, "deny_ip", _check_network),
        "require_header": _read_list(layers, "require_header", _check_required),
    }


def _read_list(layers: Layers, setting: str, check: Callable[[str], str]) -> tuple[str, ...]:
    """Return the setting's values; one that is given without any is an error: a variable of the shell's was empty."""
    values = layers.read_list(setting, check)
    given = layers.names_of(setting)
    if given and not values:
        raise ConfigurationError(f"{given[0]}: this is empty, and everybody could visit")
    return values


def _read_logins(layers: Layers) -> tuple[str, ...]:
    """Return users and passwords: those of the strongest source that has any, as they are and from a file."""
    source = layers.strongest_with("basic_auth", "basic_auth_file")
    logins = _read_list(source, "basic_auth", check_login)
    if flag_for("basic_auth") in source.names_of("basic_auth") and any(":$argon2id$" not in login for login in logins):
        warn(
            "other users of this machine see the password of --basic-auth in the process list; OTUN_BASIC_AUTH and "
            "--basic-auth-file keep it to yourself"
        )
    path = source.read_path("basic_auth_file")
    return check_logins(logins if path is None else logins + read_logins_file(path))


def read_logins_file(path: Path) -> tuple[str, ...]:
    """Read a file with one log-in a line; blank lines and lines that begin with # are skipped.

    A file without any is an error rather than a tunnel that everybody may visit.  Warns on stderr when other users can
    read it.  Raises `ConfigurationError`.
    """
    try:
        data, mode = read_file(path)
    except OSError as error:
        raise ConfigurationError(f"file of log-ins {path}: {error.strerror}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"file of log-ins {path}: line {line}: not UTF-8 text") from None
    logins = []
    for number, whole_line in enumerate(text.split("\n"), start=1):
        login = whole_line.removesuffix("\r")
        if not login.strip() or login.startswith("#"):
            continue
        try:
            logins.append(check_login(login))
        except ConfigurationError as error:
            raise ConfigurationError(f"file of log-ins {path}: line {number}: {error}") from error
    if not logins:
        raise ConfigurationError(f"file of log-ins {path} holds none: everybody could visit")
    if mode & stat.S_IROTH:
        warn(f"other users can read the passwords in {path}; run: chmod o-r {path}")
    return tuple(logins)


def refuse_empty_rules(environ: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` if a variable that should say who may visit is set and says nothing.

    Others count as not set then; but a tunnel must not be open because a password was not found.
    """
    for name in map(variable_for, VISITOR_SETTINGS):
        if environ.get(name, "-").strip() == "":
            raise ConfigurationError(f"{name} is set but empty: everybody could visit")


def refuse_unused_rules(layers: Layers) -> None:
    """Raise `ConfigurationError` if *layers*, which have no part in the tunnels of `[[tunnel]]`, demand something.

    Those who wrote it there believe that these tunnels are protected.
    """
    unused = layers.names_of(*VISITOR_SETTINGS)
    if unused:
        raise ConfigurationError(
            f"{unused[0]}: this has no effect on the tunnels in [[tunnel]] tables: say in each of them who may visit it"
        )


def _check_network(text: str) -> str:
    (checked,) = check_networks((text,))
    return checked


def _check_required(text: str) -> str:
    (checked,) = check_required((text,))
    return checked
