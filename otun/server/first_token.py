"""The token of a server that nobody has given one: made at its first start, so that it is never open by accident."""

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from ..access import hash_token, token_of
from ..access.tokens import SECRET_SIZE
from ..errors import ConfigurationError
from ..private_files import read_or_make
from . import queries
from .database import Database
from .records import Actor, TokenRecord

FILE_NAME: Final = "first-token"
"""In the state folder, readable for its owner alone: the secret of the token `first`."""

_NAME: Final = "first"
_MAX_SIZE: Final = 1024


async def ensure_token(database: Database, folder: Path) -> None:
    """Make a token that may everything, unless the database has, or had, one.

    Whoever has revoked them all wants nobody to come in.  Raises `ConfigurationError` and `DatabaseError`.
    """
    if await database.read(queries.tokens):
        return
    path = folder / FILE_NAME
    try:
        # The file comes first: a token that nobody knows would be of no use.
        secret = read_or_make(path, lambda: token_of(secrets.token_bytes(SECRET_SIZE)).encode() + b"\n")
    except OSError as error:
        raise ConfigurationError(f"the first token {path}: {error.strerror}") from error
    text = secret.decode("ascii", "replace").strip()
    if not text:
        raise ConfigurationError(f"the first token {path} is empty: remove it to have a new one made")
    token = TokenRecord(name=_NAME, hash=hash_token(text), created=int(time.time()))
    with contextlib.suppress(queries.TokenNameTaken):  # Another process was faster.
        await database.write(queries.create_token, token, Actor("server", f"process {os.getpid()}"))


async def forget_first_token(database: Database, folder: Path) -> None:
    """Remove the file if what it holds is good for nothing: a new database would make it good again.

    Raises `DatabaseError`.
    """
    text = read_first_token(folder)
    if text is not None:
        good = {token.hash for token in await database.read(queries.tokens) if token.revoked is None}
        if hash_token(text) not in good:
            with contextlib.suppress(OSError):
                (folder / FILE_NAME).unlink()


def read_first_token(folder: Path) -> str | None:
    """Return the token that `ensure_token` has made there, if the file is still there and can be read."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            return file.read(_MAX_SIZE).decode("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
