"""OpenSSL as the one who terminates TLS: what it sees in a ClientHello.  Knows nothing of otun."""

import ssl
from collections.abc import Sequence

import attrs

ANONYMOUS = "AECDH-AES128-SHA:@SECLEVEL=0"
"""A cipher suite without certificates; TLS 1.3 has none, and its handshakes go no further than the name."""


def anonymous(protocol: int, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """A context for a client or a server that knows nothing but `ANONYMOUS`."""
    context = ssl.SSLContext(protocol)
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ANONYMOUS)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@attrs.frozen
class Seen:
    """What a server's program is told."""

    server_name: str | None
    protocol: str | None = None
    """Of those in ALPN, the one that the server has selected."""


class Terminator:
    """A TLS server that selects the first of *protocols* which a client offers."""

    def __init__(self, protocols: Sequence[str] = ()) -> None:
        self._names: list[str | None] = []
        self.context = anonymous(ssl.PROTOCOL_TLS_SERVER, protocols)
        self.context.sni_callback = lambda _object, name, _context: self._names.append(name)

    def see(self, data: bytes) -> Seen | str:
        """What OpenSSL reads in a connection that begins with *data*; a text when it refuses or waits for more.

        The name is told before anything is agreed on, so that it is seen where no cipher suite suits both, too.
        """
        self._names.clear()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = self.context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(data)
        reason = "waits for more"
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            reason = str(error.reason)
        if not self._names:
            return reason
        assert len(self._names) == 1
        return Seen(self._names[0], connection.selected_alpn_protocol())
