"""A `TlsSocket` ends its own direction, and the other one goes on and loses nothing (RFC 8446, section 6.1)."""

import contextlib
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otun.switchboard import TlsBuffers, TlsSocket

from .tls_peers import (
    HOST,
    VERSIONS,
    client_context,
    cut_up,
    is_empty,
    nothing_can_leave,
    read_to_end,
    receive_all_there_is,
    server_context,
    socket_pair,
    tls_pair,
    try_once,
    wait_readable,
    with_puppet,
)

PATTERN = b"".join(number.to_bytes(4, "big") for number in range(40_000))

SMALL = 4 * 1024

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def shut_down(sock: TlsSocket) -> None:
    sock.shutdown(socket.SHUT_WR)


@versions
@pytest.mark.parametrize("is_server", [True, False])
def test_the_peer_sees_our_end_and_we_go_on_reading(version, is_server: bool) -> None:
    sock, puppet = with_puppet(version, is_server=is_server)
    with sock, puppet.sock:
        sock.send(b"last words")
        shut_down(sock)
        assert puppet.read() == b"last words"
        assert puppet.has_ended()
        for start in range(0, 1000, 100):
            puppet.sock.sendall(puppet.encrypt(PATTERN[start : start + 100]))
            assert sock.recv(1000) == PATTERN[start : start + 100]
            with pytest.raises(BlockingIOError):
                sock.recv(10)
        puppet.sock.sendall(puppet.encrypt(b"their last") + puppet.goodbye())
        assert sock.recv(1000) == b"their last"
        assert sock.recv(1000) == b""


