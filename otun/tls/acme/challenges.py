"""What the ports answer while an authority validates a name."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["tls-alpn-01", "http-01", "dns-01"]
"""The ways to prove that a name is ours (RFC 8555, section 8, and RFC 8737)."""

TLS_ALPN_PROTOCOL: Final = "acme-tls/1"
"""What an authority speaks that validates a name over TLS, as ALPN says it (RFC 8737, section 4)."""


class Challenges:
    """The answers to challenges at present: filled by the `Issuer`, looked up by the ports.

    *has_http* says that visitors' port 80 leads here, *has_tls_alpn* the same of port 443.
    """

    def __init__(self, *, has_http: bool, has_tls_alpn: bool) -> None:
        self.has_http = has_http
        self.has_tls_alpn = has_tls_alpn
        self._http: dict[str, bytes] = {}
        self._tls_alpn: dict[str, ssl.SSLContext] = {}

    def __repr__(self) -> str:
        return f"<Challenges http: {len(self._http)} tls-alpn: {len(self._tls_alpn)}>"

    def http_answer(self, token: str) -> bytes | None:
        """Return the body for ``GET /.well-known/acme-challenge/TOKEN``; None is a 404 (RFC 8555, section 8.3)."""
        return self._http.get(token)

    def tls_alpn_context(self, name: str) -> ssl.SSLContext | None:
        """Return what a connection for *name* whose only ALPN protocol is ``acme-tls/1`` is answered with.

        The connection is closed after the handshake (RFC 8737, section 3).  *name* is in lower case.
        """
        return self._tls_alpn.get(name)

    def kinds_for(self, name: str, *, has_dns_hook: bool) -> tuple[Kind, ...]:
        """Return the ways in which *name* can be proven, the best first."""
        kinds: list[Kind] = []
        if not name.startswith("*."):
            if self.has_tls_alpn:
                kinds.append("tls-alpn-01")
            if self.has_http:
                kinds.append("http-01")
        if has_dns_hook:
            kinds.append("dns-01")
        return tuple(kinds)

    @contextmanager
    def offering_http(self, token: str, body: bytes) -> Iterator[None]:
        """Answer *token* with *body* while the context is open."""
        self._http[token] = body
        try:
            yield
        finally:
            del self._http[token]

    @contextmanager
    def offering_tls_alpn(self, name: str, context: ssl.SSLContext) -> Iterator[None]:
        """Answer for *name* by *context* while the context manager is open."""
        self._tls_alpn[name] = context
        try:
            yield
        finally:
            del self._tls_alpn[name]
