"""What a `TlsSocket` reads: the peer's bytes, all of them and in order, and then the end or an error."""

import errno
import re
import socket
import ssl
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.switchboard import TlsBuffers, TlsSocket

from .tls_peers import (
    HOST,
    RECORD,
    VERSIONS,
    client_context,
    cut_up,
    finish_handshakes,
    forward,
    is_empty,
    read_to_end,
    read_until_error,
    receive_all_there_is,
    server_context,
    socket_pair,
    tls_pair,
    try_once,
    wait_readable,
    with_puppet,
)

PATTERN = b"".join(number.to_bytes(4, "big") for number in range(10_000))

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@settings(deadline=None, max_examples=60)
@given(
    version=st.sampled_from(VERSIONS),
    is_server=st.booleans(),
    writes=st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, RECORD)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(1, 20_000) | st.integers(1, 8), max_size=8),
    limits=st.lists(st.integers(1, 300_000) | st.integers(1, 50), min_size=1, max_size=8),
    peeks=st.lists(st.booleans(), min_size=1, max_size=8),
)
def test_whatever_the_records_the_pieces_and_the_limits_nothing_is_lost_or_swapped(
    version, is_server, writes, cuts, limits, peeks
) -> None:
    buffers = TlsBuffers()
    sock, puppet = with_puppet(version, is_server=is_server, buffers=buffers)
    with sock, puppet.sock:
        sent, records = 0, b""
        for size, record_size in writes:
            size = min(size, 50 * record_size)
            records += puppet.encrypt(PATTERN[sent : sent + size], record_size)
            sent += size
        records += puppet.goodbye()
        received, turn = b"", 0
        pieces = cut_up(records, cuts)
        while True:
            turn += 1
            limit = limits[turn % len(limits)] if turn < 400 else 300_000
            flags = socket.MSG_PEEK if peeks[turn % len(peeks)] else 0
            try:
                data = sock.recv(limit, flags)
            except BlockingIOError:
                puppet.sock.sendall(next(pieces))
                continue
            finally:
                assert is_empty(buffers)
            assert len(data) <= limit
            assert PATTERN.startswith(data, len(received))
            if flags:
                assert sock.recv(limit) == data
            if not data:
                break
            received += data
        assert received == PATTERN[:sent]
        assert sock.recv(10) == b""


@versions
@pytest.mark.parametrize("limit", [1, RECORD, 2**18])
def test_records_that_come_byte_by_byte_are_read(version, limit: int) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        received = b""
        for byte in puppet.encrypt(PATTERN[:100]) + puppet.encrypt(PATTERN[100:400], 7) + puppet.goodbye():
            puppet.sock.send(bytes([byte]))
            received += receive_all_there_is(sock, limit)
        assert received == PATTERN[:400]
        assert sock.recv(limit) == b""


@versions
def test_a_record_may_come_in_as_many_segments_as_the_network_likes(version) -> None:
    """A network that is nearly as fast as we read: there is something each time, and never a whole record."""
    buffers = TlsBuffers()
    sock, puppet = with_puppet(version, buffers=buffers)
    with sock, puppet.sock:
        buffers.ciphertext = memoryview(bytearray(1448))  # So each read finds a segment, although all are there.
        puppet.sock.sendall(puppet.encrypt(PATTERN))
        assert receive_all_there_is(sock) == PATTERN


@versions
def test_nothing_now_is_an_error_that_passes(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                sock.recv(10)
            with pytest.raises(BlockingIOError):
                sock.recv(10, socket.MSG_PEEK)
        puppet.sock.send(puppet.encrypt(b"now"))
        assert sock.recv(10) == b"now"


@pytest.mark.parametrize("limit", [1, 2, 5, 100, RECORD + 1])
def test_peeking_takes_nothing_away(limit: int) -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(PATTERN[:20_000]))
        assert PATTERN.startswith(sock.recv(limit, socket.MSG_PEEK))
        assert sock.recv(limit, socket.MSG_PEEK) == sock.recv(limit, socket.MSG_PEEK) != b""
        assert receive_all_there_is(sock, limit) == PATTERN[:20_000]


@pytest.mark.parametrize("read_before", [1, 3, RECORD - 1, RECORD, RECORD + 3])
@pytest.mark.parametrize("peek", [1, 20_000])
def test_what_was_peeked_at_comes_first_though_a_record_is_half_read(read_before: int, peek: int) -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        puppet.sock.sendall(puppet.encrypt(PATTERN))
        received = sock.recv(read_before)
        assert PATTERN.startswith(sock.recv(peek, socket.MSG_PEEK), read_before)
        assert received + receive_all_there_is(sock, 5000) == PATTERN


def test_peeking_at_the_end_is_the_end() -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(b"x") + puppet.goodbye())
        assert sock.recv(1) == b"x"
        assert sock.recv(1, socket.MSG_PEEK) == b""
        assert sock.recv(1) == b""


