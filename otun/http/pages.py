"""The relay's own replies to a visitor, when no local service answers: whole HTTP/1.1 responses.

People get a page, and programs that ask for JSON get JSON (RFC 9457's `title`, `status` and `detail`); both find the
reason in the field ``Otun-Error``.  Every reply ends its connection, and none may be cached.  Text that comes from
outside is shortened and escaped, and appears in the body only, never in a field.
"""

import json
import math
import re
from html import escape
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, get_args

import attrs

from ..errors import BadRequest
from .head import RequestHead

ErrorCode: TypeAlias = Literal[
    "bad_request",
    "bad_response",
    "banned",
    "busy",
    "daily_limit",
    "empty_reply",
    "forbidden",
    "https_needed",
    "local_service_reset",
    "local_service_timeout",
    "local_service_unreachable",
    "login_required",
    "misdirected",
    "no_tunnel_yet",
    "request_timeout",
    "server_full",
    "too_many_logins",
    "too_many_requests",
    "tunnel_closed",
    "tunnel_not_found",
    "unhealthy",
]
"""The values of the field ``Otun-Error``."""

_CODES: Final = frozenset(get_args(ErrorCode))

MAX_SHOWN: Final = 120
"""Characters of a text from outside that a page shows: a host name of ordinary length, whole."""

RETRY_AFTER: Final = 5
"""Seconds after which a visitor who was turned away as one too many may come back."""

# RFC 9110, section 15.5.6: a 405 names the methods that would do.
_ALLOW: Final = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_MAX_ACCEPT: Final = 1024  # Characters of an Accept that are looked at.

_STYLE: Final = """\
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem/1.6 system-ui, sans-serif; background: Canvas; color: CanvasText; }
main { max-width: 36rem; margin: 12vh auto; padding: 0 1.25rem; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
.status { margin: 0 0 .5rem; font: 600 .9rem ui-monospace, monospace; color: #c2410c; }
footer { margin-top: 2.5rem; padding-top: .75rem; border-top: 1px solid #8884; font-size: .85rem; opacity: .7; }"""


@attrs.frozen
class Page:
    """A reply.  *title* and *paragraphs* are plain text; *retry_after* is in seconds.

    *realm* is the name of the tunnel to which the visitor must log in.

    Raises `ValueError` for a *status* that HTTP does not define, for a *code* that is not an `ErrorCode` and for a
    *realm* that is no tunnel's name, so nothing from outside can get into a field.
    """

    status: HTTPStatus = attrs.field(converter=HTTPStatus)
    code: ErrorCode = attrs.field()
    title: str
    paragraphs: tuple[str, ...] = ()
    retry_after: int | None = None
    realm: str | None = attrs.field(default=None)

    @realm.validator
    def _check_realm(self, _: object, realm: str | None) -> None:
        if realm is not None and not re.fullmatch(r"[A-Za-z0-9-]{1,63}", realm):
            raise ValueError(f"{realm!r} is no tunnel's name")

    @code.validator
    def _check_code(self, _: object, code: str) -> None:
        if code not in _CODES:
            raise ValueError(f"{code!r} is not an error code")

    def write(self, request: RequestHead | None = None) -> bytes:
        """Return the whole response to *request*, as JSON if it prefers that; None when there is no sound request.

        To a HEAD the fields are the same and the body is left out (RFC 9110, section 9.3.2).
        """
        status = f"{self.status:d} {self.status.phrase}"
        if request is not None and _prefers_json(request):
            kind, text = "application/json", self._json()
        else:
            kind, text = "text/html; charset=utf-8", _html(status, self.code, self.title, self.paragraphs)
        body = text.encode("utf-8", "replace")
        fields = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            "Cache-Control: no-store",
            f"Otun-Error: {self.code}",
        ]
        if self.status == HTTPStatus.METHOD_NOT_ALLOWED:
            fields.append(_ALLOW)
        if self.realm is not None:
            fields.append(f'WWW-Authenticate: Basic realm="{self.realm}", charset="UTF-8"')  # RFC 7617
        if self.retry_after is not None:
            fields.append(f"Retry-After: {self.retry_after:d}")
        head = "\r\n".join([*fields, "", ""]).encode("ascii")
        return head if request is not None and request.method == "HEAD" else head + body

    def _json(self) -> str:
        detail = " ".join(self.paragraphs)
        return (
            json.dumps({"error": self.code, "status": int(self.status), "title": self.title, "detail": detail}) + "\n"
        )


