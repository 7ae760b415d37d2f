"""What is asked of an authority, and what comes of it."""

from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from ..keys import Key, dns_names, key_from_pem, key_to_pem

MAX_CHAIN: Final = 10
"""Certificates in a chain: authorities send two to four."""


@attrs.frozen(kw_only=True)
class Certificate:
    """A key and its certificate chain as one PEM text, and the times between which the first certificate is valid."""

    pem: bytes
    not_before: float
    not_after: float


def request_for(name: str, key: Key) -> x509.CertificateSigningRequest:
    """Return a request for a certificate for *name*, which has no subject: only the alternative name counts."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256())


def read_certificate(name: str, pem: bytes) -> Certificate:
    """Return what *pem*, a key and a chain, holds.  Raises `ValueError` unless it is for *name*, and the key fits."""
    return join(name, key_from_pem(pem), pem)


def join(name: str, key: Key, chain: bytes) -> Certificate:
    """Put *key* and the certificates in *chain* together.  Raises `ValueError` unless these fit, and are for *name*."""
    certificates = x509.load_pem_x509_certificates(chain)
    if len(certificates) > MAX_CHAIN:
        raise ValueError(f"a chain of {len(certificates)} certificates")
    first = certificates[0]
    if first.public_key() != key.public_key():
        raise ValueError("the certificate is for another key")
    if name not in dns_names(first):
        raise ValueError("the certificate is for another name")
    # Written anew, so that nothing but certificates gets into the file.
    texts = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates]
    return Certificate(
        pem=key_to_pem(key) + b"".join(texts),
        not_before=first.not_valid_before_utc.timestamp(),
        not_after=first.not_valid_after_utc.timestamp(),
    )
