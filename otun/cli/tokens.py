"""Tokens: what a client shows the server to be let in."""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from .files import read_file
from .output import warn

TOKENS_VARIABLE: Final = "OTUN_TOKENS"

MAX_TOKEN_FILE_SIZE: Final = 16 * 1024
"""Bytes of a client's token file: a registration of 64 KiB has room for such a token."""

_TOKEN = re.compile(r"[!-~]+")
_MAX_TOKEN_LENGTH: Final = 16_384  # A registration of 64 KiB has room for it.


def check_token(text: str) -> str:
    """Return *text* if it can be a token.  Raises `ConfigurationError`, whose message does not repeat it."""
    if not _TOKEN.fullmatch(text):
        raise ConfigurationError("a token is one or more printable ASCII characters without spaces")
    if len(text) > _MAX_TOKEN_LENGTH:
        raise ConfigurationError(f"a token has at most {_MAX_TOKEN_LENGTH} characters, and this one has {len(text)}")
    return text


def read_token_file(path: Path) -> str:
    """Read a client's file with one token, whatever white space is around it.

    Warns on stderr when other users can read the file.  Raises `ConfigurationError`, whose message does not show what
    the file holds.
    """
    try:
        data, mode = read_file(path, max_size=MAX_TOKEN_FILE_SIZE)
    except OSError as error:
        raise ConfigurationError(f"token file {path}: {error.strerror}") from error
    words = [word.decode("ascii", "replace") for word in data.split()]
    if not words:
        raise ConfigurationError(f"token file {path} holds no token")
    try:
        token, *others = map(check_token, words)
    except ConfigurationError as error:
        raise ConfigurationError(f"token file {path}: {error}") from error
    if others:
        raise ConfigurationError(f"token file {path} holds more than one token: a client has one")
    _warn_of_readers("token", path, mode)
    return token


def read_tokens_file(path: Path) -> frozenset[str]:
    """Read a file with one token a line; blank lines and lines that begin with # are skipped.

    A file without any token is an error rather than a server that everybody may use.  Warns on stderr when other users
    can read the file.  Raises `ConfigurationError`.
    """
    try:
        data, mode = read_file(path)
    except OSError as error:
        raise ConfigurationError(f"tokens file {path}: {error.strerror}") from error
    tokens = set()
    for number, line in enumerate(data.splitlines(), start=1):
        text = line.decode("ascii", "replace").strip()
        if not text or text.startswith("#"):
            continue
        try:
            tokens.add(check_token(text))
        except ConfigurationError as error:
            raise ConfigurationError(f"tokens file {path}: line {number}: {error}") from error
    if not tokens:
        raise ConfigurationError(f"tokens file {path} holds no token: everybody could open tunnels")
    _warn_of_readers("tokens", path, mode)
    return frozenset(tokens)


def _warn_of_readers(what: str, path: Path, mode: int) -> None:
    if mode & stat.S_IROTH:
        warn(f"other users can read the {what} in {path}; run: chmod o-r {path}")


def tokens_from_environment(environ: Mapping[str, str]) -> frozenset[str]:
    """Read `OTUN_TOKENS`: tokens separated by spaces, line ends or commas.

    A variable that is set and holds no token is an error, for the reason that an empty file is one.  Raises
    `ConfigurationError`.
    """
    text = environ.get(TOKENS_VARIABLE)
    if text is None:
        return frozenset()
    tokens = [word for word in re.split(r"[\s,]+", text) if word]
    if not tokens:
        raise ConfigurationError(f"{TOKENS_VARIABLE} is set but holds no token: everybody could open tunnels")
    try:
        return frozenset(map(check_token, tokens))
    except ConfigurationError as error:
        raise ConfigurationError(f"{TOKENS_VARIABLE}: {error}") from error