def _prefers_json(request: RequestHead) -> bool:
    accept = b",".join(field.value for field in request.fields if field.name == b"accept").decode("latin-1").lower()
    if "json" not in accept:
        return False
    json_weight = html_weight = 0.0
    for part in accept[:_MAX_ACCEPT].split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind.endswith(("/json", "+json")):
            json_weight = max(json_weight, _weight(parameters))
        elif kind == "text/html":
            html_weight = _weight(parameters)
    return json_weight > html_weight


def _weight(parameters: list[str]) -> float:
    """Return the `q` of a media range (RFC 9110, section 12.4.2)."""
    text = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    return float(text) if re.fullmatch(r"[01](\.[0-9]{0,3})?", text) else 0.0


def tunnel_not_found(host: str) -> Page:
    """No tunnel has the name that *host*, the visitor's own word, asks for."""
    named = f"There is no tunnel at {_shown(host)}." if host else "The request did not say which host it is for."
    hint = "If it is yours, check that its client is running, and that the name is the one the client printed."
    return Page(404, "tunnel_not_found", "No tunnel of that name is running here", (named, hint))


def nobody_there(host: str, *, has_tunnels: bool) -> Page:
    """No tunnel answers for *host*: because none has its name, or because there is none at all."""
    return tunnel_not_found(host) if has_tunnels else no_tunnel_yet()


def no_tunnel_yet() -> Page:
    """Nobody has registered a tunnel with this server."""
    return Page(
        404,
        "no_tunnel_yet",
        "No tunnel is running here yet",
        (
            "The server works, but no client has opened a tunnel on it.",
            "Start a client beside the service that you want to show, then reload this page.",
        ),
    )


def local_service_unreachable(address: str, reason: str, *, is_timeout: bool = False) -> Page:
    """The tunnel's client could not connect to its local service at *address*, for *reason*."""
    return Page(
        504 if is_timeout else 502,
        "local_service_unreachable",
        "The local service cannot be reached",
        (
            f"The tunnel is open, but on its far side nothing could be reached at {_shown(address)}: {_shown(reason)}.",
            "If the tunnel is yours, start the service that should answer at that address, or start the client with "
            "the right one, then reload this page.",
        ),
    )


def local_service_reset(address: str) -> Page:
    """The local service at *address* (empty when the client did not tell it) broke the connection off."""
    return Page(
        502,
        "local_service_reset",
        "The local service broke the connection off",
        (
            f"The request reached the local service{_at(address)}, which reset the connection without an answer.",
            "If the tunnel is yours, see what the service has logged.",
        ),
    )


def local_service_timeout(address: str, seconds: float) -> Page:
    """The local service at *address* (empty when the client did not tell it) has not begun to answer in time."""
    return Page(
        504,
        "local_service_timeout",
        "The local service did not answer in time",
        (f"The local service{_at(address)} has taken the request, but did not answer within {seconds:g} seconds.",),
    )


def bad_response(address: str, error: str) -> Page:
    """The local service at *address* (empty when the client did not tell it) gave an answer that nobody may see."""
    return Page(
        502,
        "bad_response",
        "The local service's answer is no proper HTTP",
        (f"The answer of the local service{_at(address)} was not passed on: {_shown(error)}.",),
    )


def empty_reply(address: str = "") -> Page:
    """The tunnel's client ended the visitor's stream without a byte of an answer."""
    return Page(
        502,
        "empty_reply",
        "The local service sent no answer",
        (
            f"The request went through the tunnel, but the local service{_at(address)} closed the connection without "
            "answering.",
            "If the tunnel is yours, see what its client and the local service have logged. A service that speaks "
            "HTTPS closes such connections, too.",
        ),
    )


def tunnel_lost() -> Page:
    """The tunnel's client went away while the visitor was being served."""
    return Page(
        502,
        "tunnel_closed",
        "The tunnel has closed",
        (
            "The tunnel's client went away before it could answer this request.",
            "It may be about to reconnect: try again in a moment.",
        ),
        RETRY_AFTER,
    )


def unhealthy() -> Page:
    """The tunnel's client says that the local service is not well, and so do all others of the group."""
    return Page(
        503,
        "unhealthy",
        "The local service is not well",
        (
            "The tunnel is open, but the service behind it does not answer its health checks.",
            f"It gets no visitors until it does. Try again in {RETRY_AFTER} seconds.",
        ),
        RETRY_AFTER,
    )


def bad_request(error: BadRequest) -> Page:
    """The request was refused with *error*, whose text is shown."""
    reason = _shown(str(error))
    detail = f"{reason[:1].upper()}{reason[1:]}."
    return Page(
        error.status, "bad_request", HTTPStatus(error.status).phrase, ("This request was not passed on.", detail)
    )


