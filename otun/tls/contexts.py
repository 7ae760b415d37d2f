"""How connections are encrypted: versions, ciphers and protocols, and the errors in files of keys and certificates."""

import ssl
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Final

import attrs

from ..errors import ConfigurationError

CONTROL_PROTOCOL: Final = "otun/1"
"""What a control connection speaks inside TLS, as ALPN says it (RFC 7301).  So it can share a port with HTTPS."""

HTTP_PROTOCOL: Final = "http/1.1"

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, those with forward secrecy and authenticated encryption; TLS 1.3 has no others."""


class Purpose(Enum):
    """Who connects."""

    CLIENTS = CONTROL_PROTOCOL
    VISITORS = HTTP_PROTOCOL


@attrs.frozen
class CertificateFiles:
    """A PEM file with a certificate and those above it, and one with its private key, if that is another file."""

    certificate: Path
    key: Path | None = None

    def __str__(self) -> str:
        return str(self.certificate)


def server_context(files: CertificateFiles, purpose: Purpose) -> ssl.SSLContext:
    """Return a context that shows the certificate in *files* to whoever connects for *purpose*.

    Raises `ConfigurationError`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, (purpose.value,))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if purpose is Purpose.CLIENTS:
        # A client that writes and closes with unread tickets would have its system reset the connection.  Besides, it
        # hardly ever connects.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    load_certificate(context, files)
    return context


def client_context(protocols: Sequence[str], *, has_system_authorities: bool = True) -> ssl.SSLContext:
    """Return a context that checks the server's name, and believes the system's certificate authorities, if any."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, protocols)
    if has_system_authorities:
        context.load_default_certs()
    return context


def _context(protocol: int, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def load_certificate(context: ssl.SSLContext, files: CertificateFiles) -> None:
    """Have *context* show a certificate.  Raises `ConfigurationError`."""
    key = files.key or files.certificate
    for path in (files.certificate, key):  # OpenSSL does not say which one it cannot read.
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
    questions: list[Path] = []

    def ask_for_password() -> str:
        questions.append(key)
        return ""  # It is wrong for every key.  Without this, OpenSSL would ask on the terminal, and stop a server.

    try:
        context.load_cert_chain(files.certificate, key, password=ask_for_password)
    except ssl.SSLError as error:
        raise ConfigurationError(_explain(files, error, has_password=bool(questions))) from error
    except OSError as error:
        raise ConfigurationError(f"{files}: {error.strerror}") from error


def check_authorities(path: Path) -> None:
    """See that the file at *path* can be used.  Raises `ConfigurationError`."""
    load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), path)


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Have *context* believe the certificates in the file at *path*, be they of authorities or not.

    Raises `ConfigurationError`.
    """
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{path} holds no certificates in PEM") from error
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def _explain(files: CertificateFiles, error: ssl.SSLError, *, has_password: bool) -> str:
    key = files.key or files.certificate
    if has_password:
        return f"the key in {key} has a password; write it without, in a file that nobody else can read"
    match error.reason:
        case "KEY_VALUES_MISMATCH":
            return f"the key in {key} does not belong to the certificate in {files.certificate}"
        case "EE_KEY_TOO_SMALL" | "CA_KEY_TOO_SMALL" | "CA_MD_TOO_WEAK":
            return f"the certificate in {files.certificate} is too weak: {error.reason.replace('_', ' ').lower()}"
        case _:
            return f"{files.certificate} and {key} hold no certificate and its key in PEM"
