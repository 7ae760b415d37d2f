"""The certificates that a server has: loaded from files, found by the name that a visitor asks for, and reloaded."""

import logging
import os
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from ..errors import ConfigurationError
from .contexts import CertificateFiles, Purpose, server_context
from .fingerprints import Fingerprint

if TYPE_CHECKING:
    from cryptography import x509

logger: logging.Logger = logging.getLogger(__name__)

RELOAD_INTERVAL: Final = 5.0
"""Seconds between two looks at the files."""

_State: TypeAlias = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate and its key, ready for use.  Raises `ConfigurationError`."""

    def __init__(self, files: CertificateFiles, *, client_ca: Path | None = None) -> None:
        self.files: CertificateFiles = files
        self._client_ca = client_ca
        self._visitors = server_context(files, Purpose.VISITORS)
        self._clients: ssl.SSLContext | None = None
        data = files.certificate.read_bytes()
        self.names: frozenset[str]
        self.ends: datetime
        self.names, self.ends = _read(data, files)
        self.fingerprint: Fingerprint = Fingerprint.of(_leaf(data))

    def __repr__(self) -> str:
        return f"<Certificate {self.files}>"

    def context(self, purpose: Purpose) -> ssl.SSLContext:
        """Return the context for whoever connects for *purpose*.  Raises `ConfigurationError`."""
        if purpose is Purpose.VISITORS:
            return self._visitors
        if self._clients is None:
            self._clients = server_context(self.files, purpose, client_ca=self._client_ca)
        return self._clients


class CertificateStore:
    """Certificates by name.  The first one that was added is for those who name no server, or an unknown one."""

    def __init__(self, *, client_ca: Path | None = None) -> None:
        self._client_ca = client_ca
        self._loaded: dict[CertificateFiles, Certificate] = {}
        self._states: dict[CertificateFiles, _State] = {}
        self._by_name: dict[str, Certificate] = {}

    def __len__(self) -> int:
        return len(self._loaded)

    def add(self, files: CertificateFiles) -> Certificate:
        """Load the certificate in *files*, or load it anew.  Raises `ConfigurationError`."""
        state = _state_of(files)
        certificate = Certificate(files, client_ca=self._client_ca)
        self._loaded[files] = certificate
        self._states[files] = state
        self._sort()
        return certificate

    def _sort(self) -> None:
        self._by_name = {}
        for certificate in self._loaded.values():
            for name in certificate.names:
                known = self._by_name.get(name)
                if known is None or known.ends < certificate.ends:
                    self._by_name[name] = certificate

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
            await trio.to_thread.run_sync(self.reload, _changed(self._states))

    def reload(self, changed: Iterable[CertificateFiles] | None = None) -> None:
        """Load anew what has changed."""
        for files in _changed(self._states) if changed is None else changed:
            try:
                self.add(files)
            except ConfigurationError as error:
                self._states[files] = _state_of(files)  # It is said once.
                logger.error("certificate %s: it has changed, but the old one stays: %s", files, error)
            else:
                logger.info("certificate %s: loaded anew", files)


def _changed(states: dict[CertificateFiles, _State]) -> list[CertificateFiles]:
    return [files for files, state in states.items() if _state_of(files) != state]


def _state_of(files: CertificateFiles) -> _State:
    """Return what changes when one of the files does."""
    return tuple(map(_stat, (files.certificate, files.key or files.certificate)))


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _leaf(data: bytes) -> bytes:
    """Return the first certificate of a PEM file, in DER."""
    text = data.decode("latin-1")
    begin, end = text.index(ssl.PEM_HEADER), text.index(ssl.PEM_FOOTER)
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])


def _read(data: bytes, files: CertificateFiles) -> tuple[frozenset[str], datetime]:
    """Return the names of a certificate and when it ends."""
    from cryptography import x509  # It takes a while, and servers without TLS do not need it.

    try:
        leaf = x509.load_der_x509_certificate(_leaf(data))
        names = _names(leaf)
        ends = leaf.not_valid_after_utc
    except ValueError as error:
        raise ConfigurationError(f"{files}: the certificate cannot be read: {error}") from error
    if ends < datetime.now(UTC):
        logger.warning("certificate %s: it has expired on %s", files, ends.date())
    return names, ends


def _names(leaf: "x509.Certificate") -> frozenset[str]:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in found.get_values_for_type(x509.DNSName))
