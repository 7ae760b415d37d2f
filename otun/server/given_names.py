"""Names for clients that choose none: each gets the same ones again."""

import hmac
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..control.names import random_name
from .secret_keys import secret_key

NAMES_OF_ONE: Final = 64
"""Names that one client gets again: as many as a session has tunnels.  Further ones are new each time."""

RANDOM_NAMES: Final = 64
"""Those to try then.  There are billions of them: that all are taken does not happen."""


class GivenNames:
    """Works names out of who asks, and of a secret, so that nobody else can.

    So a client that comes back is found where it was, and certificates for names do not use up an authority's limits.
    The secret is kept in the state *folder*; without one, names are the same for as long as the server runs.  Raises
    `ConfigurationError`.
    """

    def __init__(self, folder: Path | None) -> None:
        self._secret = secret_key(folder, "names.key", "names")

    def candidates(self, client: str) -> Iterator[str]:
        """Return the names of a client, the first choice first, and then some that are anybody's."""
        for number in range(NAMES_OF_ONE):
            yield self._name(client, number)
        for _ in range(RANDOM_NAMES):
            yield random_name(secrets.choice)

    def _name(self, client: str, number: int) -> str:
        values = iter(hmac.digest(self._secret, f"{number}\n{client}".encode(), "sha256"))
        return random_name(lambda letters: letters[next(values) % len(letters)])
