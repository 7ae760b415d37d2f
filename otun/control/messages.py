"""What client and server say to each other on a session's control stream.

The client says `Register` first and is answered by `Registered` or `Error`; from then on it says `Heartbeat` every
now and then and is answered by `HeartbeatAck`.
"""

from typing import TypeAlias

import attrs


@attrs.frozen
class Register:
    """The client asks for a tunnel.  Without a *subdomain* the server chooses a name."""

    subdomain: str | None = None
    token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Registered:
    """The server has opened a tunnel: *subdomain* is its name, and visitors reach it at *url*."""

    url: str
    subdomain: str


@attrs.frozen
class Heartbeat:
    """The client is alive."""


@attrs.frozen
class HeartbeatAck:
    """The server is alive, and has heard the client's heartbeat."""


@attrs.frozen
class Error:
    """The server refuses.

    *message* is for people.  *code* names the reason for programs, and is empty when the server gives none.
    *retryable* says whether the same request may succeed later.
    """

    message: str
    code: str = ""
    retryable: bool = False


Message: TypeAlias = Register | Registered | Heartbeat | HeartbeatAck | Error
