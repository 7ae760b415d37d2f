"""Whom a client believes to be its server, and how it shows who it is itself."""

import errno
import ssl
from collections.abc import Sequence
from pathlib import Path

import attrs

from ..switchboard import TlsSocket, TlsVerificationError
from .contexts import CertificateFiles, client_context, load_authorities, load_certificate
from .fingerprints import Fingerprint


@attrs.frozen(kw_only=True)
class Trust:
    """What is checked before anything is said.

    Without anything else, the server's certificate must be for its name, and from one of the system's authorities; *ca*
    is a PEM file of authorities that count instead.  A *fingerprint* is that of the server's own certificate, and takes
    the place of all other checks.  *is_blind* checks nothing.  With *certificate* the client shows that one.
    """

    ca: Path | None = None
    fingerprint: Fingerprint | None = None
    is_blind: bool = False
    certificate: CertificateFiles | None = None

    def context(self, protocols: Sequence[str]) -> ssl.SSLContext:
        """Return the context for connections that offer *protocols*.  Raises `ConfigurationError`."""
        is_by_authorities = self.fingerprint is None and not self.is_blind
        context = client_context(protocols, has_system_authorities=is_by_authorities and self.ca is None)
        if not is_by_authorities:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            load_authorities(context, self.ca)
        if self.certificate is not None:
            load_certificate(context, self.certificate)
        return context

    def server_name(self, host: str) -> str | None:
        """Return the name to ask for.

        None for one that is known by its fingerprint: so it shows the certificate that it has made itself, which stays
        the same, and not the one for its name, which is renewed.
        """
        return None if self.fingerprint is not None else host.partition("%")[0].removesuffix(".")

    def check(self, sock: TlsSocket) -> None:
        """Check what the handshake has not.  Raises `otun.switchboard.TlsVerificationError`."""
        if self.fingerprint is not None and not self.fingerprint.matches(sock.peer_certificate):
            shown = sock.peer_certificate
            found = Fingerprint.of(shown) if shown else "none"
            raise TlsVerificationError(errno.EPROTO, f"its certificate's fingerprint is {found}")
