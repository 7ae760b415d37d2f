"""The typer application, and how it is run."""

import typer

from ..errors import OtunError
from .admin import kick, sessions, status
from .audit import audit
from .bans import ban, bans, unban
from .client import client, http, start, tcp, tls
from .demo import demo
from .exit_codes import EPILOG, ExitCode
from .failures import report_failure
from .name import name
from .options import ENVIRONMENT_HELP, CommonFlags, ConfigOption, LogLevelOption, VerboseOption, VersionOption
from .output import drop_printed
from .server import server
from .token import token

# rich is never imported: it takes longer than everything else together, and it reads markup into what it prints.
app: typer.Typer = typer.Typer(
    name="otun",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=EPILOG, help=f"A self-hosted reverse tunnel.\n\n{ENVIRONMENT_HELP}")
def _take_common_flags(
    context: typer.Context,
    config: ConfigOption = None,
    log_level: LogLevelOption = None,
    verbose: VerboseOption = False,
    version: VersionOption = False,
) -> None:
    context.obj = CommonFlags.given(context, config, log_level, verbose)


app.command(short_help="Run the server on a public machine.", epilog=EPILOG)(server)
app.command(short_help="Open a tunnel to a local service.", epilog=EPILOG)(client)
app.command(short_help="Short form: otun http 3000.", epilog=EPILOG)(http)
app.command(short_help="Short form for raw TCP: otun tcp 22.", epilog=EPILOG)(tcp)
app.command(short_help="Short form for TLS that ends at the local service: otun tls 8443.", epilog=EPILOG)(tls)
app.command(short_help="Open the tunnels of the configuration file.", epilog=EPILOG)(start)
app.add_typer(token)
app.add_typer(name)
app.command(short_help="Say how the server is.", epilog=EPILOG)(status)
app.command(short_help="List the clients that are there.", epilog=EPILOG)(sessions)
app.command(short_help="End a client's session.", epilog=EPILOG)(kick)
app.command(short_help="Turn a network away.", epilog=EPILOG)(ban)
app.command(short_help="Let a network in again.", epilog=EPILOG)(unban)
app.command(short_help="List the networks that are banned.", epilog=EPILOG)(bans)
app.command(short_help="Show who has changed what.", epilog=EPILOG)(audit)
app.command(short_help="Show a whole tunnel on this machine.", epilog=EPILOG)(demo)


def run(arguments: list[str] | None) -> int:
    """Run the application with *arguments*, or those of the process; report its errors and return the exit code."""
    try:
        app(args=arguments, prog_name="otun")
    except SystemExit as ending:  # how click ends, also when all went well
        return ending.code if isinstance(ending.code, int) else ExitCode.FAILED
    except OSError as error:  # Only click's help comes to this: what commands meet has a name, or comes in a group.
        drop_printed()
        return report_failure(OtunError(f"the output cannot be written: {error.strerror}"))
    except (Exception, BaseExceptionGroup) as error:
        return report_failure(error)
    return ExitCode.DONE
