"""Keys, requests and certificates, by the package `cryptography`."""

from typing import Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

MAX_CHAIN: Final = 10
"""Certificates in a chain: authorities send two to four."""

Key = ec.EllipticCurvePrivateKey


@attrs.frozen(kw_only=True)
class Certificate:
    """A key and its certificate chain as one PEM text, and the times between which the first certificate is valid."""

    pem: bytes
    not_before: float
    not_after: float


def new_key() -> Key:
    """Return a new key on P-256, which every authority and every browser takes."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: Key) -> bytes:
    """Return *key* as unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> Key:
    """Return the first key of *pem*.  Raises `ValueError` when there is none on P-256."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a key on P-256")
    return key


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
    if name not in _names_of(first):
        raise ValueError("the certificate is for another name")
    # Written anew, so that nothing but certificates gets into the file.
    texts = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates]
    return Certificate(
        pem=key_to_pem(key) + b"".join(texts),
        not_before=first.not_valid_before_utc.timestamp(),
        not_after=first.not_valid_after_utc.timestamp(),
    )


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.value.get_values_for_type(x509.DNSName)]
