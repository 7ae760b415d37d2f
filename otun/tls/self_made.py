"""The certificate that a server makes itself: clients know it by its fingerprint, so that it is never renewed."""

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from ..private_files import read_or_make
from .contexts import CertificateFiles

FILE_NAME: Final = "control.pem"

_LIFETIME: Final = timedelta(days=3650 * 3)


def own_certificate(folder: Path, name: str) -> CertificateFiles:
    """Return the certificate in the state folder; it is made, for *name*, when there is none.

    Key and certificate are in one file, of mode 0600, so that there are always both.  Raises `ConfigurationError` when
    it cannot be written.
    """
    path = folder / FILE_NAME
    if not os.path.lexists(path):
        try:
            read_or_make(path, partial(_make, name))
        except OSError as error:
            raise ConfigurationError(f"the server's certificate {path} cannot be written: {error.strerror}") from error
    return CertificateFiles(path)


def _make(name: str) -> bytes:
    from cryptography import x509  # It takes a while, and is needed once.
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "otun server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(pem)
