"""What the program writes for people and scripts: lines on stdout, complaints on stderr."""

import contextlib
import os
import sys

import attrs

from .escaping import escape_text


@attrs.define(eq=False)
class Output:
    """Lines on a file descriptor, each written at once.

    When whoever read them has gone (a closed pipe, a full disk), this and all later lines are dropped: a tunnel does
    not end because nobody looks at its output.  The descriptor is written directly rather than through `sys.stdout`,
    because a thread that is stuck in a buffered write makes the interpreter abort when it exits.
    """

    descriptor: int
    is_terminal: bool
    _encoding: str = "utf-8"
    _is_gone: bool = False

    def write_line(self, line: str) -> None:
        """Write one line; waits as long as the reader makes it wait."""
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        while data and not self._is_gone:
            try:
                data = data[os.write(self.descriptor, data) :]
            except OSError:
                self._is_gone = True


def drop_printed() -> None:
    """Let what was printed and could not be written go nowhere: Python would try again as it ends, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_stdout() -> Output:
    """Return the process's standard output; a closed one swallows what is written."""
    try:
        descriptor = sys.__stdout__.fileno() if sys.__stdout__ is not None else -1
    except ValueError:
        descriptor = -1
    encoding = sys.__stdout__.encoding if sys.__stdout__ is not None else "utf-8"
    return Output(descriptor, is_terminal=descriptor >= 0 and os.isatty(descriptor), encoding=encoding)


def complain(text: str) -> None:
    """Write `otun: TEXT` to stderr as one line; a closed one swallows it."""
    if sys.stderr is None:  # print() would take None for stdout
        return
    with contextlib.suppress(OSError):
        print(f"otun: {escape_text(text)}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Write `otun: warning: TEXT` to stderr as one line, whatever the log level."""
    complain(f"warning: {text}")
