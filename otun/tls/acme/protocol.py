"""A conversation with an authority: blocking calls, each of one request or two, and plain values.

Every call raises `AcmeFailure`, and nothing else, for whatever the authority does.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar, cast, get_args

import acme.errors
import acme.messages
import attrs
import requests
from acme import challenges
from acme.client import ClientV2
from cryptography import x509
from josepy.errors import Error as JoseError
from josepy.interfaces import JSONDeSerializable
from josepy.jwk import JWKEC

from ..keys import Key
from .challenges import Kind
from .failures import AuthorityUnavailable
from .network import Network, explain, problem_text
from .settings import AcmeSettings
from .tls_alpn import TLSALPN01

_KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))
assert TLSALPN01.typ in _KINDS  # To import it is to register it.

_P = ParamSpec("_P")
_T = TypeVar("_T")


@attrs.frozen
class Challenge:
    """A way to prove a name, as the authority offers it.  *answer* is what it looks for (RFC 8555, section 8.1)."""

    kind: Kind
    url: str
    status: str
    token: str
    key_authorization: str
    dns_value: str
    problem: str | None


@attrs.frozen
class Authorization:
    """What is to be proven of a name.  *retry_after*: look again after so many seconds."""

    status: str
    challenges: tuple[Challenge, ...]
    retry_after: float

    @property
    def problem(self) -> str:
        """What the authority says about a challenge that it has rejected."""
        return next((challenge.problem for challenge in self.challenges if challenge.problem), "no reason given")


@attrs.frozen
class Order:
    """An order, as the authority describes it.  *retry_after*: look again after so many seconds."""

    url: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    problem: str
    retry_after: float


def _exchange(
    method: Callable[Concatenate["Conversation", _P], _T],
) -> Callable[Concatenate["Conversation", _P], _T]:
    """Have *method* raise nothing but `AcmeFailure` for what the authority answers."""

    @wraps(method)
    def call(self: "Conversation", /, *arguments: _P.args, **options: _P.kwargs) -> _T:
        with self._explaining():
            return method(self, *arguments, **options)

    return call


class Conversation:
    """Requests to the authority, signed by the account's key.  `connect` comes first; to be closed.

    *account_url* is to be set before anything is ordered.
    """

    def __init__(self, settings: AcmeSettings, key: Key) -> None:
        self._settings = settings
        self._key = JWKEC(key=key)
        self._network = Network(self._key, ca=settings.ca)
        self._client: ClientV2

    def close(self) -> None:
        """Close the connections; a thread that is in a call ends after its request."""
        self._network.abandon()
        self._network.close()

    @_exchange
    def connect(self) -> None:
        """Read the directory."""
        directory = ClientV2.get_directory(self._settings.directory, self._network)
        for resource in ("newNonce", "newAccount", "newOrder"):
            if not isinstance(directory[resource], str):
                raise TypeError(f"{resource} is no URL")
        self._client = ClientV2(directory, self._network)

    def use_account(self, url: str) -> None:
        """Sign as the account at *url*."""
        self._network.account = acme.messages.RegistrationResource(body=acme.messages.Registration(), uri=url)

    @_exchange
    def register(self) -> str:
        """Make the account, or find that of this key; agree to the terms of service.  Returns the account's URL."""
        self._network.account = None
        registration = acme.messages.NewRegistration.from_data(email=self._settings.email, terms_of_service_agreed=True)
        try:
            url = self._client.new_account(registration).uri
        except acme.errors.ConflictError as error:  # There is one already.
            url = error.location
        if not isinstance(url, str):
            raise TypeError("the account has no URL")
        self.use_account(url)
        return url

    @_exchange
    def new_order(self, name: str) -> Order:
        """Order a certificate for *name*."""
        identifier = acme.messages.Identifier(typ=acme.messages.IDENTIFIER_FQDN, value=name)
        order = acme.messages.NewOrder(identifiers=[identifier])
        response = self._post(self._client.directory["newOrder"], order)
        return self._order(response, response.headers["Location"])

    @_exchange
    def order(self, url: str) -> Order:
        """Look at an order."""
        return self._order(self._post(url, None), url)

    @_exchange
    def authorization(self, url: str) -> Authorization:
        """Look at what is to be proven."""
        body = acme.messages.Authorization.from_json(self._post(url, None).json())
        # The package turns the list into a tuple in a way that type checkers do not see.
        offered = cast(Iterable[acme.messages.ChallengeBody], body.challenges)
        found = (self._challenge(challenge) for challenge in offered)
        known = tuple(challenge for challenge in found if challenge is not None)
        return Authorization(body.status.name, known, self._network.retry_after())

    @_exchange
    def answer(self, challenge: Challenge) -> None:
        """Tell the authority that it may look."""
        self._post(challenge.url, challenges.HTTP01Response(key_authorization=""))  # All kinds' responses are ``{}``.

    @_exchange
    def finalize(self, order: Order, request: x509.CertificateSigningRequest) -> Order:
        """Hand in the request for a certificate."""
        response = self._post(order.finalize, acme.messages.CertificateRequest(csr=request))
        return self._order(response, order.url)

    @_exchange
    def download(self, url: str) -> bytes:
        """Return a certificate chain, in PEM."""
        return self._post(url, None).content

    def _post(self, url: str, body: JSONDeSerializable | None) -> requests.Response:
        return self._network.post(url, body, new_nonce_url=self._client.directory["newNonce"])

    def _order(self, response: requests.Response, url: str) -> Order:
        body = acme.messages.Order.from_json(response.json())
        return Order(
            url=url,
            status=body.status.name,
            authorizations=tuple(body.authorizations),
            finalize=body.finalize,
            certificate=body.certificate,
            problem=problem_text(body.error) if body.error else "no reason given",
            retry_after=self._network.retry_after(),
        )

    def _challenge(self, body: acme.messages.ChallengeBody) -> Challenge | None:
        challenge = body.chall
        if not isinstance(challenge, challenges.KeyAuthorizationChallenge) or challenge.typ not in _KINDS:
            return None
        dns = challenges.DNS01(token=challenge.token)
        return Challenge(
            kind=cast(Kind, challenge.typ),
            url=body.uri,
            status=body.status.name,
            token=challenge.encode("token"),
            key_authorization=challenge.key_authorization(self._key),
            dns_value=dns.validation(self._key),
            problem=problem_text(body.error) if body.error else None,
        )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except acme.messages.Error as error:
            failure = self._network.failure(error)
            if self._network.account is None and not isinstance(failure, AuthorityUnavailable):
                # Nobody gets anything without one.
                failure = AuthorityUnavailable(f"refuses us: {failure}", retry_after=failure.retry_after)
            raise failure from error
        except OSError as error:  # Those of requests, and of the file of CA certificates.
            raise AuthorityUnavailable(explain(error)) from error
        except (acme.errors.Error, JoseError, ValueError, LookupError, TypeError, AttributeError) as error:
            # Whatever is not as the package expects it; its exceptions quote whole responses.
            raise self._network.failure_without_words() from error
