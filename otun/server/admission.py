"""Who may register what."""

import re
from collections.abc import Callable
from typing import Final

from ..access.rules import VisitorRules
from ..control.messages import Error, Register
from ..control.names import covers, normalize_hostname, normalize_name
from ..errors import BadRequest, ConfigurationError, InvalidName, OtunError
from ..http.forwarding import NO_EDITS, FieldEdits
from ..http.hosts import parse_authority
from ..mux import Session
from .registry import EVERY_PATH, Registration, Registry
from .settings import ServerSettings

MAX_TUNNELS: Final = 64
"""Tunnels on one session."""

MAX_ID_LENGTH: Final = 64
"""Characters of a tunnel's id, which stands at the beginning of each of its streams."""

MAX_HOSTNAMES: Final = 16
"""Host names of one tunnel."""

MAX_EDITS: Final = 32
"""Headers that a tunnel may change, in each direction."""

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_MAX_PATH_LENGTH: Final = 1024


_MAX_SENTENCE: Final = 500
"""Characters of a refusal's text, which may repeat what the client has said: no message has room for all of that."""


class Refused(OtunError):
    """The registration is refused; *answer* says so to the client."""

    def __init__(self, answer: Error) -> None:
        super().__init__(answer.message)
        self.answer = answer


def refuse(message: str, code: str, *, retryable: bool = False) -> Refused:
    """Return the refusal with an answer of these parts, of which the *message* may be cut."""
    shown = message if len(message) <= _MAX_SENTENCE else f"{message[:_MAX_SENTENCE]}..."
    return Refused(Error(shown, code=code, retryable=retryable))


def check_id(request: Register) -> None:
    """Raise `Refused` unless a stream's header has room for the tunnel's id."""
    if len(request.id) > MAX_ID_LENGTH:
        raise refuse(f"a tunnel's id has at most {MAX_ID_LENGTH} characters", "id_invalid")


def admit_host(
    request: Register,
    session: Session,
    owner: str | None,
    keeper: str,
    settings: ServerSettings,
    registry: Registry,
    free_name: Callable[[], str],
) -> Registration:
    """Return the tunnel with host names that is asked for, if it makes sense on this server; it is not open yet.

    *free_name* makes a name up, if the client has chosen none.  Raises `Refused`.
    """
    if request.kind == "tls" and (request.path or request.host_header or request.request_headers):
        raise refuse("a TLS tunnel cannot look into requests: it has no path and no headers", "header_invalid")
    rules = visitor_rules(request)
    name = chosen_name(request) or free_name()
    hosts = tuple(_allowed_hostname(text, name, settings, registry) for text in request.hostnames)
    if len(hosts) > MAX_HOSTNAMES:
        raise refuse(f"a tunnel has at most {MAX_HOSTNAMES} host names", "hostname_not_allowed")
    return Registration(
        name,
        session,
        hosts=tuple(dict.fromkeys(hosts)),
        path=_path(request.path),
        tunnel_id=request.id,
        owner=owner,
        keeper=keeper,
        local=request.local,
        host_header=_host_header(request.host_header),
        request_edits=_edits(request.request_headers).hiding(rules.secret_fields if rules else frozenset()),
        response_edits=_edits(request.response_headers).confined(registry.domain),
        has_stream_header=request.stream_header,
        is_passthrough=request.kind == "tls",
        rules=rules,
        in_group=request.group,
    )


def chosen_name(request: Register) -> str | None:
    """Return the name that the client would like, if it does.  Raises `Refused`."""
    if not request.subdomain:  # Go programs send "" for none.
        return None
    try:
        return normalize_name(request.subdomain)
    except InvalidName as error:
        raise refuse(str(error), "name_invalid") from error


def visitor_rules(request: Register) -> VisitorRules | None:
    """Return what visitors are to comply with.  Raises `Refused`."""
    if request.kind != "http" and (request.basic_auth or request.require_header):
        raise refuse(
            f"a {request.kind.upper()} tunnel can only look at visitors' addresses: it has no log-in and no headers",
            "protection_invalid",
        )
    try:
        return VisitorRules.parse(
            basic_auth=request.basic_auth,
            allow_ip=request.allow_ip,
            deny_ip=request.deny_ip,
            require_header=request.require_header,
        )
    except ConfigurationError as error:
        raise refuse(str(error), "protection_invalid") from error


def _allowed_hostname(text: str, name: str, settings: ServerSettings, registry: Registry) -> str:
    try:
        hostname = normalize_hostname(text)
    except InvalidName as error:
        raise refuse(str(error), "hostname_invalid") from error
    domain = registry.domain
    own = registry.host_of(name)
    if hostname == domain or hostname.endswith(f".{domain}"):
        # Below the domain, names say what belongs to whom.
        if hostname != own and not hostname.endswith(f".{own}"):
            raise refuse(
                f"hostname '{hostname}' is under this server's domain: choose it by the tunnel's name, "
                f"or one under {own}, such as *.{own}",
                "hostname_not_allowed",
            )
    elif not any(covers(pattern, hostname) for pattern in settings.allow_hostnames):
        raise refuse(
            f"hostname '{hostname}' is not allowed on this server; its operator can allow it with --allow-hostname",
            "hostname_not_allowed",
        )
    return hostname


def _path(text: str) -> bytes:
    if len(text) > _MAX_PATH_LENGTH or not _PATH.fullmatch(text):
        raise refuse("the path is not valid: write one such as /api", "path_invalid")
    return text.rstrip("/").encode() or EVERY_PATH


def _host_header(text: str) -> bytes | None:
    if not text:
        return None
    try:
        parse_authority(text.encode())
    except BadRequest as error:
        raise refuse(f"the Host for the local service is not valid: {error}", "header_invalid") from error
    return text.encode()


def _edits(texts: tuple[str, ...]) -> FieldEdits:
    if not texts:
        return NO_EDITS
    if len(texts) > MAX_EDITS:
        raise refuse(f"a tunnel changes at most {MAX_EDITS} headers in each direction", "header_invalid")
    try:
        return FieldEdits.parse(texts)
    except ConfigurationError as error:
        raise refuse(str(error), "header_invalid") from error
