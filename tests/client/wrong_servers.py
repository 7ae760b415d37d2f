"""Servers that are not the right ones, and remember every byte that they are told."""

import ssl

import attrs
import trio

from otun import CertificateFiles, TcpAddress

from ..server.fixtures import StartService


@attrs.define(eq=False)
class Heard:
    """What a server was told."""

    address: TcpAddress
    plain: bytearray = attrs.field(factory=bytearray)
    """As it came on the wire."""
    secret: bytearray = attrs.field(factory=bytearray)
    """What it decrypted."""
    connections: int = 0
    _ended: int = 0
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def connection_ended(self) -> None:
        self._ended += 1
        self._news.unpark_all()

    async def all_of_it(self) -> bytes:
        """What was decrypted, once the client has gone; there was one connection, and no token on the wire."""
        while not self._ended:
            await self._news.park()
        assert self.connections == self._ended == 1
        assert self.plain[:1] == b"\x16", "the client began without TLS"
        assert b"SECRET" not in self.plain
        return bytes(self.secret)


class _Recorded(trio.abc.Stream):
    """A stream whose incoming bytes are kept."""

    def __init__(self, stream: trio.SocketStream, record: bytearray) -> None:
        self._stream = stream
        self._record = record

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        self._record += data
        return bytes(data)

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def start_impostor(start_service: StartService, files: CertificateFiles) -> Heard:
    """Start a server that shows the certificate in *files*, and listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["otun/1"])

    async def listen(connection: trio.SocketStream) -> None:
        heard.connections += 1
        stream = trio.SSLStream(_Recorded(connection, heard.plain), context, server_side=True, https_compatible=True)
        try:
            while data := await stream.receive_some():
                heard.secret += data
        finally:
            heard.connection_ended()
            await trio.aclose_forcefully(stream)

    heard = Heard(TcpAddress("", 0))
    heard.address = (await start_service(listen)).address
    return heard


async def start_plain(start_service: StartService, greeting: bytes) -> Heard:
    """Start a server that does not speak TLS: it says *greeting*, and listens."""

    async def listen(connection: trio.SocketStream) -> None:
        heard.connections += 1
        try:
            await connection.send_all(greeting)
            async for data in connection:
                heard.plain += data
        finally:
            heard.connection_ended()
            await connection.aclose()

    heard = Heard(TcpAddress("", 0))
    heard.address = (await start_service(listen)).address
    return heard
