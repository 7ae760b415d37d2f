"""Errors as the user of the command line sees them: one line, and a traceback only for those who asked."""

import logging
import traceback

from ..errors import OtunError, RegistrationRefused
from ..mux.errors import TunnelEnded
from .exit_codes import ExitCode, exit_code_for
from .output import complain
from .refusals import describe_refusal

# More errors than this at once tell a person nothing new.
_SHOWN_ERRORS = 3


def report_failure(error: BaseException) -> ExitCode:
    """Write what went wrong to stderr and return the exit code for it."""
    leaves = flatten(error)
    shown = [_describe(leaf) for leaf in leaves[:_SHOWN_ERRORS]]
    if len(leaves) > _SHOWN_ERRORS:
        shown.append(f"and {len(leaves) - _SHOWN_ERRORS} more errors")
    is_a_surprise = not all(isinstance(leaf, OtunError) for leaf in leaves)
    if is_a_surprise and logging.getLogger().isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    elif is_a_surprise:
        shown.append("this is a mistake in otun; -v shows where")
    complain("; ".join(dict.fromkeys(shown)))
    return exit_code_for(error)


def flatten(error: BaseException) -> list[BaseException]:
    """Return the errors that *error* stands for: itself, or those inside a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in flatten(inner)]
    return [error]


def _describe(error: BaseException) -> str:
    if isinstance(error, RegistrationRefused | TunnelEnded):
        return describe_refusal(error)
    if isinstance(error, OtunError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}" if str(error) else f"unexpected {type(error).__name__}"
