"""Fingerprints of certificates: SHA-256 of a certificate in DER, written `sha256:` and 64 hexadecimal digits."""

import hashlib
import hmac
import re

import attrs

from ..errors import ConfigurationError

_FINGERPRINT = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


@attrs.frozen
class Fingerprint:
    """The SHA-256 of a certificate."""

    digest: bytes

    @classmethod
    def of(cls, certificate: bytes) -> "Fingerprint":
        """Return that of a certificate in DER."""
        return cls(hashlib.sha256(certificate).digest())

    @classmethod
    def parse(cls, text: str) -> "Fingerprint":
        """Read `sha256:` and hexadecimal digits, also with colons, as openssl writes them.

        Raises `ConfigurationError`.
        """
        match = _FINGERPRINT.fullmatch(text.strip())
        if match is None:
            raise ConfigurationError(
                f"{text!r} is no fingerprint; write sha256: and the 64 hexadecimal digits that the server prints"
            )
        return cls(bytes.fromhex(match[1].replace(":", "")))

    def __str__(self) -> str:
        return f"sha256:{self.digest.hex()}"

    def matches(self, certificate: bytes | None) -> bool:
        """Whether it is that of *certificate*, in DER."""
        return certificate is not None and hmac.compare_digest(self.digest, Fingerprint.of(certificate).digest)
