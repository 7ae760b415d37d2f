"""The traffic of all tunnels: counted, limited by what tokens and settings say, and swept away when it has passed."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from ..access import Identity, Limits, Quota
from ..switchboard import Switchboard
from .accounts import Account
from .clients import Client
from .database import Database
from .registry import Registration
from .throttling import Throttle
from .usage import Usage

SAVE_INTERVAL: Final = 10.0
"""Seconds between two notes of usage in the database: a crash loses so much of it at most."""


class Traffic:
    """Knows the accounts of those who have, or have just had, tunnels: one for each identity.

    Clients without a token are told apart by where they come from.  *tunnel_quota* is what each tunnel may use, whoever
    has it; *clock* gives Unix time.
    """

    def __init__(
        self,
        board: Switchboard,
        database: Database | None,
        tunnel_quota: Quota,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._clock = clock
        self._tunnel_quota = tunnel_quota
        self._usage = Usage(database, clock)
        self._accounts: dict[str, Account] = {}

    async def load(self) -> None:
        """Read today's usage.  Raises `DatabaseError`."""
        await self._usage.load()

    def tunnel_opened(self, client: Client, kind: str, registration: Registration) -> None:
        """Count for *client* what the visitors of its new tunnel move, and keep them to its limits."""
        identity = client.identity
        name = f"{identity.name} {client.address.peer.host}" if identity.is_anonymous else identity.name
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = Account(self._board, self._clock, self._tunnel_quota)
        self._limit(name, account, identity.limits)
        tunnel = _key(kind, registration)
        throttle = account.tunnels.get(tunnel)
        if throttle is None:
            throttle = account.tunnels[tunnel] = Throttle(account)
        throttle.registrations.add(registration)
        account.limit_tunnel(throttle, self._usage.of_tunnel(name, tunnel))

    def limits_changed(self, identity: Identity) -> None:
        """Keep the visitors of *identity* to its limits as they are now."""
        account = self._accounts.get(identity.name)
        if account is not None:
            self._limit(identity.name, account, identity.limits)

    def _limit(self, name: str, account: Account, limits: Limits) -> None:
        if limits == account.limits:
            return
        self._count(name, account)
        account.limit(limits, self._usage.of(name))
        self._limit_tunnels(name, account)

    def _limit_tunnels(self, name: str, account: Account) -> None:
        for tunnel, throttle in account.tunnels.items():
            account.limit_tunnel(throttle, self._usage.of_tunnel(name, tunnel))

    def change_tunnel_quota(self, quota: Quota) -> None:
        """Have each tunnel use no more than *quota*, also those that are open."""
        self._tunnel_quota = quota
        for name, account in self._accounts.items():
            self._count(name, account)
            account.tunnel_quota = quota
            self._limit_tunnels(name, account)

    async def keep_fresh(self, in_use: Callable[[], Iterable[Registration]]) -> None:
        """Write usage down, and forget tunnels that are not *in_use* when they have no effect any more.

        Until cancelled; then usage is written down once more.
        """
        try:
            while True:
                await trio.sleep(SAVE_INTERVAL)
                self._count_all()
                self._sweep(set(in_use()))
                await self._usage.save()
        finally:
            with trio.CancelScope(shield=True):
                self._count_all()
                await self._usage.save()

    def _count_all(self) -> None:
        for name, account in self._accounts.items():
            self._count(name, account)

    def _count(self, name: str, account: Account) -> None:
        for tunnel, throttle in account.tunnels.items():
            self._usage.add(name, tunnel, throttle.count())

    def _sweep(self, in_use: set[Registration]) -> None:
        for name, account in list(self._accounts.items()):
            account.sweep(in_use)
            if account.is_at_rest:
                del self._accounts[name]


def _key(kind: str, registration: Registration) -> str:
    """Return what a tunnel of an identity is known by when it is opened again."""
    return f"{kind}:{registration.name}{registration.url_path}"
