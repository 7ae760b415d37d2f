"""The certificates that a server has: loaded from files, found by the name that a visitor asks for, and reloaded."""

import logging
import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import trio

from ..errors import ConfigurationError
from .contexts import CertificateFiles, Purpose, load_authorities, server_context
from .fingerprints import Fingerprint

logger: logging.Logger = logging.getLogger(__name__)

RELOAD_INTERVAL: Final = 5.0
"""Seconds between two looks at the files."""

_State: TypeAlias = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate and its key, ready for use.  Raises `ConfigurationError`."""

    def __init__(self, files: CertificateFiles, *, client_ca: Path | None = None) -> None:
        self.files: CertificateFiles = files
        self._client_ca = client_ca
        self._contexts: dict[Purpose, ssl.SSLContext]
        self.names: frozenset[str]
        self.ends: datetime
        self.fingerprint: Fingerprint
        self.load()

    def load(self) -> None:
        """Read the files, or read them anew.  Raises `ConfigurationError`, and nothing has changed then."""
        contexts = {
            Purpose.VISITORS: server_context(self.files, Purpose.VISITORS),
            Purpose.CLIENTS: server_context(self.files, Purpose.CLIENTS),
        }
        if self._client_ca is not None:
            _demand_certificates(contexts[Purpose.CLIENTS], self._client_ca)
        leaf = _leaf(self.files)
        self.names, self.ends = _read(leaf, self.files)
        self.fingerprint = Fingerprint.of(leaf)
        self._contexts = contexts

    def __repr__(self) -> str:
        return f"<Certificate {self.files}>"

    def context(self, purpose: Purpose) -> ssl.SSLContext:
        """Return the context for whoever connects for *purpose*."""
        return self._contexts[purpose]

    def state(self) -> "_State":
        """Return what changes when one of its files does."""
        files = (self.files.certificate, self.files.key, self._client_ca)
        return tuple(_stat(path) for path in files if path is not None)


def _demand_certificates(context: ssl.SSLContext, client_ca: Path) -> None:
    """Have clients show a certificate that is in the file *client_ca*, or signed by one in it.

    If the file cannot be read, nobody has one: whoever was taken off it must not be let in because of another mistake.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        load_authorities(context, client_ca)
    except ConfigurationError as error:
        logger.error("clients' authorities: %s; until that is mended, no client is let in", error)


class CertificateStore:
    """Certificates by name.  The first one that was added is for those who name no server, or an unknown one."""

    def __init__(self, *, client_ca: Path | None = None) -> None:
        self._client_ca = client_ca
        self._loaded: dict[CertificateFiles, Certificate] = {}
        self._states: dict[Certificate, _State] = {}
        self._by_name: dict[str, Certificate] = {}

    def __contains__(self, files: object) -> bool:
        return files in self._loaded

    def add(self, files: CertificateFiles) -> Certificate:
        """Load the certificate in *files*, or load it anew.  Raises `ConfigurationError`."""
        certificate = self._loaded.get(files)
        if certificate is None:
            certificate = self._loaded[files] = self.watch(Certificate(files, client_ca=self._client_ca))
        else:
            state = certificate.state()
            certificate.load()
            self._states[certificate] = state
        self._sort()
        return certificate

    def watch(self, certificate: Certificate) -> Certificate:
        """Keep *certificate* fresh, too, although it is not to be found by a name.  Return it."""
        self._states[certificate] = certificate.state()
        return certificate

    def replace(self, other: "CertificateStore") -> None:
        """Have the certificates of *other*, which nobody else uses, and no others."""
        self._client_ca = other._client_ca
        self._loaded, self._states, self._by_name = other._loaded, other._states, other._by_name

    def _sort(self) -> None:
        by_name: dict[str, Certificate] = {}
        for certificate in self._loaded.values():
            for name in certificate.names:
                known = by_name.get(name)
                if known is None or known.ends < certificate.ends:
                    by_name[name] = certificate
        self._by_name = by_name

    @property
    def default(self) -> Certificate | None:
        """The first certificate."""
        return next(iter(self._loaded.values()), None)

    def find(self, name: str) -> Certificate | None:
        """Return the certificate for *name*: its own, or that of the wildcard above it (RFC 9525, section 6.3)."""
        return self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")

    async def keep_fresh(self) -> None:
        """Load what has changed, until cancelled.  What cannot be loaded is reported, and the old one stays."""
        while True:
            await trio.sleep(RELOAD_INTERVAL)
            for certificate in self._changed():
                state = certificate.state()  # Before: what changes meanwhile is loaded next time.
                problem = await trio.to_thread.run_sync(_load, certificate)
                self._take_note(certificate, state, problem)

    def reload(self) -> None:
        """Load what has changed, at once."""
        for certificate in self._changed():
            state = certificate.state()
            self._take_note(certificate, state, _load(certificate))

    def _changed(self) -> list[Certificate]:
        return [certificate for certificate, state in self._states.items() if certificate.state() != state]

    def _take_note(self, certificate: Certificate, state: _State, problem: ConfigurationError | None) -> None:
        if certificate not in self._states:  # By now.
            return
        self._states[certificate] = state  # Also of what cannot be loaded: it is said once.
        if problem is None:
            logger.info("certificate %s: loaded anew", certificate.files)
            self._sort()
        else:
            logger.error("certificate %s: it has changed, but the old one stays: %s", certificate.files, problem)


def _load(certificate: Certificate) -> ConfigurationError | None:
    try:
        certificate.load()
    except ConfigurationError as error:
        return error
    return None


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _leaf(files: CertificateFiles) -> bytes:
    """Return the first certificate, in DER.  Raises `ConfigurationError`."""
    try:
        text = files.certificate.read_text("latin-1")
        begin, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER)
        return ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    except OSError as error:
        raise ConfigurationError(f"{files}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{files}: the certificate cannot be read: {error}") from error


def _read(data: bytes, files: CertificateFiles) -> tuple[frozenset[str], datetime]:
    """Return the names of a certificate in DER, and when it ends.  Raises `ConfigurationError`."""
    from cryptography import x509  # It takes a while, and servers without TLS do not need it.

    from .keys import dns_names

    try:
        leaf = x509.load_der_x509_certificate(data)
        names = dns_names(leaf)
        ends = leaf.not_valid_after_utc
    except (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise ConfigurationError(f"{files}: the certificate cannot be read: {error}") from error
    if ends < datetime.now(UTC):
        logger.warning("certificate %s: it has expired on %s", files, ends.date())
    return names, ends
