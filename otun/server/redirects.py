"""What the plain HTTP port answers by itself when there is an HTTPS port, too."""

from typing import Final

from ..http import pages
from ..http.head import RequestHead
from .encryption import Encryption
from .registry import Registry

_CHALLENGES: Final = b"/.well-known/acme-challenge/"  # RFC 8555, section 8.3

_HTTPS: Final = 443


class Redirects:
    """Sends visitors to HTTPS, if there is a certificate for the host that they want; *port* is that of HTTPS.

    With no *port*, only an authority that looks for an answer to its challenge is served.
    """

    def __init__(self, registry: Registry, encryption: Encryption, port: int | None) -> None:
        self._registry = registry
        self._encryption = encryption
        self.port: int | None = port

    def answer(self, head: RequestHead, *, is_trusted: bool) -> bytes | None:
        """Return the whole answer to a request, or None if it is for a tunnel.

        A trusted proxy's word counts, that its visitor has come by HTTPS.
        """
        if head.path.startswith(_CHALLENGES):
            automatic = self._encryption.automatic
            token = head.path.removeprefix(_CHALLENGES).decode("ascii")
            answer = automatic.http_answer(token) if automatic is not None else None
            if answer is not None:
                return pages.plain_text(answer)
        if self.port is None or not self._has_https(head) or (is_trusted and _came_by_https(head)):
            return None
        port = "" if self.port == _HTTPS else f":{self.port}"
        return pages.redirect(f"https://{head.host}{port}{head.path.decode('ascii')}", head)

    def _has_https(self, head: RequestHead) -> bool:
        if head.path == b"*" or not head.host:
            return False
        route = self._registry.find(head.host, head.path)
        return self._encryption.covers(head.host) or (route is not None and route.is_passthrough is True)


def _came_by_https(head: RequestHead) -> bool:
    said = {name: value.rpartition(b",")[2] for name, value, _, _ in head.fields}  # The last word of each counts.
    proto = said.get(b"x-forwarded-proto")
    if proto is None:
        pairs = (pair.partition(b"=") for pair in said.get(b"forwarded", b"").split(b";"))  # RFC 7239, section 4
        proto = next((value.strip(b' \t"') for name, _, value in pairs if name.strip().lower() == b"proto"), b"")
    return proto.strip().lower() == b"https"
