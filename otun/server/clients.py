"""The clients that are there: who they are, what they have open, and how somebody else can end them."""

import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

import attrs
import trio

from ..access import ANONYMOUS, Identity, hash_token, is_same_hash
from ..addresses import TcpAddress
from ..control.messages import Error
from ..mux import Session, SessionClosed, StreamReset
from .absence import keeper_of
from .admission import Refused
from .registry import Registration
from .reservations import Key

_RESUME_SIZE: Final = 16
"""Random bytes of a session's resume secret: 128 bits, which nobody guesses."""


@attrs.frozen
class ClientAddress:
    """Where a client comes from, and which of our addresses it has reached."""

    peer: TcpAddress
    reached_host: str

    def __str__(self) -> str:
        return str(self.peer)


@attrs.frozen(eq=False)
class OpenTunnel:
    """A tunnel of a client, where visitors find it, and what is reserved for as long as it is open.

    Call *close*, or *lose* when the client may come back.
    """

    registration: Registration
    kind: str
    url: str
    keys: tuple[Key, ...]
    close: Callable[[], None] = attrs.field(repr=False)
    lose: Callable[[], None] = attrs.field(repr=False)


class Client:
    """A client, which is its session with this server; *number* is its name for the operator.

    Whoever serves it does so within `scope`, and sees `farewell` set when it was ended from outside.
    """

    def __init__(self, number: int, session: Session, address: ClientAddress) -> None:
        self.number: int = number
        self.session: Session = session
        self.address: ClientAddress = address
        self.identity: Identity = ANONYMOUS
        self.connected_at: float = trio.current_time()
        self.tunnels: dict[str, OpenTunnel] = {}  # By the client's own ids.
        self.scope: trio.CancelScope = trio.CancelScope()
        self.farewell: Error | None = None
        self._resume_hash: bytes | None = None
        self._keeper: str | None = None

    def __repr__(self) -> str:
        return f"<Client {self.number} {self.address} {self.identity.name} tunnels={len(self.tunnels)}>"

    def __str__(self) -> str:
        return str(self.address)

    @property
    def silence(self) -> float:
        """Seconds since anything came from it.  One that is there is never silent for longer than a ping takes."""
        return trio.current_time() - self.session.last_heard

    @property
    def keeper(self) -> str:
        """Who may come back to its tunnels when it is away: its token, or else whoever is where it comes from."""
        if self._keeper is not None:
            return self._keeper
        identity = self.identity
        return f"address {self.address.peer.host}" if identity.is_anonymous else keeper_of(identity.name)

    def resume(self, before: "Client") -> None:
        """Take the place of *before*, which is the same client."""
        self._keeper = before.keeper

    def new_resume_secret(self) -> str:
        """Return the secret by which the client can take its own place later."""
        secret = secrets.token_urlsafe(_RESUME_SIZE)
        self._resume_hash = hash_token(secret)
        return secret

    def has_resume_hash(self, presented: bytes) -> bool:
        """Whether *presented* is the hash of this session's secret; the time it takes does not tell."""
        return self._resume_hash is not None and is_same_hash(self._resume_hash, presented)

    def end(self, farewell: Error, *, is_expected: bool = False) -> None:
        """Close the client's tunnels at once, and have it told why, whoever still waits for what.

        If it *is_expected* to come back, or has already, they are kept for it.
        """
        if self.farewell is None:
            self.farewell = farewell
            if is_expected:
                self.lose_tunnels()
            self.close_tunnels()
            self.scope.cancel()

    def check(self) -> None:
        """Raise `otun.server.admission.Refused` if it was ended."""
        if self.farewell is not None:
            raise Refused(self.farewell)

    def retire(self) -> None:
        """Close the tunnels of a client that leaves; what is under way for its visitors goes on."""
        registrations = [tunnel.registration for tunnel in self.tunnels.values()]
        self.close_tunnels()
        for registration in registrations:
            registration.retire()

    def close_tunnels(self) -> None:
        """Free its names and ports.  The visitors who are there stay for as long as the session does."""
        while self.tunnels:
            self.tunnels.popitem()[1].close()

    def lose_tunnels(self) -> None:
        """Keep its names and ports for when it comes back."""
        while self.tunnels:
            self.tunnels.popitem()[1].lose()


class Clients:
    """All clients that have shown who they are."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_session: dict[Session, Client] = {}
        self._by_identity: dict[str, set[Client]] = {}

    def __len__(self) -> int:
        return len(self._by_session)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_session.values()))

    def new(self, session: Session, address: ClientAddress) -> Client:
        """Return a client that is not among them yet."""
        return Client(next(self._numbers), session, address)

    @contextmanager
    def including(self, client: Client) -> Iterator[None]:
        """Have *client* among them; its tunnels are closed in the end, or kept if it was lost."""
        self._by_session[client.session] = client
        mine = self._by_identity.setdefault(client.identity.name, set())
        mine.add(client)
        try:
            yield
        except (Refused, SessionClosed, StreamReset):
            if not client.session.has_said_goodbye:
                client.lose_tunnels()
            raise
        finally:
            client.close_tunnels()
            del self._by_session[client.session]
            mine.remove(client)
            if not mine and self._by_identity.get(client.identity.name) is mine:
                del self._by_identity[client.identity.name]

    def client_of(self, registration: Registration) -> Client:
        """Return the client that has the tunnel, which must be open."""
        return self._by_session[registration.session]

    def of(self, identity: Identity) -> list[Client]:
        """Return the clients that are known by the name of *identity*."""
        return list(self._by_identity.get(identity.name, ()))

    def end_revoked(self, identity: Identity) -> None:
        """End the clients that have shown the secret which *identity* had, and has no more."""
        for client in self.of(identity):
            if client.identity.credential == identity.credential:
                client.end(Error("the token was revoked, has expired or has got a new secret", code="token_revoked"))

    def names_in_use(self) -> list[tuple[Identity, tuple[Key, ...], str]]:
        """Return what is reserved for tunnels that are open, for whom, and where they come from."""
        return [(client.identity, tunnel.keys, str(client)) for client in self for tunnel in client.tunnels.values()]

    def registrations(self) -> list[Registration]:
        """Return the tunnels that are open."""
        return [tunnel.registration for client in self for tunnel in client.tunnels.values()]

    def count_tunnels(self, identity: Identity, *, besides: Collection[Client]) -> int:
        """Return how many tunnels *identity* has, over all its sessions *besides* those."""
        mine = self._by_identity.get(identity.name, ())
        return sum(len(client.tunnels) for client in mine if client not in besides)

    def find_resumed(self, identity: Identity, secret: str) -> Client | None:
        """Return the client of *identity* whose resume *secret* that is."""
        presented = hash_token(secret)
        return next((client for client in self.of(identity) if client.has_resume_hash(presented)), None)
