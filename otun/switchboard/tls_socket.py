"""TLS on the switchboard: a socket that encrypts.

The records pass through memory rather than straight between OpenSSL and the kernel (`ssl.SSLSocket`).  That costs
nothing for bulk, and only so can a connection begin with bytes that somebody has looked at already, and one direction
end while the other goes on: OpenSSL gives a connection up when it finds unread data behind its own close_notify.
"""

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from .endpoint import EncryptedSocket
from .tls_errors import explain_tls_error

if TYPE_CHECKING:
    from typing_extensions import Buffer  # Python 3.12 has it in collections.abc.

CIPHERTEXT_SIZE: Final = 64 * 1024
"""Bytes read from the kernel, and plain bytes encrypted, at once: larger pieces leave the processor's cache."""

PLAINTEXT_SIZE: Final = 256 * 1024
"""Bytes that one `TlsSocket.recv` returns at most."""

GATHER_SIZE: Final = 256 * 1024
"""Bytes that `TlsSocket.sendmsg` joins at once: small buffers would become small records."""

OVERHEAD_LIMIT: Final = 32 * 1024
"""Bytes that one `TlsSocket.recv` decrypts at most beyond those that it returns: records of a byte each, and those
without any, cost 100 times as much for a byte as full ones, and who sends them must not keep the others waiting."""

UNSENT_LIMIT: Final = 256 * 1024
"""Bytes of ciphertext that may wait to leave: far more than one piece of data and a handshake make.  All else that the
peer can make us say is answers, to renegotiations and KeyUpdates, and nobody would stop one that does not read them."""

_RECORD_SIZE: Final = 16 * 1024

_NOTHING: Final = memoryview(b"")


class TlsBuffers:
    """Memory that TLS sockets share, all in one thread: what one of them puts there, it takes out in the same call."""

    __slots__ = ("ciphertext", "incoming", "outgoing", "plaintext")

    def __init__(self) -> None:
        self.incoming: ssl.MemoryBIO = ssl.MemoryBIO()
        self.outgoing: ssl.MemoryBIO = ssl.MemoryBIO()
        self.ciphertext: memoryview = memoryview(bytearray(CIPHERTEXT_SIZE))
        self.plaintext: memoryview = memoryview(bytearray(PLAINTEXT_SIZE))


