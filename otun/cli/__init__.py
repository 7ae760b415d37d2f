"""The command line: `otun server`, `otun client`, `otun http`, `otun demo`; `python -m otun.cli` is the same."""

from collections.abc import Sequence

from .exit_codes import ExitCode

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with *arguments*, or those of the process, and return the exit code."""
    try:
        from .app import run  # here, so that Ctrl-C during the import is no traceback

        return run(arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
