"""Who may do what, without I/O: what tokens look like, whom they stand for, and what they allow."""

from .grants import EVERYTHING, Grants, NameKind
from .identity import ANONYMOUS, Identity
from .tokens import hash_token, is_same_hash, token_of

__all__ = [
    "ANONYMOUS",
    "EVERYTHING",
    "Grants",
    "Identity",
    "NameKind",
    "hash_token",
    "is_same_hash",
    "token_of",
]