class TlsSocket(EncryptedSocket):
    """A non-blocking socket whose bytes are encrypted; it takes *sock*'s place.

    *received* are bytes that were read from *sock* before.  `handshake` comes first.  Afterwards it behaves as any
    non-blocking socket does: `BlockingIOError` when nothing has come, or nothing can leave, now.  As with OpenSSL, the
    bytes that `send` has refused or not counted must be the first ones of the next `send`.

    Errors are `OSError`, with a text for people; a connection that ends without close_notify is one of them (RFC 8446,
    section 6.1: it may have been cut short by anybody).
    """

    __slots__ = (
        "_ahead",
        "_buffers",
        "_claimed",
        "_error",
        "_has_ended",
        "_has_shut_down",
        "_tls",
        "_unread",
        "_unsent",
    )

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        buffers: TlsBuffers,
        *,
        is_server: bool,
        server_name: str | None = None,
        received: bytes = b"",
    ) -> None:
        # Before the descriptor changes hands: this may fail for a name that is none.
        self._tls = context.wrap_bio(
            buffers.incoming, buffers.outgoing, server_side=is_server, server_hostname=server_name
        )
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.setblocking(False)
        self._buffers = buffers
        self._unread = received  # Ciphertext; less than CIPHERTEXT_SIZE after the handshake.
        self._unsent = _NOTHING  # Ciphertext.
        self._claimed = 0  # Plain bytes in `_unsent`, which are counted as sent when it has left.
        self._ahead = b""  # Plain bytes that were peeked at.
        self.has_more = True
        self._error: OSError | None = None  # To be raised behind what was read before it.
        self._has_ended = False
        self._has_shut_down = False

    @property
    def is_backlogged(self) -> bool:
        """Whether the kernel has not taken everything."""
        return len(self._unsent) > 0

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's own certificate, in DER, if it has shown one."""
        return self._tls.getpeercert(binary_form=True)

    def handshake(self) -> None:
        """Go on with the handshake until it is done.  Raises `BlockingIOError` when it cannot go on now."""
        while True:
            try:
                is_done = self._step()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._flush()  # The peer is told by an alert.
                raise explain_tls_error(error) from error
            if self._flush() and is_done:
                return
            if is_done:
                raise BlockingIOError(errno.EAGAIN, "the socket takes nothing now")
            size = super().recv_into(self._buffers.ciphertext)
            if not size:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the connection ended during the handshake")
            self._unread += self._buffers.ciphertext[:size]

    def _step(self) -> bool:
        """Go on as far as what has come allows; return whether that is the end."""
        self._hand_in()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._take_out()
        return True

    # Reading

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return at most *bufsize* bytes; b"" is the end.  The only flag there is, is `MSG_PEEK`."""
        if flags:
            if not self._ahead:
                self._ahead = self._decrypt(_RECORD_SIZE)
            return self._ahead[:bufsize]
        if self._ahead:
            data, self._ahead = self._ahead[:bufsize], self._ahead[bufsize:]
            self.has_more = True
            return data
        return self._decrypt(bufsize)

    def _decrypt(self, limit: int) -> bytes:
        if self._error is not None:
            raise _again(self._error)
        if self._has_ended:
            return b""
        if self._unsent:
            self._send_answers()
        limit = min(limit, PLAINTEXT_SIZE)
        buffers = self._buffers
        # With a buffer it returns a number, whatever the stubs say.
        read: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]
        plaintext, incoming = buffers.plaintext, buffers.incoming
        total = taken = 0
        is_emptied = False
        self._hand_in()
        try:
            while total < limit:
                # To ask in vain costs more than all the rest: OpenSSL's errors have long texts.
                if incoming.pending or self._tls.pending():
                    try:
                        size = read(limit - total, plaintext[total:limit])
                    except ssl.SSLWantReadError:
                        continue  # What was there is part of a record.
                    if not size:
                        self._has_ended = True
                        break
                    total += size
                elif total and (is_emptied or taken - total > OVERHEAD_LIMIT):
                    break
                elif taken - total > OVERHEAD_LIMIT:
                    raise OSError(errno.EPROTO, "it sends records with nothing in them")
                else:
                    size = super().recv_into(buffers.ciphertext)
                    if not size:
                        raise _cut_short()
                    incoming.write(buffers.ciphertext[:size])
                    taken += size
                    is_emptied = size < CIPHERTEXT_SIZE
        except BlockingIOError:
            if not total:
                raise
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        except OSError as error:
            # A copy: the one that is raised holds on to frames, and those to this socket.
            self._error = _again(explain_tls_error(error) if isinstance(error, ssl.SSLError) else error)
            if not total:
                raise _again(self._error) from error
        finally:
            self._take_out()
        self.has_more = total == limit or not is_emptied or self._has_ended or self._error is not None
        return bytes(plaintext[:total])

    def _send_answers(self) -> None:
        """Let the answers leave that reading has made OpenSSL write, and see that they do not become too many."""
        with contextlib.suppress(OSError):  # Reading goes on, and says so in its turn.
            self._flush()
        if len(self._unsent) > UNSENT_LIMIT:
            raise OSError(errno.EPROTO, "it wants answers, and does not read them")

    # Writing

    def send(self, data: "Buffer", flags: int = 0, /) -> int:
        """Send *data*; return how much of it has left.  Raises `BlockingIOError` for nothing."""
        view = memoryview(data)
        size, sent = len(view), 0
        while not self._unsent or self._flush():
            sent += self._claimed
            self._claimed = 0
            if sent >= size:
                return sent
            self._encrypt(view[sent : sent + CIPHERTEXT_SIZE])
            self._flush()
        if not sent:
            raise BlockingIOError(errno.EAGAIN, "the socket takes nothing now")
        return sent

    def sendmsg(self, buffers: "Iterable[Buffer]", /, *_: object) -> int:
        """Send the first of *buffers*, joined, as `send` does."""
        first, size = [], 0
        for buffer in buffers:
            first.append(buffer)
            size += len(memoryview(buffer))
            if size >= GATHER_SIZE:
                break
        return self.send(first[0] if len(first) == 1 else b"".join(first))

    def _encrypt(self, data: memoryview) -> None:
        size = len(data)
        try:
            done = self._tls.write(data)
            while done < size:
                done += self._tls.write(data[done:])
        except ssl.SSLError as error:
            raise explain_tls_error(error) from error
        finally:
            self._take_out()
        self._claimed = done

    def _flush(self) -> bool:
        """Hand the kernel what it has not taken.  Return whether that was all."""
        unsent = self._unsent
        if unsent:
            try:
                sent = super().send(unsent)
            except BlockingIOError:
                return False
            self._unsent = unsent[sent:] if sent < len(unsent) else _NOTHING  # An empty view keeps the memory, too.
        return not self._unsent

    def shutdown(self, how: int, /) -> None:
        """Send close_notify, and shut down as *how* says.  Raises `BlockingIOError` when that must be tried again.

        Everything must have left before.  Reading goes on (RFC 8446, section 6.1).
        """
        if how != socket.SHUT_RD and not self._has_shut_down:
            self._say_goodbye()
            self._has_shut_down = True
        if not self._flush():
            raise BlockingIOError(errno.EAGAIN, "the socket takes nothing now")
        super().shutdown(how)

    def _say_goodbye(self) -> None:
        while self._tls.pending():  # Part of a record, which must be read first.
            self._ahead += self._tls.read(_RECORD_SIZE)
        try:
            # Nothing is handed in: it looks for the peer's goodbye, and must not find anything else.
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # It wants to read, or the handshake is not done: what can be sent is there all the same.
        finally:
            self._take_out()

    def to_plain(self) -> tuple[socket.socket, bytes]:
        """Give the descriptor back in a plain socket, with ciphertext that has not left: an alert, for instance."""
        return socket.socket(self.family, self.type, self.proto, fileno=self.detach()), bytes(self._unsent)

    # The shared memory

    def _hand_in(self) -> None:
        if self._unread:
            self._buffers.incoming.write(self._unread)
            self._unread = b""

    def _take_out(self) -> None:
        buffers = self._buffers
        if buffers.incoming.pending:
            self._unread = buffers.incoming.read()
        if buffers.outgoing.pending:
            out = buffers.outgoing.read()
            self._unsent = memoryview(bytes(self._unsent) + out if self._unsent else out)


def _again(error: OSError) -> OSError:
    return type(error)(*error.args)


def _cut_short() -> OSError:
    return ConnectionAbortedError(errno.ECONNABORTED, "the connection ended without a TLS goodbye")
