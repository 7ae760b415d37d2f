"""Why a server refuses: the codes of its `Error`, as exceptions."""

from typing import Final

from ..errors import InvalidRegistration, NameTaken, NotAllowed, RegistrationRefused, TokenRefused
from .messages import Error

REFUSALS: Final[dict[str, type[RegistrationRefused]]] = {
    **dict.fromkeys(("bad_token", "expired_token", "token_revoked"), TokenRefused),
    **dict.fromkeys(("name_taken", "port_taken", "no_port_free"), NameTaken),
    **dict.fromkeys(("name_not_allowed", "hostname_not_allowed", "port_not_allowed", "kind_unknown"), NotAllowed),
    **dict.fromkeys(("too_many_tunnels", "tls_required", "banned"), NotAllowed),
    **dict.fromkeys(("name_invalid", "hostname_invalid", "path_invalid", "header_invalid"), InvalidRegistration),
    **dict.fromkeys(("protection_invalid", "id_invalid", "bad_message", "group_mismatch"), InvalidRegistration),
}
"""The class for each code that has one; the others are a plain `RegistrationRefused`."""


def refusal_of(error: Error) -> RegistrationRefused:
    """Return *error* as an exception."""
    refusal = REFUSALS.get(error.code, RegistrationRefused)
    return refusal(error.message, code=error.code, is_retryable=error.retryable)
