"""How the program ends, as numbers for scripts.

0    done; also: told to end by SIGTERM, as a supervisor does
1    failed: an address is taken, a demo went wrong, an error in otun itself
2    used wrongly: an unknown option, a bad address, a configuration file with a mistake
3    refused: the server did not accept the registration, or not the rules for visitors, or has ended the tunnel
4    no connection: the server was not reached, or was lost and not found again
5    not trusted: the server's certificate is not the right one
6    the token is refused: it is missing, wrong, expired or revoked
7    taken: the name, host name or port is in use, which may end, or reserved for somebody else
130  interrupted by Ctrl-C (SIGINT)

A server that has ended a tunnel, and says that the same client may come back, counts as one that was lost.  A client
that gives up looking for a lost server ends by what was in the way last.
"""

import signal
from enum import IntEnum

from ..errors import (
    ConfigurationError,
    InvalidName,
    NameTaken,
    RegistrationRefused,
    ServerNotTrusted,
    ServerUnreachable,
    TokenRefused,
    TunnelUnprotected,
)
from ..mux.errors import SessionClosed, TunnelEnded, TunnelLost


class ExitCode(IntEnum):
    """The exit codes; the module's docstring and `otun --help` say what they mean."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    NOT_TRUSTED = 5
    TOKEN_REFUSED = 6
    TAKEN = 7
    INTERRUPTED = 130


# Shown by --help; \b keeps the line breaks.
EPILOG = """\b
Exit codes:
  0    done; also: told to end by SIGTERM
  1    failed, for instance because an address is taken
  2    wrong usage or configuration
  3    refused by the server
  4    server not reached, or lost and not found again
  5    server not trusted: its certificate is not the right one
  6    the token is refused: missing, wrong, expired or revoked
  7    the name or port is in use, or reserved for somebody else
  130  interrupted by Ctrl-C
"""


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the code for what ended the program.  A group has the code that all its errors share, or `FAILED`."""
    match error:
        case BaseExceptionGroup():
            codes = {exit_code_for(inner) for inner in error.exceptions}
            return codes.pop() if len(codes) == 1 else ExitCode.FAILED
        case ConfigurationError() | InvalidName():
            return ExitCode.USAGE
        case TokenRefused():
            return ExitCode.TOKEN_REFUSED
        case NameTaken():
            return ExitCode.TAKEN
        case RegistrationRefused() | TunnelUnprotected():
            return ExitCode.REFUSED
        case TunnelEnded(refusal=refusal) if not refusal.is_retryable:
            return exit_code_for(refusal)
        case TunnelLost(error=problem):
            return exit_code_for(problem)
        case ServerNotTrusted():
            return ExitCode.NOT_TRUSTED
        case ServerUnreachable() | SessionClosed():
            return ExitCode.UNREACHABLE
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.FAILED


def exit_code_for_signal(number: signal.Signals) -> ExitCode:
    """Return the code for a program that ended because of SIGINT or SIGTERM."""
    return ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.DONE
