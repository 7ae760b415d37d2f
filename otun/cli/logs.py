"""Logging to stderr: one plain line a record, with nothing in it that a terminal would obey."""

import logging
from typing import Final

from ..errors import ConfigurationError
from .escaping import escape_text

DEFAULT_LEVEL: Final = "info"

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class LineFormatter(logging.Formatter):
    """`2025-11-23 07:30:01 INFO otun.server: text`.

    A record's exception is named on the same line; where *has_tracebacks* its traceback follows on lines of its own.
    """

    def __init__(self, *, has_tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        self._has_tracebacks = has_tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line += f": {type(error).__name__}: {error}"
        line = escape_text(line)
        if record.exc_info and error is not None and self._has_tracebacks:
            traceback = self.formatException(record.exc_info)
            line = "\n".join([line, *(escape_text(text) for text in traceback.split("\n"))])
        return line


def parse_log_level(text: str) -> int:
    """Return the level called *text*, in any case.  Raises `ConfigurationError`."""
    try:
        return _LEVELS[text.lower()]
    except KeyError:
        raise ConfigurationError(f"{text!r} is no log level; choose one of {', '.join(_LEVELS)}") from None


def configure_logging(level: int) -> None:
    """Send the records of *level* and above to stderr, and nowhere else."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(has_tracebacks=level <= logging.DEBUG))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.raiseExceptions = False  # a closed stderr is no reason for tracebacks
