"""The command line: `otun server`, `client`, `http`, `tcp`, `tls`, `start`, `token` and `demo`.

`python -m otun.cli` is the same.  Nothing is imported here, so that from the first milliseconds on Ctrl-C
ends the program without a traceback.
"""

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line with *arguments*, or those of the process, and return the exit code.

    It takes Ctrl-C over for good: the process ends at once, and in order while a command has something to close.
    """
    try:
        _end_at_sigint()
    except KeyboardInterrupt:
        return 130
    from .app import run

    return run(arguments)


def _end_at_sigint() -> None:
    """Let SIGINT end the process on the spot: nothing is open yet, and an exception could come out anywhere."""
    import os
    import signal

    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
