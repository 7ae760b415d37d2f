"""Log-ins that were right a moment ago: asked for again and again, they are not hashed again."""

import hashlib
from collections import OrderedDict
from typing import Final

import attrs

from .credentials import Credentials

IDLE_LIMIT: Final = 900.0
"""Seconds without a request after which a log-in has to be checked again.

Those who stay are not asked again: nothing could have changed, since the hash is a part of what is remembered, and
they would have to wait in line with those who guess.
"""

MAX_PROVEN: Final = 4096
"""Log-ins that are remembered, of some 300 bytes each.  Only those that were right get here."""


@attrs.define(eq=False)
class Proof:
    """That a log-in was right; *used_at* is when it was last asked for."""

    used_at: float

    def holds(self, now: float) -> bool:
        """Whether it is still worth something at *now*; if so, it is used."""
        if now - self.used_at >= IDLE_LIMIT:
            return False
        self.used_at = max(now, self.used_at)
        return True


class ProvenLogins:
    """What was proven, by keyed hashes (BLAKE2's own MAC): neither passwords nor what would help to guess are kept.

    *key* is 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._proofs: OrderedDict[bytes, Proof] = OrderedDict()  # Those that were looked up last are last.

    def __repr__(self) -> str:
        return f"<ProvenLogins {len(self._proofs)}>"

    def __len__(self) -> int:
        return len(self._proofs)

    def mark_of(self, credentials: Credentials, password_hash: str) -> bytes:
        """Return what stands for *credentials* that are compared with *password_hash*."""
        # Neither a user's name nor a hash has a NUL, so no two triples look the same.
        text = f"{credentials.user}\0{password_hash}\0{credentials.password}".encode()
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def find(self, mark: bytes, now: float) -> Proof | None:
        """Return the proof that *mark* stands for, if there is one that holds."""
        proof = self._proofs.get(mark)
        if proof is None:
            return None
        if not proof.holds(now):
            del self._proofs[mark]
            return None
        self._proofs.move_to_end(mark)
        return proof

    def add(self, mark: bytes, now: float) -> Proof:
        """Remember that *mark* stands for what is right."""
        if len(self._proofs) >= MAX_PROVEN:
            self._proofs.popitem(last=False)
        proof = self._proofs[mark] = Proof(now)
        return proof
