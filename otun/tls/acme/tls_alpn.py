"""TLS-ALPN-01 (RFC 8737), which the package `acme` has no class for since its version 5."""

import datetime
import hashlib
import ssl
import tempfile
from typing import Final

from acme import challenges
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from josepy.jwk import JWK

from .challenges import TLS_ALPN_PROTOCOL
from .keys import key_to_pem, new_key

ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")

_DER_OCTETS_32: Final = b"\x04\x20"
"""What DER writes before an OCTET STRING of 32 octets."""


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
    key = new_key()
    subject = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    digest = hashlib.sha256(key_authorization.encode()).digest()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The authority looks neither at the times nor at who has signed.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, _DER_OCTETS_32 + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([TLS_ALPN_PROTOCOL])
    with tempfile.NamedTemporaryFile() as file:
        file.write(key_to_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        file.flush()
        context.load_cert_chain(file.name)
    return context
