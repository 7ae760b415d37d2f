"""Proxies for the client's tests: they take everybody to one place, and note whom they were asked for."""

import socket
from base64 import b64encode
from contextlib import suppress
from typing import Final

import attrs
import trio

from otun.addresses import TcpAddress

from ..server.services import Handler, receive_head, start_service
from ..server.visitors import receive_exactly

GRANTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOCKS_GRANTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
SOCKS_REFUSED: Final = b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"


@attrs.define(eq=False)
class Proxy:
    """A running proxy that lets in those that show *credentials*, or everybody."""

    leads_to: TcpAddress
    credentials: str | None = None
    address: TcpAddress = attrs.field(init=False)
    asked: list[str] = attrs.field(factory=list, init=False)

    async def start(self, nursery: trio.Nursery, handler: Handler) -> None:
        """Have *handler* called for each connection to a free port."""
        self.address = (await start_service(nursery, handler)).address

    async def connect(self, client: trio.SocketStream, host: str, port: int) -> None:
        """Go where it leads to, and relay until both ends have finished; *host* and *port* is what the client wants."""
        self.asked.append(str(TcpAddress(host, port)))
        async with (
            await trio.open_tcp_stream(self.leads_to.host, self.leads_to.port) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(copy, client, server)
            nursery.start_soon(copy, server, client)

    async def serve_http(self, client: trio.SocketStream) -> None:
        """Answer one CONNECT."""
        head, rest = await receive_head(client)
        assert not rest
        line, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        fields = dict(text.split(": ", 1) for text in lines)
        method, target, version = line.split(" ")
        assert (method, version, fields["Host"]) == ("CONNECT", "HTTP/1.1", target)
        shown = fields.get("Proxy-Authorization")
        if self.credentials is not None and shown != f"Basic {b64encode(self.credentials.encode()).decode()}":
            await client.send_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        assert self.credentials is not None or shown is None
        host, _, port = target.rpartition(":")
        await client.send_all(GRANTED)
        await self.connect(client, host.strip("[]"), int(port))

    async def serve_socks(self, client: trio.SocketStream) -> None:
        """Answer one SOCKS5 CONNECT (RFC 1928, RFC 1929)."""
        version, count = await receive_exactly(client, 2)
        assert version == 5
        methods = await receive_exactly(client, count)
        if self.credentials is None:
            assert 0 in methods
            await client.send_all(b"\x05\x00")
        elif 2 not in methods:
            await client.send_all(b"\x05\xff")
            return
        else:
            await client.send_all(b"\x05\x02")
            assert await receive_exactly(client, 1) == b"\x01"
            shown = [(await receive_string(client)).decode() for _ in range(2)]
            is_welcome = ":".join(shown) == self.credentials
            await client.send_all(b"\x01\x00" if is_welcome else b"\x01\x01")
            if not is_welcome:
                return
        assert await receive_exactly(client, 3) == b"\x05\x01\x00"
        match await receive_exactly(client, 1):
            case b"\x01":
                host = socket.inet_ntop(socket.AF_INET, await receive_exactly(client, 4))
            case b"\x04":
                host = socket.inet_ntop(socket.AF_INET6, await receive_exactly(client, 16))
            case b"\x03":
                host = (await receive_string(client)).decode()
            case kind:
                raise AssertionError(f"unknown kind of address {kind!r}")
        port = int.from_bytes(await receive_exactly(client, 2))
        await client.send_all(SOCKS_GRANTED)
        await self.connect(client, host, port)


async def receive_string(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive bytes that come behind their number."""
    return await receive_exactly(stream, (await receive_exactly(stream, 1))[0])


async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """Pass on what comes until it ends; an end by reset is passed on as an orderly one."""
    with suppress(trio.BrokenResourceError):
        async for piece in source:
            await sink.send_all(piece)
        await sink.send_eof()
