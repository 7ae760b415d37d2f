"""The typer application, and how it is run."""

import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Final

import attrs
import typer

from ..errors import OtunError
from .exit_codes import EPILOG, ExitCode
from .failures import report_failure
from .options import ENVIRONMENT_HELP, CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption
from .output import drop_printed


@attrs.frozen
class _Command:
    """A command: a function that is called like it, or several in a `typer.Typer` of that name, in *module*."""

    module: str
    short_help: str = ""

    def add_to(self, app: typer.Typer, name: str) -> None:
        found = getattr(import_module(f".{self.module}", __package__), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found)
        else:
            app.command(short_help=self.short_help, epilog=EPILOG)(found)


_COMMANDS: Final = {
    "server": _Command("server", "Run the server on a public machine."),
    "client": _Command("client", "Open a tunnel to a local service."),
    "http": _Command("client", "Short form: otun http 3000."),
    "tcp": _Command("client", "Short form for raw TCP: otun tcp 22."),
    "tls": _Command("client", "Short form for TLS that ends at the local service: otun tls 8443."),
    "start": _Command("client", "Open the tunnels of the configuration file."),
    "token": _Command("token"),
    "name": _Command("name"),
    "status": _Command("admin", "Say how the server is."),
    "sessions": _Command("admin", "List the clients that are there."),
    "kick": _Command("admin", "End a client's session."),
    "ban": _Command("bans", "Turn a network away."),
    "unban": _Command("bans", "Let a network in again."),
    "bans": _Command("bans", "List the networks that are banned."),
    "audit": _Command("audit", "Show who has changed what."),
    "demo": _Command("demo", "Show a whole tunnel on this machine."),
}


def make_app(names: Iterable[str] = _COMMANDS) -> typer.Typer:
    """Return the application with the commands of these *names*, whose modules are imported."""
    # rich is never imported: it takes longer than everything else together, and it reads markup into what it prints.
    app = typer.Typer(
        name="otun",
        add_completion=False,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=EPILOG, help=f"A self-hosted reverse tunnel.\n\n{ENVIRONMENT_HELP}")(_take_common_flags)
    for name in names:
        _COMMANDS[name].add_to(app, name)
    return app


def _take_common_flags(
    context: typer.Context,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    context.obj = CommonFlags.given(context, config, log_level, verbose)


def run(arguments: list[str] | None) -> int:
    """Run the application with *arguments*, or those of the process; report its errors and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # To import the server for a client, or the other way round, would take longer than what is left.
    wanted = arguments[:1] if arguments and arguments[0] in _COMMANDS else _COMMANDS
    try:
        make_app(wanted)(args=arguments, prog_name="otun")
    except SystemExit as ending:  # how click ends, also when all went well
        return ending.code if isinstance(ending.code, int) else ExitCode.FAILED
    except OSError as error:  # Only click's help comes to this: what commands meet has a name, or comes in a group.
        drop_printed()
        return report_failure(OtunError(f"the output cannot be written: {error.strerror}"))
    except (Exception, BaseExceptionGroup) as error:
        return report_failure(error)
    return ExitCode.DONE
