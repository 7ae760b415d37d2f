"""Keys, and certificates that they sign themselves, by the package `cryptography`, which takes a while to import."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Key = ec.EllipticCurvePrivateKey


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


def self_signed(name: str, extension: x509.ExtensionType, *, subject: x509.Name, lifetime: timedelta) -> bytes:
    """Return a new key and the certificate for *name* that it has signed itself, as one PEM text.

    It is valid since yesterday, and *extension* is critical; the alternative name is where the *subject* is empty (RFC
    5280, section 4.2.1.6).
    """
    key = new_key()
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=len(subject) == 0)
        .add_extension(extension, critical=True)
        .sign(key, hashes.SHA256())
    )
    return key_to_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


def dns_names(certificate: x509.Certificate) -> frozenset[str]:
    """Return the host names that *certificate* is for, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in found.get_values_for_type(x509.DNSName))
