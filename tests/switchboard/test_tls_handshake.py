"""The handshake of a `TlsSocket`, however its bytes come, and what its caller hears when it fails."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable

import pytest
import trio
import trio.testing

from otun.switchboard import TlsBuffers, TlsSocket, shake_hands

from .tls_peers import (
    HOST,
    VERSIONS,
    Puppet,
    client_context,
    finish_handshakes,
    is_empty,
    receive_all_there_is,
    server_context,
    socket_pair,
    try_once,
)

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
roles = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])


def _new_pair(
    version: ssl.TLSVersion, *, is_server: bool, buffer_size: int | None = None
) -> tuple[TlsSocket, Puppet, TlsBuffers]:
    ours, theirs = socket_pair(buffer_size=buffer_size)
    buffers = TlsBuffers()
    contexts = server_context(version), client_context()
    context, other = contexts if is_server else contexts[::-1]
    sock = TlsSocket(ours, context, buffers, is_server=is_server, server_name=None if is_server else HOST)
    return sock, Puppet(theirs, other, is_server=not is_server), buffers


def _step(sock: TlsSocket) -> bool | OSError:
    """Whether the handshake is done, or why it never will be."""
    try:
        return try_once(sock.handshake)
    except OSError as error:
        return error


def _deliver(sock: TlsSocket, puppet: Puppet, interfere: Callable[[bytes], bytes | None]) -> bool | OSError:
    """Do the handshake, and have *interfere* see each byte that comes to *sock*: None is the end."""
    outcome = _step(sock)
    for _ in range(20):
        puppet.take_in()
        with contextlib.suppress(ssl.SSLError):
            puppet.tls.do_handshake()
        for number in puppet.outgoing.read():
            piece = interfere(bytes([number]))
            if piece is None:
                puppet.sock.shutdown(socket.SHUT_WR)
            else:
                puppet.sock.sendall(piece)
            outcome = _step(sock)
            if outcome is not False:
                return outcome
    return outcome


@versions
@roles
def test_a_handshake_that_comes_byte_by_byte_is_done(version, is_server: bool) -> None:
    sock, puppet, buffers = _new_pair(version, is_server=is_server)
    with sock, puppet.sock:
        assert _deliver(sock, puppet, lambda byte: byte) is True
        finish_handshakes(puppet)
        assert is_empty(buffers)
        sock.send(b"hello")
        assert puppet.read() == b"hello"
        puppet.sock.sendall(puppet.encrypt(b"you"))
        assert sock.recv(10) == b"you"


@versions
@roles
def test_wherever_the_peer_leaves_the_handshake_was_cut_short(version, is_server: bool) -> None:
    left = 0
    while True:
        sock, puppet, buffers = _new_pair(version, is_server=is_server)
        seen = 0

        def interfere(byte: bytes, left=left) -> bytes | None:
            nonlocal seen
            seen += 1
            return None if seen > left else byte

        with sock, puppet.sock:
            error = _deliver(sock, puppet, interfere)
            assert is_empty(buffers)
            if error is True:
                break
            assert isinstance(error, ConnectionAbortedError)
        left += 1 if left < 10 else 37
    assert left > 50


@versions
@roles
def test_wherever_a_byte_is_wrong_the_handshake_fails_and_says_something(version, is_server: bool) -> None:
    """Except for bytes that mean nothing: the session's identifier, or the version of a record."""
    wrong, failures = 0, 0
    while True:
        sock, puppet, buffers = _new_pair(version, is_server=is_server)
        seen = 0

        def interfere(byte: bytes, wrong=wrong) -> bytes:
            nonlocal seen
            seen += 1
            return bytes([byte[0] ^ 0x41]) if seen == wrong else byte

        with sock, puppet.sock:
            error = _deliver(sock, puppet, interfere)  # False for a length that is larger: it waits for the rest.
            assert is_empty(buffers)
            if isinstance(error, OSError):
                failures += 1
                assert not isinstance(error, ssl.SSLError)
                assert error.errno in (errno.EPROTO, errno.ECONNABORTED)
                assert error.strerror
        if wrong > seen:
            break
        wrong += 1 if wrong < 12 else 29
    assert failures > 5


@versions
@pytest.mark.parametrize("size", [1, 3, 5, 6, 100, 10_000])
def test_the_connection_may_begin_with_bytes_that_were_read_already(version, size: int) -> None:
    """Of the ClientHello, or of it and of what comes behind it."""
    between, theirs = socket_pair()
    client = TlsSocket(theirs, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    assert not try_once(client.handshake)
    received = between.recv(size)
    buffers = TlsBuffers()
    with client, TlsSocket(between, server_context(version), buffers, is_server=True, received=received) as server:
        finish_handshakes(server, client)
        assert is_empty(buffers)
        client.send(b"hello")
        assert server.recv(10) == b"hello"


@versions
def test_a_whole_conversation_may_have_been_read_already(version) -> None:
    """The client has said everything before anybody decrypts it: nothing will ever announce more."""
    between, theirs = socket_pair()
    client = TlsSocket(theirs, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    server = TlsSocket(between, server_context(version), TlsBuffers(), is_server=True)
    with client, server:
        while not try_once(client.handshake):
            try_once(server.handshake)
        client.send(bytes(50_000))
        client.shutdown(socket.SHUT_WR)
        finish_handshakes(server)
        assert len(receive_all_there_is(server)) == 50_000
        assert server.recv(10) == b""


@versions
@roles
def test_a_handshake_over_a_socket_that_holds_next_to_nothing(version, is_server: bool) -> None:
    sock, puppet, buffers = _new_pair(version, is_server=is_server, buffer_size=1)
    with sock, puppet.sock:
        finish_handshakes(sock, puppet)
        assert is_empty(buffers)


# As a task


@versions
async def test_two_tasks_shake_hands(version) -> None:
    ours, theirs = socket_pair(buffer_size=1)
    client = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    server = TlsSocket(theirs, server_context(version), TlsBuffers(), is_server=True)
    with client, server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, client)
            nursery.start_soon(shake_hands, server)
        client.send(b"hello")
        assert server.recv(10) == b"hello"


async def test_shaking_hands_is_a_checkpoint_though_nothing_is_left_to_do() -> None:
    ours, theirs = socket_pair()
    client = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    server = TlsSocket(theirs, server_context(), TlsBuffers(), is_server=True)
    with client, server:
        finish_handshakes(client, server)
        with trio.testing.assert_checkpoints():
            await shake_hands(client)


async def test_a_cancelled_handshake_can_be_closed_and_the_peer_sees_it() -> None:
    ours, theirs = socket_pair()
    with TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST) as sock, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, sock)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        sock.close()
        assert theirs.recv(2**16)[:1] == b"\x16"
        assert theirs.recv(2**16) == b""