def https_needed() -> Page:
    """The visitor speaks HTTP where HTTPS is spoken."""
    return Page(
        400,
        "https_needed",
        "This port speaks HTTPS",
        ("The request came without TLS. Write https:// in the place of http://.",),
    )


def misdirected(host: str) -> Page:
    """TLS for *host* does not end here, but this request has come over a connection where it does."""
    return Page(
        421,
        "misdirected",
        "This request needs a connection of its own",
        (f"TLS for {_shown(host)} ends at its local service. Connect to it under that name.",),
    )


def redirect(url: str, request: RequestHead) -> bytes:
    """Return a response that sends the visitor to *url*, which is made of a sound request's parts.

    The method stays, and so does the body (RFC 9110, section 15.4.9).
    """
    body = b"" if request.method == "HEAD" else b"This page is at %s\n" % url.encode("ascii")
    head = (
        f"HTTP/1.1 308 Permanent Redirect\r\nLocation: {url}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(url) + len('This page is at ') + 1}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def plain_text(body: bytes) -> bytes:
    """Return a response of the server's own for programs."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return (head % len(body)).encode("ascii") + body


def request_timeout(what: str, seconds: float) -> Page:
    """The visitor was too slow with *what* of its request."""
    return Page(
        408,
        "request_timeout",
        "The request took too long",
        (f"The request's {what} did not arrive within {seconds:g} seconds.",),
    )


def busy() -> Page:
    """The tunnel has as many visitors as it will take."""
    return _too_many("busy", "tunnel")


def banned() -> Page:
    """The server's operator has banned the network that the visitor comes from."""
    return Page(
        403,
        "banned",
        "You cannot come in from here",
        ("The operator of this server has banned the network that your address is in.",),
    )


def forbidden() -> Page:
    """The tunnel does not take this visitor: the address or a header is not what its owner demands."""
    return Page(
        403,
        "forbidden",
        "This tunnel is not open to everybody",
        (
            "Its owner has said who may visit it, by address or by what a request carries.",
            "If the tunnel is yours, look at --allow-ip, --deny-ip and --require-header of its client.",
        ),
    )


def login_required(name: str) -> Page:
    """Visitors of the tunnel *name* must log in, and this one has not, or not properly."""
    return Page(
        401,
        "login_required",
        "Please log in",
        ("This tunnel is for those who have a user name and a password.",),
        realm=name,
    )


def too_many_logins(seconds: float) -> Page:
    """Too many log-ins have failed from where this one comes; it was not looked at."""
    again = math.ceil(seconds)
    return Page(
        429,
        "too_many_logins",
        "Too many log-ins have failed",
        (f"None from your address is looked at for now. Try again in {again} seconds.",),
        again,
    )


def logins_busy() -> Page:
    """More log-ins wait to be checked than the server will keep."""
    return Page(
        503,
        "busy",
        "Too many log-ins at the moment",
        (f"Others are being checked. Try again in {RETRY_AFTER} seconds.",),
        RETRY_AFTER,
    )


def too_many_requests(seconds: float) -> Page:
    """The tunnel gets more requests than it may have."""
    again = math.ceil(seconds)
    return Page(
        429,
        "too_many_requests",
        "Too many requests",
        (f"This tunnel takes only so many requests a second. Try again in {again} seconds.",),
        again,
    )


def daily_limit(seconds: float) -> Page:
    """The tunnel, or its owner's together, have moved what they may in a day; the next one begins in *seconds*."""
    return Page(
        429,
        "daily_limit",
        "This tunnel has done enough for today",
        (
            "It may move only so many bytes a day, and has done so. It works again from midnight on, in UTC.",
            "If the tunnel is yours, ask whoever runs the server for more.",
        ),
        math.ceil(seconds),
    )


def server_full() -> Page:
    """The server has as many connections as it will take."""
    return _too_many("server_full", "server")


def _too_many(code: ErrorCode, what: str) -> Page:
    has_all = f"This {what} has as many open connections as it will take."
    again = f"Try again in {RETRY_AFTER} seconds."
    return Page(503, code, "Too many visitors at the moment", (has_all, again), RETRY_AFTER)


def _at(address: str) -> str:
    return f" at {_shown(address)}" if address else ""


def _shown(text: str) -> str:
    """Return *text* in a form fit for a sentence: no control or invisible character, at most `MAX_SHOWN` long."""
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def _html(status: str, code: str, title: str, paragraphs: tuple[str, ...]) -> str:
    text = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} - otun</title>
<style>
{_STYLE}
</style>
</head>
<body>
<main>
<p class="status">{status}</p>
<h1>{escape(title)}</h1>
{text}
<footer>This page comes from otun, the tunnel to this site, not from the site itself. Error code: {code}</footer>
</main>
</body>
</html>
"""
