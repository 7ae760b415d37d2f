"""TLS-ALPN-01 (RFC 8737), which the package `acme` has no class for since its version 5."""

import hashlib
import ssl
import tempfile
from datetime import timedelta
from typing import Final

from acme import challenges
from cryptography import x509
from josepy.jwk import JWK

from ..keys import self_signed
from .challenges import TLS_ALPN_PROTOCOL

ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")

_DER_OCTETS_32: Final = b"\x04\x20"
"""What DER writes before an OCTET STRING of 32 octets."""

_LIFETIME: Final = timedelta(days=7)


@challenges.Challenge.register
class TLSALPN01(challenges.KeyAuthorizationChallenge):
    """What the authority asks for.  The response is ``{}``, as it is for every kind."""

    response_cls = challenges.KeyAuthorizationChallengeResponse
    typ = "tls-alpn-01"

    def validation(self, account_key: JWK, **kwargs: object) -> str:
        """Return the key authorization, whose digest stands in the certificate."""
        return self.key_authorization(account_key)


def challenge_context(name: str, key_authorization: str) -> ssl.SSLContext:
    """Return a context that answers a handshake for *name* as RFC 8737, section 3, asks.

    The certificate goes through a temporary file, which `ssl` insists on.
    """
    digest = hashlib.sha256(key_authorization.encode()).digest()
    proof = x509.UnrecognizedExtension(ACME_IDENTIFIER, _DER_OCTETS_32 + digest)
    # The authority looks neither at the times nor at who has signed.
    pem = self_signed(name, proof, subject=x509.Name([]), lifetime=_LIFETIME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([TLS_ALPN_PROTOCOL])
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context
