"""What the client is told of a visitor at the beginning of its stream, when both sides have announced that."""

import socket

from ..addresses import TcpAddress
from ..proxy_protocol import TUNNEL_ID, ProxyHeader, encode_v2


def stream_header(tunnel_id: str, source: TcpAddress, sock: socket.socket) -> bytes:
    """Return a PROXY header, version 2: who the visitor is, which address of ours it reached, and the tunnel's id."""
    name = sock.getsockname()
    destination = TcpAddress(*name[:2]) if name else source  # One of a pair in memory has no address.
    return encode_v2(ProxyHeader(source, destination, ((TUNNEL_ID, tunnel_id.encode()),)))
