"""What a `TlsSocket` keeps when nothing happens, and when it has failed."""

import gc
import socket
import tracemalloc
import weakref

import pytest

from otun.switchboard import TlsBuffers

from .tls_peers import VERSIONS, read_until_error, receive_all_there_is, tls_pair, with_puppet

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@versions
def test_an_idle_connection_keeps_nothing_of_what_it_has_moved(version) -> None:
    """50 of them would keep 64 KiB of ciphertext each, and as much that was decrypted."""
    buffers = TlsBuffers()
    connections = [tls_pair(version, buffers=buffers) for _ in range(50)]

    def exchange() -> None:
        for pair in connections:
            for sender, receiver in (pair, pair[::-1]):
                assert sender.send(bytes(150_000)) == 150_000
                assert receive_all_there_is(receiver) == bytes(150_000)
        gc.collect()

    exchange()
    tracemalloc.start()
    exchange()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for sock in sum(connections, ()):
        sock.close()
    assert size < 50 * 2 * 1000


@pytest.mark.parametrize("data", [b"", b"data"])
@pytest.mark.parametrize("last", [b"", b"garbage"])
def test_a_connection_that_has_failed_is_gone_when_nobody_has_it(data: bytes, last: bytes) -> None:
    """Its memory does not wait for the garbage collector."""
    sock, puppet = with_puppet()
    puppet.sock.send(puppet.encrypt(data) + last)
    puppet.sock.shutdown(socket.SHUT_WR)
    if data:
        assert sock.recv(10) == data
    for _ in range(3):
        assert read_until_error(sock)[1] is not None
    reference = weakref.ref(sock)
    gc.disable()
    try:
        sock.close()
        puppet.sock.close()
        del sock
        assert reference() is None
    finally:
        gc.enable()
