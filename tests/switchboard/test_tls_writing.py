"""What a `TlsSocket` sends: it counts what has left, and what it has refused comes first in the next call."""

import contextlib
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.switchboard import TlsBuffers, TlsSocket
from otun.switchboard.tls_socket import GATHER_SIZE

from .tls_peers import (
    HOST,
    VERSIONS,
    client_context,
    is_empty,
    receive_all_there_is,
    send_all_that_goes,
    server_context,
    socket_pair,
    tls_pair,
    try_once,
    wait_readable,
    wait_writable,
    with_puppet,
)

PATTERN = b"".join(number.to_bytes(4, "big") for number in range(300_000))

SMALL = 4 * 1024
"""Asked of the kernel for a socket's buffer; a record does not fit."""

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@versions
def test_what_has_left_arrives(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        for data in (b"x", PATTERN[:1000], bytearray(PATTERN[:20_000]), memoryview(PATTERN)[5:70_000]):
            assert sock.send(data) == len(data)
            assert not sock.is_backlogged
            assert puppet.read() == data


def test_sending_nothing_sends_nothing() -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        assert puppet.read() == b""  # But there were tickets.
        assert sock.send(b"") == 0
        assert sock.sendmsg([]) == 0
        with pytest.raises(BlockingIOError):
            puppet.sock.recv(1)


@versions
def test_only_what_has_left_is_counted(version) -> None:
    """Of a piece that the kernel has in part, nothing counts: who trusts the count must not wait for a rest."""
    sock, puppet = with_puppet(version, pair=socket_pair(buffer_size=SMALL))
    with sock, puppet.sock:
        with pytest.raises(BlockingIOError):
            sock.send(PATTERN)
        assert sock.is_backlogged
        counted, received = 0, puppet.read()
        while counted < len(PATTERN):
            with contextlib.suppress(BlockingIOError):
                counted += sock.send(PATTERN[counted:])
            received += puppet.read()
            assert len(received) >= counted
        assert not sock.is_backlogged
    assert received == PATTERN


@settings(deadline=None, max_examples=60)
@given(
    version=st.sampled_from(VERSIONS),
    calls=st.lists(st.tuples(st.booleans(), st.integers(1, 200_000), st.integers(1, 30_000)), min_size=1, max_size=8),
    buffer_size=st.sampled_from([SMALL, 50_000, 200_000]),
    reads=st.lists(st.integers(0, 100_000), min_size=1, max_size=8),
)
def test_however_much_is_offered_and_refused_all_arrives_once(version, calls, buffer_size, reads) -> None:
    """The sender offers at least what it has offered before, as all do that keep what is refused."""
    buffers = TlsBuffers()
    sock, puppet = with_puppet(version, buffers=buffers, pair=socket_pair(buffer_size=buffer_size))
    sent, offered, received, turn = 0, 0, b"", 0
    with sock, puppet.sock:
        for with_sendmsg, size, piece in calls:
            offered = min(max(offered, sent + size), len(PATTERN))
            while sent < offered:
                try:
                    if with_sendmsg:
                        sent += sock.sendmsg(
                            PATTERN[start : min(start + piece, offered)] for start in range(sent, offered, piece)
                        )
                    else:
                        sent += sock.send(memoryview(PATTERN)[sent:offered])
                except BlockingIOError:
                    puppet.incoming.write(_take(puppet.sock, max(reads[turn % len(reads)], 1)))
                    turn += 1
                    if turn % 3 == 0:
                        break  # It comes back with more.
                assert is_empty(buffers)
                received += puppet.read() if turn % 2 else b""
        while sent < offered:
            received += puppet.read()
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(memoryview(PATTERN)[sent:offered])
        received += puppet.read()
    assert received == PATTERN[:offered]


def _take(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except BlockingIOError:
        return b""


def test_sendmsg_joins_no_more_than_it_says() -> None:
    sock, puppet = with_puppet(pair=socket_pair(buffer_size=2**21))
    with sock, puppet.sock:
        assert sock.sendmsg([PATTERN[:10], b"", PATTERN[10:30]]) == 30
        assert puppet.read() == PATTERN[:30]
        sent = sock.sendmsg(PATTERN[start : start + 100_000] for start in range(0, 1_000_000, 100_000))
        assert GATHER_SIZE <= sent < GATHER_SIZE + 100_000
        assert puppet.read() == PATTERN[:sent]


def test_reading_goes_on_while_nothing_can_leave() -> None:
    buffers = TlsBuffers()
    sock, puppet = with_puppet(pair=socket_pair(buffer_size=SMALL), buffers=buffers)
    with sock, puppet.sock:
        sent = send_all_that_goes(sock, PATTERN)
        for _ in range(20):
            puppet.sock.sendall(puppet.encrypt(b"question"))
            assert sock.recv(100) == b"question"
            assert sock.is_backlogged
            assert is_empty(buffers)
        received = puppet.read()
        while sent < len(PATTERN):
            sent += send_all_that_goes(sock, PATTERN[sent:])
            received += puppet.read()
        assert received == PATTERN


def test_a_peer_that_has_gone_is_an_error(make_tcp_pair) -> None:
    sock, puppet = with_puppet(pair=make_tcp_pair())
    with sock:
        sock.send(b"unread, so that the close is a reset")
        puppet.sock.close()
        with pytest.raises(ConnectionError):
            sock.send(b"more")


@versions
def test_both_send_at_once_over_sockets_that_hold_little(version) -> None:
    client, server = tls_pair(version, pair=socket_pair(buffer_size=SMALL))
    with client, server:
        sent = {client: 0, server: 0}
        received = {client: b"", server: b""}
        while any(len(data) < len(PATTERN) for data in received.values()):
            for sock in (client, server):
                sent[sock] += send_all_that_goes(sock, PATTERN[sent[sock] :])
                received[sock] += receive_all_there_is(sock, 10_000)
        assert received[client] == received[server] == PATTERN


def test_a_plain_blocking_peer_gets_everything_and_the_goodbye() -> None:
    ours, theirs = socket_pair(buffer_size=SMALL)
    theirs.setblocking(True)
    received = bytearray()

    def listen() -> None:
        with client_context().wrap_socket(theirs, server_hostname=HOST, suppress_ragged_eofs=False) as peer:
            while data := peer.recv(5000):
                received.extend(data)

    thread = threading.Thread(target=listen)
    thread.start()
    with TlsSocket(ours, server_context(), TlsBuffers(), is_server=True) as sock:
        while not try_once(sock.handshake):
            wait_readable(sock)
        sent = 0
        while sent < len(PATTERN):
            sent += send_all_that_goes(sock, PATTERN[sent:])
            wait_writable(sock)
        while not try_once(lambda: sock.shutdown(socket.SHUT_WR)):
            wait_writable(sock)
        thread.join()
    assert received == PATTERN
