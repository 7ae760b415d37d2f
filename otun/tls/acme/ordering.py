"""One order from its beginning, or from where it was left, to the certificate (RFC 8555, section 7.4)."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import trio

from ..keys import Key, new_key
from .certificates import Certificate, join, request_for
from .challenges import Challenges, Kind
from .dns_hook import published
from .failures import AccountUnknown, AuthorityUnavailable, OrderFailed, RateLimited, ValidationFailed
from .protocol import Authorization, Challenge, Conversation, Order
from .settings import AcmeSettings
from .store import PendingOrder, Store
from .tls_alpn import challenge_context
from .wording import in_words, one_line
from .worker import Worker

ATTEMPT_LIMIT: Final = 900.0
"""Seconds for one attempt.  An order that takes longer is kept, and looked at again by the next attempt."""

FIRST_LOOK: Final = 0.25
"""Seconds until the authority is asked how far it is; each further time it is twice as many."""

LONGEST_LOOK: Final = 15.0


class Ordering:
    """Carries out orders at one authority, for one account."""

    def __init__(self, settings: AcmeSettings, store: Store, challenges: Challenges) -> None:
        self._settings = settings
        self._store = store
        self._challenges = challenges
        self._worker = Worker()
        self._account_url = store.load_account_url()
        # A second order would make the account again while the first waits for it.
        self._registering = trio.Lock()

    async def obtain(self, name: str, kind: Kind) -> Certificate:
        """Order a certificate for *name* and store it, or go on with the order that was left; prove it by *kind*.

        Raises `AcmeFailure`.  Failed for want of time, or cancelled, the order can be gone on with.
        """
        with trio.move_on_after(ATTEMPT_LIMIT):
            try:
                return await self._attempt(name, kind)
            except AccountUnknown:
                pass  # Its URL has been forgotten: now it is made.
            try:
                return await self._attempt(name, kind)
            except AccountUnknown as error:
                raise AuthorityUnavailable(f"does not know the account that it has just made: {error}") from error
        raise OrderFailed(f"the CA has not come to an end within {in_words(ATTEMPT_LIMIT)}")

    async def _attempt(self, name: str, kind: Kind) -> Certificate:
        conversation = Conversation(self._settings, self._store.account_key)
        with contextlib.closing(conversation):
            await self._worker.run(conversation.connect)
            await self._use_account(conversation)
            attempt = _Attempt(self._settings, self._store, self._challenges, self._worker, conversation, name, kind)
            try:
                return await attempt.run()
            except AccountUnknown:
                await self._forget_account()
                raise

    async def _use_account(self, conversation: Conversation) -> None:
        async with self._registering:
            if self._account_url is None:
                self._account_url = await self._worker.run(conversation.register)
                with _storing():
                    await self._worker.run(self._store.save_account_url, self._account_url)
        conversation.use_account(self._account_url)

    async def _forget_account(self) -> None:
        self._account_url = None
        with _storing():
            await self._worker.run(self._store.forget_account_url)


class _Attempt:
    """What one attempt knows."""

    def __init__(
        self,
        settings: AcmeSettings,
        store: Store,
        challenges: Challenges,
        worker: Worker,
        conversation: Conversation,
        name: str,
        kind: Kind,
    ) -> None:
        self._hook = settings.dns_hook
        self._store = store
        self._challenges = challenges
        self._worker = worker
        self._conversation = conversation
        self._name = name
        self._kinds = challenges.kinds_for(name, has_dns_hook=settings.dns_hook is not None)
        self._kind = kind

    async def run(self) -> Certificate:
        """Go through the states of an order (RFC 8555, section 7.1.6)."""
        order, key = await self._open()
        looks = _looks()
        status = ""
        while True:
            if order.status == status:
                await trio.sleep(max(next(looks), order.retry_after))
            status = order.status
            match status:
                case "pending":
                    await self._prove(order)
                    order = await self._worker.run(self._conversation.order, order.url)
                case "ready":
                    order = await self._finalize(order, key)
                case "processing":
                    order = await self._worker.run(self._conversation.order, order.url)
                case "valid" if order.certificate is not None:
                    with _storing():
                        return await self._worker.run(self._download, order.certificate, key)
                case "invalid":
                    await self._discard()
                    raise OrderFailed(f"refused by the CA: {order.problem}")
                case _:
                    await self._discard()
                    raise OrderFailed(f"the CA calls the order {one_line(status)}, and gives no certificate")

    async def _open(self) -> tuple[Order, Key]:
        pending = await self._worker.run(self._store.load_order, self._name)
        if pending is not None:
            order = await self._look_again(pending)
            if order is not None:
                return order, pending.key
        with _storing():
            return await self._worker.run(self._make)

    async def _look_again(self, pending: PendingOrder) -> Order | None:
        try:
            order = await self._worker.run(self._conversation.order, pending.url)
        except RateLimited:
            raise
        except OrderFailed:  # It knows no such order any more.
            order = None
        if order is not None and order.status in {"pending", "ready", "processing", "valid"}:
            return order
        await self._discard()
        return None

    def _make(self) -> tuple[Order, Key]:
        # One call, so that the order is kept even if nobody waits for it any more.
        key = new_key()
        with _explaining_refusal():
            order = self._conversation.new_order(self._name)
        self._store.save_order(self._name, PendingOrder(order.url, key))
        return order, key

    async def _finalize(self, order: Order, key: Key) -> Order:
        try:
            with _explaining_refusal():
                return await self._worker.run(self._conversation.finalize, order, request_for(self._name, key))
        except RateLimited:
            raise
        except OrderFailed:
            await self._discard()
            raise

    def _download(self, url: str, key: Key) -> Certificate:
        chain = self._conversation.download(url)
        try:
            certificate = join(self._name, key, chain)
        except ValueError as error:
            self._store.remove_order(self._name)
            raise OrderFailed(f"the CA sent no usable certificate: {one_line(str(error))}") from error
        self._store.save_certificate(self._name, certificate)
        self._store.remove_order(self._name)
        return certificate

    async def _discard(self) -> None:
        with _storing():
            await self._worker.run(self._store.remove_order, self._name)

    # Proofs

    async def _prove(self, order: Order) -> None:
        for url in order.authorizations:
            authorization = await self._worker.run(self._conversation.authorization, url)
            if authorization.status == "pending":
                authorization = await self._answer(url, authorization)
            if authorization.status != "valid":
                await self._discard()
                raise ValidationFailed(f"refused by the CA: {authorization.problem}")

    async def _answer(self, url: str, authorization: Authorization) -> Authorization:
        challenge = self._choose(authorization)
        if challenge is None:
            await self._discard()
            raise ValidationFailed(f"the CA does not take {self._kind}")
        async with self._offering(challenge):
            if challenge.status == "pending":
                with _explaining_refusal():
                    await self._worker.run(self._conversation.answer, challenge)
            looks = _looks()
            while authorization.status == "pending":
                await trio.sleep(max(next(looks), authorization.retry_after))
                authorization = await self._worker.run(self._conversation.authorization, url)
        return authorization

    def _choose(self, authorization: Authorization) -> Challenge | None:
        """Return the challenge that the authority looks at already, if there is one, or that of the kind to try."""
        possible = [challenge for challenge in authorization.challenges if challenge.kind in self._kinds]
        for challenge in possible:
            if challenge.status == "processing":
                return challenge
        return next((challenge for challenge in possible if challenge.kind == self._kind), None)

    def _offering(self, challenge: Challenge) -> AbstractAsyncContextManager[None]:
        match challenge.kind:
            case "http-01":
                body = challenge.key_authorization.encode()
                return _asynchronous(self._challenges.offering_http(challenge.token, body))
            case "tls-alpn-01":
                context = challenge_context(self._name, challenge.key_authorization)
                return _asynchronous(self._challenges.offering_tls_alpn(self._name, context))
            case "dns-01":
                assert self._hook is not None  # Else the kind would not be among ours.
                return published(self._hook, f"_acme-challenge.{self._name.removeprefix('*.')}", challenge.dns_value)


def _looks() -> Iterator[float]:
    seconds = FIRST_LOOK
    while True:
        yield seconds
        seconds = min(2 * seconds, LONGEST_LOOK)


@asynccontextmanager
async def _asynchronous(context: contextlib.AbstractContextManager[None]) -> AsyncIterator[None]:
    with context:
        yield


@contextlib.contextmanager
def _explaining_refusal() -> Iterator[None]:
    """Say of a refusal in the body whose it is."""
    try:
        yield
    except OrderFailed as error:
        raise type(error)(f"refused by the CA: {error}", retry_after=error.retry_after) from error


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """Make a full disk in the body a failure like others."""
    try:
        yield
    except OSError as error:
        raise OrderFailed(f"the state folder cannot be written: {error.strerror}") from error
