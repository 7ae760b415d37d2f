"""The server's state folder: where it is when nobody says so."""

import os
from collections.abc import Mapping
from pathlib import Path


def default_state_folder(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that systemd gives a service (StateDirectory=), or `otun` in the user's; None without a home.

    The latter as the XDG Base Directory Specification says.
    """
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if os.path.isabs(given):
        return Path(given)
    folder = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(folder):
        folder = os.path.expanduser("~/.local/state")
    return Path(folder, "otun") if os.path.isabs(folder) else None
