"""Who may do what, and how often, without I/O and without a clock: tokens, grants, log-ins, addresses, rates."""

from .grants import EVERYTHING, Grants, NameKind
from .identity import ANONYMOUS, Identity
from .limits import NO_LIMITS, UNLIMITED, Limits, Quota
from .tokens import hash_token, is_same_hash, token_of

__all__ = [
    "ANONYMOUS",
    "EVERYTHING",
    "NO_LIMITS",
    "UNLIMITED",
    "Grants",
    "Identity",
    "Limits",
    "NameKind",
    "Quota",
    "hash_token",
    "is_same_hash",
    "token_of",
]