@versions
def test_the_end_reaches_a_peer_that_looks_at_the_socket_only(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        shut_down(sock)
        puppet.take_in()
        assert puppet.sock.recv(10) == b""


@settings(deadline=None, max_examples=80)
@given(
    version=st.sampled_from(VERSIONS),
    is_server=st.booleans(),
    record_size=st.integers(1, 16_384),
    size=st.integers(0, 60_000),
    read_before=st.lists(st.integers(1, 20_000) | st.integers(1, 9), max_size=4),
    peek=st.integers(0, 2000),
    before=st.integers(0, 80_000),
    cuts=st.lists(st.integers(1, 3000), max_size=5),
    limits=st.lists(st.integers(1, 300_000), min_size=1, max_size=4),
)
def test_whatever_is_unread_where_it_is_read_after_our_end(
    version, is_server, record_size, size, read_before, peek, before, cuts, limits
) -> None:
    """In the kernel, in the records that are not decrypted yet, in OpenSSL, or peeked at."""
    buffers = TlsBuffers()
    sock, puppet = with_puppet(version, is_server=is_server, buffers=buffers)
    size = min(size, 100 * record_size)
    with sock, puppet.sock:
        records = puppet.encrypt(PATTERN[:size], record_size) + puppet.goodbye()
        puppet.sock.sendall(records[:before])
        pieces = cut_up(records[before:], cuts)
        received = b""
        with contextlib.suppress(BlockingIOError):
            for limit in read_before:
                received += sock.recv(limit)
            if peek:
                sock.recv(peek, socket.MSG_PEEK)
        shut_down(sock)
        assert is_empty(buffers)
        turn = 0
        while True:
            turn += 1
            try:
                data = sock.recv(limits[turn % len(limits)] if turn < 300 else 300_000)
            except BlockingIOError:
                puppet.sock.sendall(next(pieces))
                continue
            assert is_empty(buffers)
            if not data:
                break
            received += data
        assert received == PATTERN[:size]
        assert puppet.read() == b""
        assert puppet.has_ended()


@versions
def test_a_goodbye_that_was_unread_when_ours_left_is_read(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        puppet.sock.sendall(puppet.encrypt(b"their last") + puppet.goodbye())
        assert sock.recv(3) == b"the"
        shut_down(sock)
        shut_down(sock)
        assert receive_all_there_is(sock, 2) == b"ir last"
        assert sock.recv(10) == b""


@versions
def test_our_goodbye_answers_theirs(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        puppet.sock.sendall(puppet.goodbye())
        assert sock.recv(10) == b""
        sock.send(b"but I have more to say")
        shut_down(sock)
        assert puppet.read() == b"but I have more to say"
        assert puppet.has_ended()


@versions
def test_both_end_at_once_with_everything_unread(version) -> None:
    buffers = TlsBuffers()
    client, server = tls_pair(version, buffers=buffers)
    with client, server:
        for sock in (client, server):
            assert sock.send(PATTERN[:50_000]) == 50_000
        for sock in (client, server):
            shut_down(sock)
        for sock in (client, server):
            assert receive_all_there_is(sock, 7000) == PATTERN[:50_000]
            assert sock.recv(10) == b""
        assert is_empty(buffers)


@versions
def test_a_goodbye_that_does_not_fit_is_tried_again(version) -> None:
    sock, puppet = with_puppet(version, pair=socket_pair(buffer_size=SMALL))
    with sock, puppet.sock:
        assert puppet.read() == b""
        puppet.sock.sendall(puppet.encrypt(PATTERN[:300]))
        with nothing_can_leave(sock, puppet):
            for start in range(0, 300, 100):
                with pytest.raises(BlockingIOError):
                    shut_down(sock)
                assert sock.is_backlogged
                assert sock.recv(100) == PATTERN[start : start + 100]
        shut_down(sock)
        assert not sock.is_backlogged
        assert puppet.read() == b""
        assert puppet.has_ended()
        puppet.sock.sendall(puppet.encrypt(b"answer"))
        assert sock.recv(10) == b"answer"


@versions
def test_the_whole_conversation_with_a_plain_blocking_peer(version) -> None:
    """It reads our end first, and then sends for a while, as servers do."""
    ours, theirs = socket_pair(buffer_size=SMALL)
    theirs.setblocking(True)
    asked = bytearray()

    def answer() -> None:
        context = server_context(version)
        with context.wrap_socket(theirs, server_side=True, suppress_ragged_eofs=False) as peer:
            while data := peer.recv(1000):
                asked.extend(data)
            peer.sendall(PATTERN)
            peer.unwrap().close()

    thread = threading.Thread(target=answer)
    thread.start()
    with TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST) as sock:
        while not try_once(sock.handshake):
            wait_readable(sock)
        assert sock.send(b"a question") == 10
        shut_down(sock)
        assert read_to_end(sock, 5000) == PATTERN
        thread.join()
    assert asked == b"a question"


@versions
def test_reset_and_end_look_different_after_our_goodbye_too(version) -> None:
    sock, puppet = with_puppet(version)
    with sock, puppet.sock:
        shut_down(sock)
        puppet.take_in()
        puppet.sock.sendall(puppet.encrypt(b"cut"))
        puppet.sock.close()
        assert sock.recv(10) == b"cut"
        with pytest.raises(ConnectionError):
            sock.recv(10)


def test_sending_after_our_goodbye_is_an_error_and_reading_works() -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        shut_down(sock)
        with pytest.raises(OSError, match="shutdown"):
            sock.send(b"more")
        puppet.sock.sendall(puppet.encrypt(b"answer"))
        assert sock.recv(10) == b"answer"


def test_shutting_down_for_reading_says_nothing() -> None:
    sock, puppet = with_puppet()
    with sock, puppet.sock:
        sock.shutdown(socket.SHUT_RD)
        sock.send(b"still here")
        assert puppet.read() == b"still here"
        assert not puppet.has_ended()


def test_before_the_handshake_there_is_no_goodbye_but_an_end() -> None:
    ours, theirs = socket_pair()
    with TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST) as sock, theirs:
        shut_down(sock)
        assert theirs.recv(100) == b""
