"""Which certificate a server shows to whom."""

import ssl
from collections.abc import Callable
from pathlib import Path

import trio

from ..errors import ConfigurationError
from ..switchboard import TlsBuffers
from ..tls.certificates import Certificate, CertificateStore
from ..tls.contexts import Purpose, check_authorities
from ..tls.fingerprints import Fingerprint
from ..tls.self_made import own_certificate
from .automatic_certificates import AutomaticCertificates
from .settings import ServerSettings


class Encryption:
    """The certificates of a server, and the memory that its TLS connections share.

    Raises `ConfigurationError` for files that cannot be used.
    """

    def __init__(self, settings: ServerSettings, *, is_private: bool) -> None:
        self.buffers: TlsBuffers = TlsBuffers()
        if settings.client_ca is not None:
            check_authorities(settings.client_ca)
        self.store: CertificateStore = CertificateStore(client_ca=settings.client_ca)
        for files in settings.certificates:
            self.store.add(files)
        self._own: Certificate | None = None
        self.automatic: AutomaticCertificates | None = None
        is_plaintext_enough = (is_private or settings.allow_plaintext) and settings.client_ca is None
        if settings.state is not None and not settings.certificates:
            self._own = self._make_own(settings, settings.state)
        elif not settings.certificates and not is_plaintext_enough:
            reason = "that other machines reach" if settings.client_ca is None else "where clients show certificates"
            raise ConfigurationError(
                f"a control port {reason} needs a certificate, or a state folder for one of its own"
            )
        if settings.acme is not None and settings.state is not None:
            self.automatic = AutomaticCertificates(settings, settings.acme, settings.state, self.store)

    def _make_own(self, settings: ServerSettings, folder: Path) -> Certificate:
        files = own_certificate(folder, settings.domain or "localhost")
        try:
            certificate = Certificate(files, client_ca=settings.client_ca)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}; remove it to have a new one made, whose fingerprint clients must then be given"
            ) from error
        return self.store.watch(certificate)

    def keep_fresh(self, on_obtained: Callable[[str], None], tasks: trio.Nursery) -> None:
        """Load certificates whose files change, and get those that are due, in *tasks* until they are cancelled.

        *on_obtained* is called with each name, or wildcard, that has got a new one.
        """
        tasks.start_soon(self.store.keep_fresh)
        if self.automatic is not None:
            self.automatic.tell(on_obtained)
            tasks.start_soon(self.automatic.run)

    @property
    def fingerprint(self) -> Fingerprint | None:
        """That of the certificate for clients that ask for no name."""
        certificate = self._own or self.store.default
        return certificate.fingerprint if certificate is not None else None

    @property
    def is_self_made(self) -> bool:
        """Whether clients can know the server by its fingerprint only."""
        return self._own is not None

    def context_for_client(self, server_name: str | None) -> ssl.SSLContext | None:
        """Return the context for a client that asks for *server_name*."""
        certificate = (self.store.find(server_name) if server_name else None) or self._own or self.store.default
        return certificate.context(Purpose.CLIENTS) if certificate is not None else None

    def context_for_visitor(self, server_name: str | None) -> ssl.SSLContext | None:
        """Return the context for a visitor who asks for *server_name*; None if there is no certificate to show."""
        certificate = (self.store.find(server_name) if server_name else None) or self.store.default
        return certificate.context(Purpose.VISITORS) if certificate is not None else None

    def covers(self, host: str) -> bool:
        """Whether there is a certificate for *host*."""
        return self.store.find(host) is not None

    def will_cover(self, host: str) -> bool:
        """Whether there is a certificate for *host*, or one is on its way."""
        return self.covers(host) or (self.automatic is not None and self.automatic.is_eligible(host))
