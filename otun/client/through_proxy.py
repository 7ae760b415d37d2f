"""A connection to the server through a proxy.

SOCKS5 is python-socks' business.  CONNECT is not: python-socks takes one piece of what the proxy sends for the whole
answer, so that bytes of the server right behind it are lost, and an answer in two pieces is misread.
"""

import math
import socket
from base64 import b64encode
from typing import Final, assert_never

import idna
import trio

from ..addresses import TcpAddress, parse_server_address
from ..control.excerpt import excerpt
from ..errors import BadResponse
from ..http.head import ResponseHead, ResponseHeadReader
from .proxies import ProxyAddress

MAX_INTERIM_RESPONSES: Final = 8
"""Heads that a proxy may send before its answer (RFC 9110, section 15.2): hardly any sends even one."""

_PEEKED: Final = 4096
"""Bytes that are looked at, at a time: nearly every answer has less."""

_MAX_SHOWN: Final = 60
"""Characters of a proxy's own words in an error message, as in `excerpt`."""


class ProxyFailed(Exception):
    """The proxy cannot be reached, or does not let us through.

    The text goes on from "cannot reach the server:"; the reason is missing if the error's cause is an `OSError`, which
    tells it.
    """

    def __init__(self, proxy: ProxyAddress, problem: str) -> None:
        super().__init__(f"the proxy at {proxy.address} {problem}")


async def connect_through(proxy: ProxyAddress, server: TcpAddress) -> trio.SocketStream:
    """Connect to *server* through *proxy*; the first byte to be received is the server's.

    Takes as long as the proxy likes.  Raises `ProxyFailed`; `AddressError` or `UnicodeError` for a host that can be
    none, and `socket.gaierror` when the host has to be resolved here and cannot be.
    """
    host = server.host if server.host.isascii() else idna.encode(server.host, uts46=True).decode()
    # A value that was not made by a parser could have anything in it, and is about to become a line of a request.
    destination = parse_server_address(str(TcpAddress(host, server.port)))
    match proxy.scheme:
        case "http":
            return await _connect_by_http(proxy, destination)
        case "socks5" | "socks5h":
            return await _connect_by_socks(proxy, destination)
        case _:
            assert_never(proxy.scheme)


async def _connect_by_socks(proxy: ProxyAddress, server: TcpAddress) -> trio.SocketStream:
    # Imported for those who use it, as few do.  Version 2 of its interface tries all of the proxy's addresses.
    from python_socks import ProxyConnectionError, ProxyError, ProxyType
    from python_socks.async_.trio.v2 import Proxy

    host, port = proxy.address.host, proxy.address.port
    is_resolved_there = proxy.scheme == "socks5h"
    dialer = Proxy(ProxyType.SOCKS5, host, port, proxy.user, proxy.password, rdns=is_resolved_there)
    try:
        connection = await dialer.connect(server.host, server.port, timeout=math.inf)
    except ProxyConnectionError as error:
        raise ProxyFailed(proxy, "cannot be reached") from error.__context__  # the error that says more
    except ProxyError as error:
        raise ProxyFailed(proxy, f"refused: {_shown(str(error))}") from error
    except trio.BrokenResourceError as error:
        raise ProxyFailed(proxy, "broke the connection off") from error
    except ValueError as error:  # The name that it says it has bound is decoded, although nobody asks for it.
        raise ProxyFailed(proxy, "sent an answer that cannot be read") from error
    stream = connection.trio_stream
    assert isinstance(stream, trio.SocketStream)  # It would be TLS if we had asked for that.
    return stream


async def _connect_by_http(proxy: ProxyAddress, server: TcpAddress) -> trio.SocketStream:
    try:
        stream = await trio.open_tcp_stream(proxy.address.host, proxy.address.port)
    except OSError as error:
        raise ProxyFailed(proxy, "cannot be reached") from error
    try:
        await _ask_to_connect(stream, proxy, server)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _ask_to_connect(stream: trio.SocketStream, proxy: ProxyAddress, server: TcpAddress) -> None:
    try:
        await stream.send_all(_connect_request(proxy, server))
        head = await _receive_answer(stream)
    except (OSError, trio.BrokenResourceError) as error:
        raise ProxyFailed(proxy, "broke the connection off") from error
    except BadResponse as error:
        raise ProxyFailed(proxy, f"sent an answer that cannot be used: {error}") from error
    if head is None:
        raise ProxyFailed(proxy, "closed the connection")
    if not 200 <= head.status < 300:  # RFC 9110, section 9.3.6
        reason = head.reason.decode("latin-1").strip()
        raise ProxyFailed(proxy, f"refused: {_shown(f'{head.status} {reason}'.strip())}")


def _connect_request(proxy: ProxyAddress, server: TcpAddress) -> bytes:
    lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}", "User-Agent: otun"]
    if proxy.user is not None:
        shown = b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {shown}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _receive_answer(stream: trio.SocketStream) -> ResponseHead | None:
    """Receive the head of the final response, and not a byte more; None if the connection ends before.

    A successful answer has no body, whatever its fields say (RFC 9110, section 9.3.6), though fields that contradict
    each other are refused here as everywhere.  Raises `BadResponse`, `OSError`.
    """
    for _ in range(1 + MAX_INTERIM_RESPONSES):
        head = await _receive_head(stream.socket)
        if head is None or not head.is_interim:
            return head
    raise BadResponse(f"more than {MAX_INTERIM_RESPONSES} interim responses came before it")


async def _receive_head(sock: trio.socket.SocketType) -> ResponseHead | None:
    reader = ResponseHeadReader()
    head = None
    while head is None:
        seen = await sock.recv(_PEEKED, socket.MSG_PEEK)
        if not seen:
            return None
        head = reader.feed(seen)
        await _discard(sock, len(seen) - len(reader.rest))
    return head


async def _discard(sock: trio.socket.SocketType, count: int) -> None:
    """Receive *count* bytes that have been looked at."""
    while count:
        count -= len(await sock.recv(count))


def _shown(text: str) -> str:
    """Return a proxy's words as they may stand in a message: plain ones as they are."""
    is_plain = text.isascii() and text.isprintable() and len(text) <= _MAX_SHOWN
    return text if is_plain else excerpt(text)
