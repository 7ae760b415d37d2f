"""What tokens look like, and what is kept of them."""

import base64
import hashlib
import hmac
from typing import Final

SECRET_SIZE: Final = 32
"""Random bytes of a token: 256 bits, which nobody guesses."""

PREFIX: Final = "otun_"
"""How tokens begin, so that people and programs that look for leaked secrets recognise one."""


def token_of(secret: bytes) -> str:
    """Return the token that is made of *secret*, which is `SECRET_SIZE` random bytes: `otun_` and 43 characters."""
    if len(secret) != SECRET_SIZE:
        raise ValueError(f"a token is made of {SECRET_SIZE} bytes, not {len(secret)}")
    return PREFIX + base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def hash_token(token: str) -> bytes:
    """Return what is kept of *token*: its SHA-256.

    Slow hashes (argon2, scrypt, bcrypt) make up for passwords that can be guessed: they multiply the price of each
    guess.  There is nothing to guess here: whoever has stolen the hash of 256 random bits would have to try 2**255 of
    them, at any price.  A fast hash, on the other hand, lets the server turn away floods of wrong tokens.

    Any text has a hash, also one that a client has made of lone surrogates.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_same_hash(one: bytes, other: bytes) -> bool:
    """Whether two hashes are equal; the time that it takes does not tell how far they are."""
    return hmac.compare_digest(one, other)
