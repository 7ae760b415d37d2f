"""Names in, certificates out: what is ordered when, and what the log says of it."""

import logging
import random as _random
import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from ...errors import ConfigurationError
from .agenda import MAX_NAMES, Agenda, Turn
from .budget import NEW_NAMES, NEW_NAMES_WINDOW, ORDERS, ORDERS_WINDOW
from .challenges import Challenges, Kind
from .failures import AcmeFailure, AuthorityUnavailable, OrderFailed
from .schedule import earliest_renewal, renewal_time
from .settings import AcmeSettings
from .wording import in_words

if TYPE_CHECKING:
    from .certificates import Certificate
    from .ordering import Ordering
    from .store import Store

_LOG: Final = logging.getLogger(__name__)

_LONGEST_SLEEP: Final = 3600.0
"""Seconds after which the clock is looked at: it may have been set, or the machine may have slept."""


class Issuer:
    """Sees to it that the names that are wanted have certificates, and new ones in time, while `run` runs.

    *folder* is where the account, the orders and the certificates are kept; one server uses it at a time.  The ports
    answer by *challenges*.  *on_certificate* is called with a name and the PEM file of its key and chain, whenever
    there is one and whenever it has been replaced; it must not raise.  *now* is the time as `time.time` tells it,
    *random* gives a number between 0 and 1.

    Raises `ConfigurationError` when *settings* or *folder* cannot be used, or the package `acme` is not installed.
    """

    def __init__(
        self,
        settings: AcmeSettings,
        folder: Path,
        challenges: Challenges,
        on_certificate: Callable[[str, Path], None],
        *,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        _check(settings)
        self._settings = settings
        self._challenges = challenges
        self._on_certificate = on_certificate
        self._now = now
        self._random = random
        self._store, self._ordering = _assemble(settings, folder, challenges)
        self._agenda = Agenda(self._store.load_new_names())
        self._has_news = trio.Event()
        self._is_running = False
        self._is_overfull = False
        self._announced_hold = -_LONGEST_SLEEP
        self._unprovable: set[str] = set()
        self._saved_new_names = self._agenda.new_names
        self._saving = trio.CapacityLimiter(1)  # One after another, so that the last is what stays.

    def __repr__(self) -> str:
        return f"<Issuer {self._settings.directory} {self._agenda!r}>"

    def want(self, name: str) -> None:
        """Have a certificate for *name*, a host name or wildcard in lower case, from now on; again is without effect.

        A certificate that is kept from before and still valid is given to *on_certificate* at once.  A name beyond
        `agenda.MAX_NAMES`, or one that cannot be proven by any challenge, is logged and left.  Raises `ValueError` for
        what is no host name.
        """
        if name in self._agenda or name in self._unprovable:
            return
        if self._agenda.is_full or len(self._unprovable) >= MAX_NAMES:
            if not self._is_overfull:
                _LOG.warning("certificate for %s: not sought, as there are %d names already", name, MAX_NAMES)
            self._is_overfull = True
            return
        self._is_overfull = False
        certificate = self._store.load_certificate(name)
        now = self._now()
        is_valid = certificate is not None and now < certificate.not_after
        if is_valid:
            self._on_certificate(name, self._store.certificate_path(name))
        if not self._kinds_for(name):
            _LOG.warning("certificate for %s: not sought, as %s", name, _obstacle(name))
            self._unprovable.add(name)
            return
        renew_at = self._renewal_time(certificate) if certificate is not None and is_valid else now
        self._agenda.add(name, is_renewal=certificate is not None, renew_at=renew_at)
        self._has_news.set()

    def has_certificate(self, name: str) -> bool:
        """Whether a certificate for *name* is kept, which may have expired."""
        return self._store.load_certificate(name) is not None

    def forget(self, name: str) -> None:
        """Have no new certificate for *name* any more; what there is stays.  An order under way goes on."""
        self._unprovable.discard(name)
        self._agenda.remove(name)

    async def run(self) -> None:
        """Order and renew, until cancelled.  Whatever the authority does is logged, and tried again in time.

        Orders that are under way when this is cancelled are gone on with when it runs again, on the same folder.
        Raises `trio.BusyResourceError` when it runs already.
        """
        if self._is_running:
            raise trio.BusyResourceError("this issuer runs already")
        self._is_running = True
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._has_news = trio.Event()
                    while (turn := self._agenda.start_next(self._now())) is not None:
                        nursery.start_soon(self._take, turn)
                    self._announce_hold()
                    now = self._now()
                    pause = min(max(self._agenda.next_due(now) - now, 0), _LONGEST_SLEEP)
                    with trio.move_on_after(pause):
                        await self._has_news.wait()
        finally:
            self._is_running = False

    async def _take(self, turn: Turn) -> None:
        name = turn.name
        kinds = self._kinds_for(name)
        try:
            await self._save_new_names()
            certificate = await self._ordering.obtain(name, kinds[turn.rejections % len(kinds)])
        except AuthorityUnavailable as failure:
            self._log_interruption(name, failure)
        except AcmeFailure as failure:
            self._log_failure(name, failure)
        except Exception as error:
            # This is a task's edge: a bug that one name brings to light must not cost the others their certificates.
            _LOG.exception("certificate for %s: this should not have happened", name)
            self._log_failure(name, OrderFailed(f"not obtained, because of a {type(error).__name__}"))
        except BaseException:
            self._agenda.stopped(name)
            raise
        else:
            self._take_note(turn, certificate)
        await self._save_new_names()
        self._has_news.set()

    def _take_note(self, turn: Turn, certificate: "Certificate") -> None:
        now = self._now()
        earliest = earliest_renewal(now, certificate.not_before, certificate.not_after)
        self._agenda.succeeded(turn.name, max(self._renewal_time(certificate), earliest), now)
        deed = "renewed" if turn.is_renewal else "obtained"
        _LOG.info("certificate for %s: %s, valid until %s", turn.name, deed, _date(certificate.not_after))
        if turn.name in self._agenda:
            self._on_certificate(turn.name, self._store.certificate_path(turn.name))

    def _log_failure(self, name: str, failure: AcmeFailure) -> None:
        now = self._now()
        again = self._agenda.failed(name, failure, now, self._random())
        _LOG.warning("certificate for %s: %s; trying again in %s", name, failure, in_words(again - now))

    def _log_interruption(self, name: str, failure: AuthorityUnavailable) -> None:
        now = self._now()
        again = self._agenda.interrupted(name, failure, now, self._random())
        if again is not None:
            directory = self._settings.directory
            _LOG.warning("certificates: the CA at %s %s; trying again in %s", directory, failure, in_words(again - now))

    def _announce_hold(self) -> None:
        now = self._now()
        until = self._agenda.held_until(now)
        if until is not None and until != self._announced_hold:
            self._announced_hold = until
            _LOG.warning(
                "certificates: the budget of %d new names in %s, and %d orders in %s, is used up; the next can be made"
                " in %s",
                NEW_NAMES,
                in_words(NEW_NAMES_WINDOW),
                ORDERS,
                in_words(ORDERS_WINDOW),
                in_words(until - now),
            )

    async def _save_new_names(self) -> None:
        names = self._agenda.new_names
        if names == self._saved_new_names:
            return
        try:
            await trio.to_thread.run_sync(self._store.save_new_names, names, limiter=self._saving)
        except OSError as error:
            _LOG.warning("certificates: the state folder cannot be written: %s", error.strerror)
        else:
            self._saved_new_names = names

    def _kinds_for(self, name: str) -> tuple[Kind, ...]:
        return self._challenges.kinds_for(name, has_dns_hook=self._settings.dns_hook is not None)

    def _renewal_time(self, certificate: "Certificate") -> float:
        return renewal_time(certificate.not_before, certificate.not_after, self._random())


def _check(settings: AcmeSettings) -> None:
    if not settings.directory.startswith("https://"):
        raise ConfigurationError(f"the ACME directory {settings.directory!r} is no https URL")
    if settings.ca is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.ca)
        except OSError as error:  # An SSLError, too.
            raise ConfigurationError(f"the ACME directory's CA file {settings.ca} cannot be used: {error}") from error
    if settings.dns_hook is not None and shutil.which(settings.dns_hook) is None:
        raise ConfigurationError(f"the DNS hook {settings.dns_hook} is no program")


def _assemble(settings: AcmeSettings, folder: Path, challenges: Challenges) -> "tuple[Store, Ordering]":
    # Imported here, because they take a tenth of a second and are an extra.
    try:
        from .ordering import Ordering
        from .store import Store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"acme", "josepy"}:
            raise
        raise ConfigurationError("an automatic certificate needs the acme package: pip install 'otun[acme]'") from error
    store = Store(folder, settings.directory)
    return store, Ordering(settings, store, challenges)


def _obstacle(name: str) -> str:
    if name.startswith("*."):
        return "a wildcard needs a DNS hook"
    return "neither port 80 nor port 443 is ours, and there is no DNS hook"


def _date(time_: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time_))
