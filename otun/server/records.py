"""What the server's database holds, as values.  Times are whole seconds since the epoch."""

from typing import Literal, TypeAlias

import attrs

TokenState: TypeAlias = Literal["active", "expired", "revoked"]

ReservationKind: TypeAlias = Literal["name", "host", "port"]
"""What a reservation keeps: a name under the domain, for tunnels of any kind; another host name; a TCP port."""


@attrs.frozen
class Actor:
    """Who changes something, and from where: for the audit."""

    who: str
    origin: str


@attrs.frozen(kw_only=True)
class TokenRecord:
    """A token: everything but its secret, of which there is a hash.

    *may* is the text of `otun.access.Grants`, and None stands for everything; *limits* is that of `otun.access.Limits`.
    """

    name: str
    hash: bytes = attrs.field(repr=False)
    may: str | None = None
    max_tunnels: int | None = None
    created: int
    expires: int | None = None
    revoked: int | None = None
    last_used: int | None = None
    limits: str | None = None

    def state(self, now: float) -> TokenState:
        """Return whether it is good for anything at *now*."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "active"


@attrs.frozen
class Reservation:
    """A name that nobody may have but *identity*; *until* is None when that is for good."""

    kind: ReservationKind
    name: str
    identity: str
    until: int | None = None


@attrs.frozen(eq=False)
class Claim:
    """A reservation that a client, *by* its token, has made or prolonged."""

    wanted: Reservation
    by: Actor


@attrs.frozen
class Ban:
    """A network whose clients and visitors are turned away; *until* is None when that is for good."""

    network: str
    reason: str
    until: int | None = None

    def has_ended(self, now: float) -> bool:
        """Whether it is over at *now*."""
        return self.until is not None and self.until <= now


@attrs.frozen
class AuditEntry:
    """Something that was changed: *what* is the name of the operation, such as `token.create`."""

    at: int
    who: str
    what: str
    origin: str
    detail: str
