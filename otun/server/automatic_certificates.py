"""Which names the server gets certificates for by itself: those of its tunnels, never one that a visitor makes up."""

import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from ..tls.acme.budget import NEW_NAMES, NEW_NAMES_WINDOW
from ..tls.acme.challenges import Challenges
from ..tls.acme.issuer import Issuer
from ..tls.acme.settings import AcmeSettings
from ..tls.certificates import CertificateStore
from ..tls.contexts import CertificateFiles
from .settings import ServerSettings

logger: logging.Logger = logging.getLogger(__name__)

SHARE_OF_ONE: Final = NEW_NAMES // 2
"""New names for which one client, or one token, has certificates ordered within `NEW_NAMES_WINDOW`: not all of them."""

MAX_SHARES: Final = 4096
"""Clients of whom that is known."""

_FOLDER: Final = "acme"


class AutomaticCertificates:
    """Orders certificates (RFC 8555) and puts them into *store*.  Raises `ConfigurationError`."""

    def __init__(
        self,
        settings: ServerSettings,
        acme: AcmeSettings,
        state: Path,
        store: CertificateStore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._domain = settings.domain
        self._has_dns_hook = acme.dns_hook is not None
        self._store = store
        self._challenges = Challenges(has_http=settings.public is not None, has_tls_alpn=settings.https is not None)
        self._issuer = Issuer(acme, state / _FOLDER, self._challenges, self._obtained)
        self._uses: Counter[str] = Counter()
        self._files: dict[CertificateFiles, None] = {}  # Those of the issuer, in *store*, in their order.
        self._shares: dict[str, dict[str, float]] = {}  # By client: the new names that it has asked for, and when.
        self._clock = clock
        self._on_obtained: Callable[[str], None] | None = None
        for name in self._names_of_domain():
            self._want(name)

    def _names_of_domain(self) -> tuple[str, ...]:
        if self._domain is None:
            return ()
        return (self._domain, f"*.{self._domain}") if self._has_dns_hook else (self._domain,)

    def tell(self, on_obtained: Callable[[str], None]) -> None:
        """Call *on_obtained* with each name, or wildcard, that has a new certificate."""
        self._on_obtained = on_obtained

    def add_to(self, store: CertificateStore) -> None:
        """Put into *store* what was obtained up to now, and is not in it; this may be called in a thread."""
        for files in [files for files in self._files.copy() if files not in store]:
            try:
                store.add(files)
            except ConfigurationError as error:
                logger.error("certificate %s: it cannot be used: %s", files, error)

    async def run(self) -> None:
        """Order and renew until cancelled."""
        await self._issuer.run()

    def is_eligible(self, host: str) -> bool:
        """Whether a tunnel with that host name is given a certificate."""
        if host.startswith("*."):
            return self._has_dns_hook
        # Without a domain, the names of tunnels are below `localhost`, for which there are no certificates.
        return self._domain is not None or not host.endswith(".localhost")

    def tunnel_opened(self, hosts: Iterable[str], who: str) -> None:
        """Get certificates for the *hosts* of a tunnel of *who*: a client, or all that share a token."""
        for host in hosts:
            self._uses[host] += 1
            if self.is_eligible(host) and self._uses[host] == 1 and not self._is_below_wildcard(host):
                self._want(host, who)

    def tunnel_closed(self, hosts: Iterable[str]) -> None:
        """Get no new certificates for them, unless another tunnel needs them."""
        for host in hosts:
            self._uses[host] -= 1
            if not self._uses[host]:
                del self._uses[host]
                self._issuer.forget(host)

    def _is_below_wildcard(self, host: str) -> bool:
        first, _, above = host.partition(".")
        return first != "*" and f"*.{above}" in self._names_of_domain()

    def _want(self, name: str, who: str | None = None) -> None:
        found = self._store.find(name)
        # What was obtained for a tunnel that has closed since is renewed for the next one.
        if (found is None or found.files in self._files) and (who is None or self._has_share(name, who)):
            self._issuer.want(name)

    def _has_share(self, name: str, who: str) -> bool:
        """Whether *who* may have a certificate for *name* ordered; what there is already counts for nothing."""
        if self._issuer.has_certificate(name):
            return True
        now = self._clock()
        if len(self._shares) >= MAX_SHARES:
            self._shares.clear()  # The budget for all stays.
        share = {known: since for known, since in self._shares.get(who, {}).items() if now - since < NEW_NAMES_WINDOW}
        self._shares[who] = share
        if name not in share and len(share) >= SHARE_OF_ONE:
            logger.warning(
                "certificate for %s: not sought, as its client has asked for %d new names already", name, SHARE_OF_ONE
            )
            return False
        share.setdefault(name, now)
        return True

    def is_awaited(self, host: str) -> bool:
        """Whether a certificate for *host* may be there soon."""
        return host in self._uses or host == self._domain

    def _obtained(self, name: str, path: Path) -> None:
        files = CertificateFiles(path)
        self._files[files] = None
        try:
            self._store.add(files)
        except ConfigurationError as error:
            logger.error("certificate for %s: it cannot be used: %s", name, error)
            return
        if self._on_obtained is not None:
            self._on_obtained(name)

    # What the ports answer

    def http_answer(self, token: str) -> bytes | None:
        """Return the answer to a challenge over HTTP, if there is one."""
        return self._challenges.http_answer(token)

    def tls_context(self, name: str) -> ssl.SSLContext | None:
        """Return the context for a challenge over TLS, if there is one."""
        return self._challenges.tls_alpn_context(name)
