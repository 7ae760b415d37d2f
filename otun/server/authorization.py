"""Whether a client may have what it asks for.  The settings say what the server has, its token what is for it."""

from collections.abc import Sequence
from typing import Final

from ..access import Identity, NameKind
from .admission import refuse
from .registry import Registration

_MAX_SHOWN: Final = 200
"""Characters of what a token may, for the sentence that tells its owner."""


def authorize_hosts(identity: Identity, registration: Registration, domain: str) -> None:
    """Check a tunnel's name and host names: the very values that visitors are then routed by.

    Those under the tunnel's own name below *domain* come with the name.  Raises `otun.server.admission.Refused`.
    """
    name, grants = registration.name, identity.grants
    if not grants.may_use_name(_kind_of(registration), name):
        raise refuse(f"this token may not use the name '{name}'{_may(identity)}", "name_not_allowed")
    own = f"{name}.{domain}"
    for host in registration.hosts:
        is_own = host == own or host.endswith(f".{own}")
        if not (is_own or grants.may_use_hostname(host)):
            raise refuse(f"this token may not use the hostname '{host}'{_may(identity)}", "hostname_not_allowed")


def fit_name(identity: Identity, kind: NameKind, made_up: str) -> str:
    """Return the name of a tunnel whose client has chosen none.  Raises `otun.server.admission.Refused`."""
    name = identity.grants.fit_name(kind, made_up)
    if name is None:
        raise refuse(f"this token may not open {kind} tunnels{_may(identity)}", "name_not_allowed")
    return name


def authorize_port(identity: Identity, wanted: int | None, offered: Sequence[range]) -> tuple[range, ...]:
    """Return the *offered* ports that a TCP tunnel may have, if it may have the one that is *wanted*, or any.

    Raises `otun.server.admission.Refused`.
    """
    if wanted is not None and not identity.grants.may_use_port(wanted):
        raise refuse(f"this token may not use the port {wanted}{_may(identity)}", "port_not_allowed")
    ports = identity.grants.ports(offered)
    if offered and not ports:
        raise refuse(f"this token may use none of this server's TCP ports{_may(identity)}", "port_not_allowed")
    return ports


def authorize_another(identity: Identity, open_tunnels: int) -> None:
    """Check that the identity may have one tunnel more than the *open_tunnels* that it has, over all its sessions.

    Raises `otun.server.admission.Refused`.
    """
    if identity.max_tunnels is not None and open_tunnels >= identity.max_tunnels:
        tunnels = "1 tunnel" if identity.max_tunnels == 1 else f"{identity.max_tunnels} tunnels"
        raise refuse(f"this token may have {tunnels} at a time", "too_many_tunnels", retryable=True)


def _kind_of(registration: Registration) -> NameKind:
    return "tls" if registration.is_passthrough else "http"


def _may(identity: Identity) -> str:
    text = str(identity.grants)
    return f"; it may: {text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + '...'}"
