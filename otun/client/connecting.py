"""The client's connection to the server."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from ..addresses import TcpAddress, is_loopback_host
from ..errors import ServerNotTrusted, ServerUnreachable
from ..mux import Session, open_board_session
from ..switchboard import Switchboard, TlsBuffers, TlsSocket, TlsVerificationError, shake_hands
from ..tls.contexts import CONTROL_PROTOCOL
from ..tls.trust import Trust
from ..yamux import SessionLimits
from .proxies import ProxyAddress
from .through_proxy import ProxyFailed, connect_through

SERVER_LIMITS: Final = SessionLimits(keepalive_interval=10, ping_timeout=5)
"""Of sessions with servers: one that has vanished is noticed within 15 seconds, so that another one can be opened."""


@attrs.frozen(kw_only=True)
class Connector:
    """The way to a server.

    The connection is encrypted unless it is to be *plaintext*, or stays on this machine and there is no *trust*.
    """

    server: TcpAddress
    board: Switchboard
    trust: Trust | None = None
    plaintext: bool = False
    proxy: ProxyAddress | None = None

    @asynccontextmanager
    async def open_session(self, timeout: float) -> AsyncIterator[Session]:
        """Connect and run a session until the body ends; connecting and TLS may take *timeout* seconds each.

        Raises what `connect` and `encrypt` raise.
        """
        sock = take_socket(await connect(self.server, proxy=self.proxy, timeout=timeout))
        stays_here = self.proxy is None and _stays_here(sock, self.server)
        if not self.plaintext and (self.trust is not None or not stays_here):
            sock = await encrypt(sock, self.server, self.trust or Trust(), timeout=timeout)
        async with open_board_session(self.board, sock, "client", limits=SERVER_LIMITS) as session:
            yield session


def _stays_here(sock: socket.socket, server: TcpAddress) -> bool:
    """Whether what is sent to *server*, through no proxy, cannot leave this machine.

    Its name does not tell: `app.localhost` is what the name service says.
    """
    try:
        reached: str = sock.getpeername()[0]
    except OSError:  # It has gone already.
        return False
    return is_loopback_host(server.host) and is_loopback_host(reached)


async def connect(server: TcpAddress, *, proxy: ProxyAddress | None = None, timeout: float) -> trio.SocketStream:
    """Connect to *server* within *timeout* seconds, trying all its addresses (RFC 8305), or through *proxy*.

    Raises `ServerUnreachable`, and `AddressError` for a host that no proxy can be told.
    """
    try:
        with trio.fail_after(timeout):
            if proxy is not None:
                return await connect_through(proxy, server)
            return await trio.open_tcp_stream(server.host, server.port)
    except trio.TooSlowError:
        silence = "no answer" if proxy is None else f"the proxy at {proxy.address} did not answer"
        reason = f"{silence} within {timeout:.0f} seconds"
    except ProxyFailed as error:
        cause = error.__cause__
        reason = f"{error}: {explain_connect_error(cause)}" if isinstance(cause, OSError) else str(error)
    except OSError as error:
        reason = explain_connect_error(error)
    except UnicodeError:  # A label of the host name is empty or too long.
        reason = "the host name cannot be resolved"
    raise ServerUnreachable(f"cannot reach the server at {server}: {reason}")


async def encrypt(sock: socket.socket, server: TcpAddress, trust: Trust, *, timeout: float) -> TlsSocket:
    """Encrypt a connection to *server* within *timeout* seconds; *trust* must hold before anything else is said.

    Raises `ServerNotTrusted`, `ServerUnreachable` and `ConfigurationError`; then, and when cancelled, *sock* is closed.
    """
    try:
        context = trust.context([CONTROL_PROTOCOL])
        sock = secured = TlsSocket(
            sock, context, TlsBuffers(), is_server=False, server_name=trust.server_name(server.host)
        )
        with trio.fail_after(timeout):
            await shake_hands(secured)
        trust.check(secured)
    except BaseException as error:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        sock.close()
        if isinstance(error, TlsVerificationError):
            raise ServerNotTrusted(
                f"cannot trust the server at {server}: {error.strerror} (see --fingerprint and --ca)"
            ) from error
        if isinstance(error, trio.TooSlowError):
            raise ServerUnreachable(f"cannot reach the server at {server}: TLS took too long") from error
        if isinstance(error, OSError):
            raise ServerUnreachable(f"cannot reach the server at {server}: TLS failed: {error.strerror}") from error
        raise
    return secured


def explain_connect_error(error: OSError) -> str:
    """Return why a connection failed, in a few words."""
    cause = error.__cause__
    if cause is None or isinstance(cause, ssl.SSLError):  # What OpenSSL says has been put into words already.
        cause = error
    causes = cause.exceptions if isinstance(cause, ExceptionGroup) else [cause]
    reasons = [_explain(cause) for cause in causes if isinstance(cause, OSError)]
    return ", ".join(dict.fromkeys(reasons)) or str(error)


def _explain(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case socket.gaierror():
            return "the host name cannot be resolved"
        case _:
            text = error.strerror or str(error) or type(error).__name__
            return text[:1].lower() + text[1:]


def take_socket(stream: trio.SocketStream) -> socket.socket:
    """Return the plain socket of *stream*, which cannot be used any more."""
    return socket.socket(fileno=stream.socket.detach())
