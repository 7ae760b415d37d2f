"""The relay's own replies to a visitor, when no local service answers: whole HTTP/1.1 responses with a page for people.

Programs find the reason in the field ``Otun-Error``.  Every reply ends its connection, and none may be cached.  Text
that comes from outside is shortened and escaped, and appears in the page only, never in a field.
"""

from html import escape
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, get_args

from ..errors import BadRequest

ErrorCode: TypeAlias = Literal[
    "bad_request",
    "busy",
    "empty_reply",
    "local_service_unreachable",
    "no_tunnel_yet",
    "tunnel_closed",
    "tunnel_not_found",
]
"""The values of the field ``Otun-Error``."""

_CODES: Final = frozenset(get_args(ErrorCode))

MAX_SHOWN: Final = 120
"""Characters of a text from outside that a page shows: a host name of ordinary length, whole."""

RETRY_AFTER: Final = 5
"""Seconds after which a visitor who was turned away as one too many may come back."""

# RFC 9110, section 15.5.6: a 405 names the methods that would do.
_ALLOW: Final = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

_STYLE: Final = """\
:root { color-scheme: light dark; }
body { margin: 0; font: 1rem/1.6 system-ui, sans-serif; background: Canvas; color: CanvasText; }
main { max-width: 36rem; margin: 12vh auto; padding: 0 1.25rem; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
.status { margin: 0 0 .5rem; font: 600 .9rem ui-monospace, monospace; color: #c2410c; }
footer { margin-top: 2.5rem; padding-top: .75rem; border-top: 1px solid #8884; font-size: .85rem; opacity: .7; }"""


def page(
    status: int,
    code: ErrorCode,
    title: str,
    *paragraphs: str,
    is_head: bool = False,
    retry_after: int | None = None,
) -> bytes:
    """Return a whole response with a page that shows *title* and *paragraphs*, all of them plain text.

    With *is_head*, the answer to a HEAD request, the fields are the same and the body is left out (RFC 9110, section
    9.3.2).  *retry_after* is in seconds.  Raises `ValueError` for a *status* that HTTP does not define and for a
    *code* that is not an `ErrorCode`, so nothing from outside can get into a field.
    """
    if code not in _CODES:
        raise ValueError(f"{code!r} is not an error code")
    status_text = f"{status:d} {HTTPStatus(status).phrase}"
    body = _html(status_text, code, title, paragraphs).encode("utf-8", "replace")
    fields = [
        f"HTTP/1.1 {status_text}",
        "Content-Type: text/html; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        f"Otun-Error: {code}",
    ]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        fields.append(_ALLOW)
    if retry_after is not None:
        fields.append(f"Retry-After: {retry_after:d}")
    head = "\r\n".join([*fields, "", ""]).encode("ascii")
    return head if is_head else head + body


def tunnel_not_found(host: str, *, is_head: bool = False) -> bytes:
    """No tunnel has the name that *host*, the visitor's own word, asks for."""
    named = f"There is no tunnel at {_shown(host)}." if host else "The request did not say which host it is for."
    hint = "If it is yours, check that its client is running, and that the name is the one the client printed."
    return page(404, "tunnel_not_found", "No tunnel of that name is running here", named, hint, is_head=is_head)


def nobody_there(host: str, *, has_tunnels: bool, is_head: bool = False) -> bytes:
    """No tunnel answers for *host*: because none has its name, or because there is none at all."""
    return tunnel_not_found(host, is_head=is_head) if has_tunnels else no_tunnel_yet(is_head=is_head)


def no_tunnel_yet(*, is_head: bool = False) -> bytes:
    """Nobody has registered a tunnel with this server."""
    return page(
        404,
        "no_tunnel_yet",
        "No tunnel is running here yet",
        "The server works, but no client has opened a tunnel on it.",
        "Start a client beside the service that you want to show, then reload this page.",
        is_head=is_head,
    )


def local_service_unreachable(address: str, reason: str, *, is_head: bool = False) -> bytes:
    """The tunnel's client could not connect to its local service at *address*, for *reason*."""
    return page(
        502,
        "local_service_unreachable",
        "The local service cannot be reached",
        f"The tunnel is open, but on its far side nothing could be reached at {_shown(address)}: {_shown(reason)}.",
        "If the tunnel is yours, start the service that should answer at that address, or start the client with the "
        "right one, then reload this page.",
        is_head=is_head,
    )


def empty_reply(*, is_head: bool = False) -> bytes:
    """The tunnel's client ended the visitor's stream without a byte of an answer."""
    return page(
        502,
        "empty_reply",
        "The local service sent no answer",
        "The request went through the tunnel, but its far side closed the connection without answering.",
        "If the tunnel is yours, see what its client and the local service have logged. A service that speaks HTTPS "
        "closes such connections, too.",
        is_head=is_head,
    )


def tunnel_lost(*, is_head: bool = False) -> bytes:
    """The tunnel's client went away while the visitor was being served."""
    return page(
        502,
        "tunnel_closed",
        "The tunnel has closed",
        "The tunnel's client went away before it could answer this request.",
        "It may be about to reconnect: try again in a moment.",
        is_head=is_head,
    )


def bad_request(error: BadRequest, *, is_head: bool = False) -> bytes:
    """The request was refused with *error*, whose text is shown."""
    phrase = HTTPStatus(error.status).phrase
    reason = _shown(str(error))
    detail = f"{reason[:1].upper()}{reason[1:]}."
    return page(error.status, "bad_request", phrase, "This request was not passed on.", detail, is_head=is_head)


def busy(*, is_head: bool = False) -> bytes:
    """The server, or the tunnel, has as many visitors as it will take."""
    return page(
        503,
        "busy",
        "Too many visitors at the moment",
        "This tunnel has as many open connections as it will take.",
        f"Try again in {RETRY_AFTER} seconds.",
        is_head=is_head,
        retry_after=RETRY_AFTER,
    )


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
