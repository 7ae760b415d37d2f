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
        self._is_private = is_private
        self.automatic: AutomaticCertificates | None = None
        self.store: CertificateStore
        self._own: Certificate | None
        self.store, self._own = self._load(settings)
        if settings.acme is not None and settings.state is not None:
            self.automatic = AutomaticCertificates(settings, settings.acme, settings.state, self.store)

    def _load(self, settings: ServerSettings) -> tuple[CertificateStore, Certificate | None]:
        """Return the certificates that *settings* ask for, and the one that the server has made itself."""
        if settings.client_ca is not None:
            check_authorities(settings.client_ca)
        store = CertificateStore(client_ca=settings.client_ca)
        for files in settings.certificates:
            store.add(files)
        is_plaintext_enough = (self._is_private or settings.allow_plaintext) and settings.client_ca is None
        own = None
        if settings.state is not None and not settings.certificates:
            own = store.watch(self._make_own(settings, settings.state))
        elif not settings.certificates and not is_plaintext_enough:
            reason = "that other machines reach" if settings.client_ca is None else "where clients show certificates"
            raise ConfigurationError(
                f"a control port {reason} needs a certificate, or a state folder for one of its own"
            )
        if self.automatic is not None:
            self.automatic.add_to(store)
        return store, own

    async def prepare(self, settings: ServerSettings) -> Callable[[], None]:
        """Load what *settings* ask for, and return what puts it into force.

        Raises `ConfigurationError`.  Handshakes that are under way go on with what they have begun with.
        """
        store, own = await trio.to_thread.run_sync(self._load, settings)

        def apply() -> None:
            if self.automatic is not None:
                self.automatic.add_to(store)  # What was obtained meanwhile.
            self.store.replace(store)
            self._own = own

        return apply

    def _make_own(self, settings: ServerSettings, folder: Path) -> Certificate:
        files = own_certificate(folder, settings.domain or "localhost")
        try:
            return Certificate(files, client_ca=settings.client_ca)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}; remove it to have a new one made, whose fingerprint clients must then be given"
            ) from error

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