@versions
def test_the_end_stays_the_end_whatever_follows_it(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(b"last") + puppet.goodbye() + b"not TLS at all")
        puppet.sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b"last"
        for _ in range(3):
            assert sock.recv(100) == b""
            assert sock.recv(100, socket.MSG_PEEK) == b""


@versions
@pytest.mark.parametrize("is_in_one_segment", [True, False])
def test_data_goodbye_and_fin_are_read_one_after_the_other(version, is_in_one_segment: bool) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        records, goodbye = puppet.encrypt(PATTERN), puppet.goodbye()
        received = b""
        for piece in [records + goodbye] if is_in_one_segment else [records, goodbye]:
            puppet.sock.sendall(piece)
            if piece is records:
                received += receive_all_there_is(sock)
        puppet.sock.close()
        received += receive_all_there_is(sock)
        assert received == PATTERN
        assert sock.recv(10) == b""


@versions
@pytest.mark.parametrize("limit", [3, 2**18])
@pytest.mark.parametrize("cut", [0, 1, 5, 40])
def test_an_end_without_a_goodbye_is_an_error_behind_what_had_come(version, limit: int, cut: int) -> None:
    """*cut* bytes of a record that is not whole come last: they are lost, and nothing else is."""
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(PATTERN[:1000], 100) + puppet.encrypt(bytes(1000))[:cut])
        puppet.sock.shutdown(socket.SHUT_WR)
        received, error = read_until_error(sock, limit)
        assert isinstance(error, ConnectionAbortedError)
        assert received == PATTERN[:1000]
        for flags in (0, socket.MSG_PEEK):
            with pytest.raises(ConnectionAbortedError, match="goodbye"):
                sock.recv(limit, flags)


@versions
@pytest.mark.parametrize("limit", [3, 2**18])
@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\3\3\0\x20" + bytes(32), b"\x16\3\3\0\1\0"])
def test_garbage_is_an_error_behind_what_had_come(version, limit: int, garbage: bytes) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(PATTERN[:1000], 100) + garbage + puppet.encrypt(b"never"))
        received, error = read_until_error(sock, limit)
        assert received == PATTERN[:1000]
        assert error is not None
        assert not isinstance(error, BlockingIOError | ssl.SSLError)
        assert error.errno == errno.EPROTO
        assert error.strerror
        with pytest.raises(OSError, match=re.escape(error.strerror)):
            sock.recv(limit)


def test_a_reset_is_an_error_behind_what_had_been_read(make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    sock, puppet = with_puppet(pair=(ours, theirs))
    with sock:
        sock.send(b"unread, so that the close is a reset")
        puppet.sock.send(puppet.encrypt(PATTERN[:1000]))
        assert sock.recv(10) == PATTERN[:10]
        puppet.sock.close()
        assert sock.recv(2**18) == PATTERN[10:1000]
        with pytest.raises(ConnectionResetError):
            sock.recv(10)


@versions
def test_an_alert_in_the_middle_says_what_the_peer_minds(version) -> None:
    client, server = tls_pair(version)
    with client, server:
        client.send(b"a question")
        assert server.recv(100) == b"a question"
        raw, rest = client.to_plain()
        with raw:
            assert rest == b""
            raw.send(b"\x17\3\3\0\x20" + bytes(32))
            with pytest.raises(OSError, match=r"bad record mac|decryption failed"):
                server.recv(10)


@versions
def test_bytes_that_came_with_the_handshake_are_read_first(version) -> None:
    """A client's first words stand behind its Finished, in the same segment."""
    ours, theirs = socket_pair()
    buffers = TlsBuffers()
    client = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    raw_ours, raw_theirs = socket_pair()
    server = TlsSocket(raw_ours, server_context(version), buffers, is_server=True)
    with client, server, theirs, raw_theirs:
        while not try_once(client.handshake):
            forward(theirs, raw_theirs)
            try_once(server.handshake)
            forward(raw_theirs, theirs)
        client.send(PATTERN[:30_000])
        client.shutdown(socket.SHUT_WR)
        forward(theirs, raw_theirs)
        finish_handshakes(server)
        assert is_empty(buffers)
        assert receive_all_there_is(server) == PATTERN[:30_000]
        assert server.recv(10) == b""


def test_a_limit_of_0_reads_nothing() -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        puppet.sock.send(puppet.encrypt(b"data"))
        assert sock.recv(0) == b""
        assert sock.recv(10) == b"data"


def test_a_plain_blocking_peer_is_read_to_its_end() -> None:
    ours, theirs = socket_pair()
    theirs.setblocking(True)

    def speak() -> None:
        with client_context().wrap_socket(theirs, server_hostname=HOST) as peer:
            peer.sendall(PATTERN)
            peer.unwrap().close()

    thread = threading.Thread(target=speak)
    thread.start()
    with TlsSocket(ours, server_context(), TlsBuffers(), is_server=True) as sock:
        while not try_once(sock.handshake):
            wait_readable(sock)
        assert read_to_end(sock) == PATTERN
        sock.shutdown(socket.SHUT_WR)
        thread.join()
