"""Connections that share one `TlsBuffers`, and say things that no other one says."""

import contextlib
import ssl
from collections.abc import Iterator

from otun.switchboard import TlsBuffers, TlsSocket

from .tls_peers import HOST, Puppet, client_context, server_context, socket_pair, try_once

BUFFERS = TlsBuffers()
"""Those of all connections here: what one leaves there meets all others."""


class Connection:
    """One of those that share, its peer, and what each has said."""

    def __init__(self, number: int, version: ssl.TLSVersion, *, is_server: bool) -> None:
        ours, theirs = socket_pair(buffer_size=8 * 1024)
        contexts = server_context(version), client_context()
        context, other = contexts if is_server else contexts[::-1]
        name = None if is_server else HOST
        self.sock = TlsSocket(ours, context, BUFFERS, is_server=is_server, server_name=name)
        self.puppet = Puppet(theirs, other, is_server=not is_server)
        # No two connections say the same, so that it shows whose bytes are read.
        self.pattern = b"".join(f"{number}:{index} ".encode() for index in range(20_000))
        self.is_established = self.is_puppet_established = self.may_fail = False
        self.wire = b""  # From the puppet, and not yet on its way.
        self.said = self.heard = self.sent = self.offered = 0
        self.puppet_heard = 0

    def step(self) -> None:
        with self.failing():
            self.is_established |= try_once(self.sock.handshake)
        self.puppet.take_in()
        with contextlib.suppress(ssl.SSLError):
            self.puppet.tls.do_handshake()
            self.is_puppet_established = True
        self.wire += self.puppet.outgoing.read()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """A connection that was harmed may fail."""
        try:
            yield
        except BlockingIOError:
            pass
        except OSError:
            assert self.may_fail

    def deliver(self, size: int) -> None:
        with contextlib.suppress(OSError):
            size = self.puppet.sock.send(self.wire[:size])
            self.wire = self.wire[size:]

    def hear(self, limit: int, flags: int) -> None:
        with self.failing():
            data = self.sock.recv(limit, flags)
            assert self.pattern.startswith(data, self.heard)
            if not flags:
                self.heard += len(data)

    def send(self, size: int) -> None:
        self.offered = max(self.offered, min(self.sent + size, len(self.pattern)))
        with self.failing():
            self.sent += self.sock.send(memoryview(self.pattern)[self.sent : self.offered])

    def puppet_hears(self) -> None:
        with contextlib.suppress(ssl.SSLError):
            data = self.puppet.read()
            assert self.pattern.startswith(data, self.puppet_heard)
            self.puppet_heard += len(data)

    def close(self) -> None:
        self.sock.close()
        self.puppet.sock.close()
