"""Certificates for the tests, from an authority that nobody else believes, and visitors who speak TLS."""

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from otun import TcpAddress

from .services import receive_all
from .visitors import Answer, connect, parse, request

DOMAIN: Final = "tunnel.test"

_READ_SIZE: Final = 64 * 1024


class TlsVisitor(trio.abc.HalfCloseableStream):
    """A visitor's connection, or with *is_server* a local service's, whose TLS is done in memory.

    So every record of it is the test's; and as `trio.SSLStream` does not, it tells the other side why it gives up.
    """

    def __init__(
        self,
        sock: trio.SocketStream,
        context: ssl.SSLContext,
        name: str | None = None,
        session: ssl.SSLSession | None = None,
        *,
        is_server: bool = False,
    ) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=is_server, server_hostname=name, session=session
        )

    @property
    def names(self) -> set[str]:
        """Those in the certificate that the server has shown."""
        shown = self.tls.getpeercert()
        assert shown is not None
        return {str(value) for _, value in shown["subjectAltName"]}

    def hello(self) -> bytes:
        """The ClientHello, to be sent by the test."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self._outgoing.read()
        raise AssertionError("a client does not finish first")

    async def shake_hands(self) -> None:
        """Do the handshake; what the server is told at the end, an alert or a Finished, is sent."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive_more()
            except ssl.SSLError:
                await self._flush()
                raise
            else:
                await self._flush()
                return

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _READ_SIZE):
            self.tls.write(view[start : start + _READ_SIZE])
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        await self.sock.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            try:
                return self.tls.read(max_bytes or _READ_SIZE)
            except ssl.SSLWantReadError:
                await self._receive_more()
            except ssl.SSLZeroReturnError:
                return b""

    async def send_eof(self) -> None:
        """Send close_notify, and nothing else: the connection stays open for what still comes."""
        assert not self._incoming.pending
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            await self._flush()

    async def aclose(self) -> None:
        """Leave without a goodbye."""
        await self.sock.aclose()

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self.sock.send_all(data)

    async def _receive_more(self) -> None:
        data = await self.sock.receive_some(_READ_SIZE)
        if not data:
            raise trio.BrokenResourceError("the connection has ended without close_notify")
        self._incoming.write(data)


async def connect_tls(
    address: TcpAddress,
    context: ssl.SSLContext,
    name: str | None = f"app.{DOMAIN}",
    *,
    before: bytes = b"",
    session: ssl.SSLSession | None = None,
) -> TlsVisitor:
    """Connect as a visitor, send *before*, and do the handshake, asking for *name*."""
    sock = await connect(address)
    try:
        if before:
            await sock.send_all(before)
        visitor = TlsVisitor(sock, context, name, session)
        await visitor.shake_hands()
    except BaseException:
        await trio.aclose_forcefully(sock)
        raise
    return visitor


@asynccontextmanager
async def visiting(
    address: TcpAddress, context: ssl.SSLContext, name: str | None = f"app.{DOMAIN}", *, before: bytes = b""
) -> AsyncIterator[TlsVisitor]:
    """The same, for as long as the body runs."""
    async with await connect_tls(address, context, name, before=before) as visitor:
        yield visitor


async def fetch_tls(
    address: TcpAddress,
    context: ssl.SSLContext,
    target: str = "/",
    *fields: str,
    name: str | None = f"app.{DOMAIN}",
    host: str | None = f"app.{DOMAIN}",
    method: str = "GET",
    body: bytes = b"",
) -> Answer:
    """Make one request on a connection of its own, which the server must end in an orderly way."""
    async with visiting(address, context, name) as visitor, trio.open_nursery() as nursery:
        sent = request(target, "Connection: close", *fields, host=host, method=method, body=body)
        nursery.start_soon(visitor.send_all, sent)
        return parse(await receive_all(visitor), method=method)


async def names_shown(address: TcpAddress, context: ssl.SSLContext, name: str | None) -> set[str]:
    """The names in the certificate that the server shows to who asks for *name*."""
    context.check_hostname = False
    async with visiting(address, context, name) as visitor:
        return visitor.names


async def send_in_pieces(sock: trio.SocketStream, pieces: Iterable[bytes]) -> None:
    """Send *pieces*, each in a segment of its own, as far as that can be had."""
    for piece in pieces:
        await sock.send_all(piece)
        await trio.lowlevel.checkpoint()
