"""Keys that the server makes for itself, and keeps."""

import secrets
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from ..private_files import read_or_make

_SIZE: Final = 32


def secret_key(folder: Path | None, file_name: str, purpose: str) -> bytes:
    """Return the key in that file of the state *folder*, made when there is none; without a folder, it is a new one.

    Raises `ConfigurationError`, which says that it is the key for *purpose*.
    """
    if folder is None:
        return secrets.token_bytes(_SIZE)
    path = folder / file_name
    try:
        key = read_or_make(path, lambda: secrets.token_bytes(_SIZE))
    except OSError as error:
        raise ConfigurationError(f"the key for {purpose} {path}: {error.strerror}") from error
    if len(key) != _SIZE:
        raise ConfigurationError(f"the key for {purpose} {path} is damaged: remove it to have a new one made")
    return key
