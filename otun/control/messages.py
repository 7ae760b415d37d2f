"""What client and server say to each other on a session's control stream.

The client says `Register` first and is answered by `Registered` or `Error`; from then on it says `Heartbeat` every
now and then, and is answered by `HeartbeatAck`, as for `Health`.  Between them it may say `Register` again, each time
with another *id*, which its answer carries: those are further tunnels on the same session.  A server that does not
announce `stream_header` takes one tunnel only.
"""

from typing import Final, TypeAlias

import attrs


@attrs.frozen
class Register:
    """The client asks for a tunnel.  Without a *subdomain* the server chooses a name.

    *id* is the client's word for the tunnel; *kind* is ``http`` or ``tcp``, and *remote_port* the port that a TCP
    tunnel would like.  *hostnames* lead to an HTTP tunnel beside its name, and *path* is the prefix of the paths that
    are for it.  *host_header*, *request_headers* and *response_headers* (``Name: value`` or ``-Name``) are what the
    server changes in HTTP heads; *local* is the local service's address, which visitors see when it fails.
    *stream_header*: the client reads a PROXY header, version 2, at the beginning of each stream.

    Visitors must come from *allow_ip* and not from *deny_ip* (networks), send every header of *require_header*
    (``Name`` or ``Name: value``), and log in as one of *basic_auth* (``USER:HASH``, by argon2id).  A client that asks
    for these must see that its answer names them.

    *health*: the client would like to say `Health`.  *group*: other sessions of the same token, which say so too, may
    have the same tunnel beside this one.

    A client that would like to come back gives *resume*: empty, or the secret of a session of its own, whose place it
    takes.
    """

    subdomain: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    id: str = ""
    kind: str = "http"
    remote_port: int | None = None
    hostnames: tuple[str, ...] = ()
    path: str = ""
    host_header: str = ""
    request_headers: tuple[str, ...] = attrs.field(default=(), repr=False)
    response_headers: tuple[str, ...] = attrs.field(default=(), repr=False)
    local: str = ""
    stream_header: bool = False
    basic_auth: tuple[str, ...] = attrs.field(default=(), repr=False)
    allow_ip: tuple[str, ...] = ()
    deny_ip: tuple[str, ...] = ()
    require_header: tuple[str, ...] = attrs.field(default=(), repr=False)
    health: bool = False
    group: bool = False
    resume: str | None = attrs.field(default=None, repr=False)


PROTECTIONS: Final = ("basic_auth", "allow_ip", "deny_ip", "require_header")
"""The fields of `Register` by which a client asks for rules about visitors."""


@attrs.frozen
class Registered:
    """The server has opened a tunnel: *subdomain* is its name, and visitors reach it at *url*.

    *stream_header*: the server sends a PROXY header at the beginning of each stream, with the tunnel's *id* in it.
    *protections* are the names of the fields by which the client has asked for rules about visitors, if the server
    keeps them: one that does not know of such rules names none.  *health*: the client may say `Health`.  *resume* is
    the session's secret, for a client that has asked for one with its first tunnel: who shows it takes the session's
    place.
    """

    url: str
    subdomain: str
    id: str = ""
    stream_header: bool = False
    protections: tuple[str, ...] = ()
    health: bool = False
    resume: str = attrs.field(default="", repr=False)


@attrs.frozen
class Heartbeat:
    """The client is alive."""


@attrs.frozen
class HeartbeatAck:
    """The server is alive, and has heard the client's heartbeat."""


@attrs.frozen
class Health:
    """The local service of the client's tunnel *id* is *healthy* again, or not any more: visitors go elsewhere then."""

    healthy: bool
    id: str = ""


@attrs.frozen
class Error:
    """The server refuses.

    *message* is for people.  *code* names the reason for programs, and is empty when the server gives none.
    *retryable* says whether the same request may succeed later.  *id* is the tunnel's that was asked for; an error
    without one ends the session.
    """

    message: str
    code: str = ""
    retryable: bool = False
    id: str = ""


Message: TypeAlias = Register | Registered | Heartbeat | HeartbeatAck | Health | Error
