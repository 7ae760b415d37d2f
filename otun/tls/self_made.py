"""The certificate that a server makes itself: clients know it by its fingerprint, so that it is never renewed."""

import os
from datetime import timedelta
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
    from cryptography.x509.oid import NameOID

    from .keys import self_signed

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "otun server")])
    no_authority = x509.BasicConstraints(ca=False, path_length=None)
    return self_signed(name, no_authority, subject=subject, lifetime=_LIFETIME)
