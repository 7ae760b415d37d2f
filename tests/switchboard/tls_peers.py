"""Both ends of TLS connections: `TlsSocket` on one or both of them, or OpenSSL alone, moved by hand."""

import contextlib
import select
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final

import trustme

from otun.switchboard import TlsBuffers, TlsSocket

HOST: Final = "tunnel.example"

VERSIONS: Final = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

RECORD: Final = 16 * 1024
"""Plain bytes in a record (RFC 8446, section 5.1)."""


@cache
def authority() -> trustme.CA:
    return trustme.CA()


def new_server_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Show a certificate for `HOST` and this machine's addresses, and speak *version* at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(HOST, "127.0.0.1", "::1").configure_cert(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def new_client_context() -> ssl.SSLContext:
    """Believe the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


server_context = cache(new_server_context)
client_context = cache(new_client_context)


def socket_pair(*, buffer_size: int | None = None) -> tuple[socket.socket, socket.socket]:
    """Connected sockets; *buffer_size* is what each holds unread, roughly."""
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
        if buffer_size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
    return pair


def finish_handshakes(*socks: "TlsSocket | Puppet") -> None:
    """Have both ends of connections take turns until they are established."""
    left = list(socks)
    for _ in range(1000):
        for sock in list(left):
            with contextlib.suppress(BlockingIOError):
                sock.handshake()
                left.remove(sock)
        if not left:
            return
    raise AssertionError(f"{left} do not come to an end")


def tls_pair(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    *,
    buffers: TlsBuffers | None = None,
    pair: tuple[socket.socket, socket.socket] | None = None,
) -> tuple[TlsSocket, TlsSocket]:
    """A client's and a server's socket, established, which share their memory."""
    buffers = buffers or TlsBuffers()
    ours, theirs = pair or socket_pair()
    client = TlsSocket(ours, client_context(), buffers, is_server=False, server_name=HOST)
    server = TlsSocket(theirs, server_context(version), buffers, is_server=True)
    finish_handshakes(client, server)
    return client, server


class Puppet:
    """OpenSSL at the other end of a connection.  Nothing leaves it or arrives there unless the test says so."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, is_server: bool) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=is_server, server_hostname=None if is_server else HOST
        )
        self.received_ciphertext = b""

    def handshake(self) -> None:
        """Take the next steps, as `TlsSocket.handshake` does."""
        self.take_in()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.let_out()
            raise BlockingIOError from None
        self.let_out()

    def encrypt(self, data: bytes, record_size: int = RECORD) -> bytes:
        """The records that carry *data*."""
        for start in range(0, len(data), record_size):
            self.tls.write(data[start : start + record_size])
        return self.outgoing.read()

    def goodbye(self) -> bytes:
        """The record that carries close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    def let_out(self) -> None:
        """Send what OpenSSL has written."""
        self.sock.sendall(self.outgoing.read())

    def take_in(self) -> None:
        """Hand OpenSSL what has arrived."""
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(2**16):
                self.received_ciphertext += data
                self.incoming.write(data)

    def read(self) -> bytes:
        """What has arrived; the end shows in `has_ended`."""
        self.take_in()
        received = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while data := self.tls.read(2**16):
                received += data
        return received

    def has_ended(self) -> bool:
        """Whether close_notify has come behind what was read."""
        try:
            return self.tls.read(1) == b""
        except ssl.SSLZeroReturnError:  # It has said goodbye itself.
            return True
        except ssl.SSLWantReadError:
            return False


def with_puppet(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    *,
    is_server: bool = True,
    buffers: TlsBuffers | None = None,
    pair: tuple[socket.socket, socket.socket] | None = None,
    puppet_context: ssl.SSLContext | None = None,
) -> tuple[TlsSocket, Puppet]:
    """An established `TlsSocket`, as *is_server* says, and the puppet at its other end."""
    ours, theirs = pair or socket_pair()
    contexts = server_context(version), puppet_context or client_context()
    context, other = contexts if is_server else contexts[::-1]
    name = None if is_server else HOST
    sock = TlsSocket(ours, context, buffers or TlsBuffers(), is_server=is_server, server_name=name)
    puppet = Puppet(theirs, other, is_server=not is_server)
    finish_handshakes(sock, puppet)
    return sock, puppet


def receive_all_there_is(sock: TlsSocket, limit: int = 2**18) -> bytes:
    """Read until there is nothing more now, or the end."""
    received, error = read_until_error(sock, limit)
    assert error is None or isinstance(error, BlockingIOError)
    return received


def read_until_error(sock: TlsSocket, limit: int = 2**18) -> tuple[bytes, OSError | None]:
    """Read until there is nothing more now, or never; without an error it is the end."""
    received = b""
    try:
        while data := sock.recv(limit):
            assert len(data) <= limit
            received += data
    except OSError as error:
        return received, error
    return received, None


def read_to_end(sock: TlsSocket, limit: int = 2**18) -> bytes:
    """Read what a peer in another thread sends, and wait for more until its end."""
    received = b""
    while True:
        more, error = read_until_error(sock, limit)
        received += more
        if error is None:
            return received
        assert isinstance(error, BlockingIOError)
        wait_readable(sock)


def send_all_that_goes(sock: TlsSocket, data: bytes) -> int:
    """Send as `Endpoint` does, until the socket takes nothing more; return how much has left."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(memoryview(data)[sent:])
    return sent


@contextlib.contextmanager
def nothing_can_leave(sock: TlsSocket, puppet: Puppet) -> Iterator[None]:
    """Fill the kernel's buffer in the body.  The other end must have read everything."""
    filling = bytes(2**16)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += socket.socket.send(sock, filling)
    with contextlib.suppress(BlockingIOError):  # Where 64 KiB do not fit, less may.
        while True:
            size += socket.socket.send(sock, filling[:1])
    yield
    while size:
        size -= len(puppet.sock.recv(size))


def is_empty(buffers: TlsBuffers) -> bool:
    """Whether nobody's bytes are left in the memory that all share."""
    return buffers.incoming.pending == buffers.outgoing.pending == 0


def try_once(call: Callable[[], object]) -> bool:
    """Whether *call* could do all it had to do."""
    try:
        call()
    except BlockingIOError:
        return False
    return True


def wait_readable(sock: socket.socket) -> None:
    """Wait for what a peer in another thread sends."""
    assert select.select([sock], [], [], 20)[0], "nothing has come"


def wait_writable(sock: socket.socket) -> None:
    """Wait until such a peer has made room."""
    assert select.select([], [sock], [], 20)[1], "there is no room"


def forward(source: socket.socket, target: socket.socket) -> int:
    """Move what has come to one socket, which is less than sockets hold, on by another; return how much that was."""
    total = 0
    with contextlib.suppress(BlockingIOError):
        while data := source.recv(2**16):
            target.sendall(data)
            total += len(data)
    return total


def cut_up(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut the beginning of *data* into pieces of *sizes*, as often as need be to have few; then comes the rest."""
    start = 0
    for size in sizes * 20:
        yield data[start : start + size]
        start += size
        if start >= len(data):
            return
    yield data[start:]
