"""Certificates for the tests, from authorities that last as long as a test."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import attrs
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from otun import CertificateFiles, Fingerprint

_DAY = timedelta(days=1)
_NUMBERS = count(1)


def in_days(days: float) -> datetime:
    """A moment from now, or before it."""
    return datetime.now(UTC) + timedelta(days=days)


def write_anew(path: Path, data: bytes) -> None:
    """Replace a file, as programs that renew certificates do: it is never seen half written."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(data)
    draft.replace(path)


@attrs.define(eq=False)
class Authority:
    """A certificate authority whose files are in *folder*."""

    folder: Path
    _ca: trustme.CA = attrs.field(factory=trustme.CA)
    _number: int = attrs.field(factory=lambda: next(_NUMBERS))
    _leaves: Iterator[int] = attrs.field(factory=lambda: count(1))

    def __attrs_post_init__(self) -> None:
        self._ca.cert_pem.write_to_path(str(self.path))

    @property
    def path(self) -> Path:
        """The file with its own certificate."""
        return self.folder / f"authority-{self._number}.pem"

    def issue(self, *names: str, begins_in: timedelta = -3 * _DAY, ends_in: timedelta = 3 * _DAY) -> CertificateFiles:
        """Issue a certificate for *names*, in one file with its key."""
        now = datetime.now(UTC)
        made = self._ca.issue_cert(*names, not_before=now + begins_in, not_after=now + ends_in)
        path = self.folder / f"certificate-{self._number}-{next(self._leaves)}.pem"
        made.private_key_and_cert_chain_pem.write_to_path(str(path))
        return CertificateFiles(path)

    def issue_expired(self, *names: str) -> CertificateFiles:
        """Issue one that has ended yesterday."""
        return self.issue(*names, ends_in=-_DAY)

    def issue_too_early(self, *names: str) -> CertificateFiles:
        """Issue one that begins tomorrow."""
        return self.issue(*names, begins_in=_DAY)

    def certify(self, *names: str, into: str = "server", ends: datetime | None = None) -> CertificateFiles:
        """Write a certificate for *names*, and its key beside it; what had that name before is replaced."""
        files = CertificateFiles(self.folder / f"{into}.pem", self.folder / f"{into}.key")
        made = self._ca.issue_cert(*names, not_before=in_days(-30), not_after=ends)
        write_anew(files.certificate, b"".join(blob.bytes() for blob in made.cert_chain_pems))
        assert files.key is not None
        write_anew(files.key, made.private_key_pem.bytes())
        return files

    def client_context(self, *, is_checking: bool = True) -> ssl.SSLContext:
        """The context of somebody who believes this authority, or with *is_checking* off, everybody."""
        context = ssl.create_default_context(cadata=self._ca.cert_pem.bytes().decode())
        if not is_checking:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def server_context(self, *names: str, ends: datetime | None = None) -> ssl.SSLContext:
        """The context of a server with a certificate for *names*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, not_before=in_days(-30), not_after=ends).configure_cert(context)
        return context


def certificate_of(files: CertificateFiles) -> str:
    """The certificate itself in PEM, without its key."""
    _, begin, rest = files.certificate.read_text().partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    return f"{begin}{body}{end}\n"


def fingerprint_of(files: CertificateFiles) -> Fingerprint:
    """Its fingerprint."""
    return Fingerprint.of(ssl.PEM_cert_to_DER_cert(certificate_of(files)))


def key_of(files: CertificateFiles) -> str:
    """The key alone in PEM."""
    return files.certificate.read_text().partition("-----BEGIN CERTIFICATE-----")[0]


def locked_key_of(files: CertificateFiles, form: PrivateFormat) -> str:
    """The key alone, with a password."""
    key = load_pem_private_key(key_of(files).encode(), None)
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"password")).decode()
