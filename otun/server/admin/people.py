"""The users of this machine."""

import pwd


def describe_user(uid: int) -> str:
    """Return whom the audit names: `ann (uid 1000)`.  May wait for a directory service."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
