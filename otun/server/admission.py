"""Who may register what."""

import hmac
import secrets
from collections.abc import Collection, Container

from ..control.messages import Error, Register
from ..control.names import normalize_name, random_name
from ..errors import InvalidName, OtunError


class Refused(OtunError):
    """The registration is refused; *answer* says so to the client."""

    def __init__(self, answer: Error) -> None:
        super().__init__(answer.message)
        self.answer = answer


def admit(request: Register, *, tokens: Collection[str], taken: Container[str]) -> str:
    """Return the name that the client may have.  Raises `Refused`."""
    if tokens and not _is_valid(request.token, tokens):
        needed = "a token is required" if request.token is None else "the token is not valid"
        raise Refused(Error(f"{needed} on this server", code="bad_token"))
    if not request.subdomain:  # Go programs send "" for none.
        return _free_name(taken)
    try:
        name = normalize_name(request.subdomain)
    except InvalidName as error:
        raise Refused(Error(str(error), code="name_invalid")) from error
    if name in taken:
        raise Refused(Error(f"subdomain '{name}' is already in use", code="name_taken", retryable=True))
    return name


def _is_valid(token: str | None, tokens: Collection[str]) -> bool:
    """Compare with every token, so that the time taken tells nothing about which one was nearly right."""
    presented = (token or "").encode()
    matches = [hmac.compare_digest(presented, known.encode()) for known in tokens]
    return any(matches)


def _free_name(taken: Container[str]) -> str:
    while (name := random_name(secrets.choice)) in taken:
        pass
    return name
