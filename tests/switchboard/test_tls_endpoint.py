"""Members of the board whose sockets encrypt: the handshake's, and those that stand on it."""

import contextlib
import errno
import socket
import ssl

import pytest
import trio
import trio.testing

from otun.switchboard import LingeringClose, Switchboard, TlsBuffers, TlsHandshake, TlsSocket, open_switchboard

from .support import Recorder, RecordingEndpoint
from .tls_peers import (
    HOST,
    VERSIONS,
    Puppet,
    client_context,
    finish_handshakes,
    is_empty,
    nothing_can_leave,
    server_context,
    tls_pair,
    with_puppet,
)

pytestmark = pytest.mark.usefixtures("kind")

LARGE = bytes(range(256)) * 8_000
"""Some 2 MB: more than any socket takes at once."""

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


class Handshake:
    """A `TlsHandshake` of a server, what comes of it, and the client."""

    def __init__(self, board: Switchboard, pair, *, timeout: float = 60.0, received: int = 0) -> None:
        self.ours, self.theirs = pair
        self.buffers = TlsBuffers()
        self.puppet = Puppet(self.theirs, client_context(), is_server=False)
        self.established: list[TlsSocket] = []
        self.failures: list[OSError | None] = []
        self.changed = trio.Event()
        board.add(self.ours, Recorder())
        self.sock = TlsSocket(self.ours, server_context(), self.buffers, is_server=True)
        self.member = TlsHandshake(
            board, self.sock, timeout=timeout, established=self._established, failed=self._failed
        )

    def _established(self, sock: TlsSocket) -> None:
        self.established.append(sock)
        self.changed.set()

    def _failed(self, error: OSError | None) -> None:
        self.failures.append(error)
        self.changed.set()

    async def run(self) -> None:
        """Shake hands as the client until either is done."""
        while not self.changed.is_set():
            with contextlib.suppress(BlockingIOError):
                self.puppet.handshake()
            await self.let_it_run()

    async def let_it_run(self) -> None:
        """Wait until it is over, or waits for more."""
        await trio.testing.wait_all_tasks_blocked()


async def read_raw(sock: socket.socket) -> bytes:
    """Read until the end, whatever it is."""
    received = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = sock.recv(2**16)
        if not data:
            return received
        received += data


async def test_the_handshake_gives_its_socket_to_whoever_waits_for_it(board: Switchboard, make_pair) -> None:
    handshake = Handshake(board, make_pair())
    await handshake.run()
    assert handshake.established == [handshake.sock]
    assert handshake.failures == []
    assert handshake.member.is_closed
    assert handshake.member.deadline_slot == 0
    assert len(board) == 1
    board.close(handshake.sock)


async def test_a_handshake_whose_words_do_not_fit_goes_on_when_there_is_room(board: Switchboard, make_pair) -> None:
    handshake = Handshake(board, make_pair())
    await handshake.let_it_run()
    with nothing_can_leave(handshake.sock, handshake.puppet):
        with contextlib.suppress(ssl.SSLWantReadError):
            handshake.puppet.tls.do_handshake()
        handshake.puppet.let_out()
        await handshake.let_it_run()
        assert handshake.sock.is_backlogged
    await handshake.run()
    assert handshake.established == [handshake.sock]
    assert not handshake.sock.is_backlogged
    board.close(handshake.sock)


async def test_words_that_come_with_the_end_of_the_handshake_are_there_for_the_next_owner(
    board: Switchboard, make_pair
) -> None:
    handshake = Handshake(board, make_pair())
    puppet = handshake.puppet
    while not handshake.changed.is_set():
        puppet.take_in()
        with contextlib.suppress(ssl.SSLWantReadError):
            puppet.tls.do_handshake()
            puppet.outgoing.write(puppet.outgoing.read() + puppet.encrypt(b"first words"))
        puppet.let_out()
        await handshake.let_it_run()
    assert handshake.sock.recv(100) == b"first words"
    board.close(handshake.sock)


async def test_a_handshake_that_fails_ends_with_an_alert_and_the_reason(board: Switchboard, make_tcp_pair) -> None:
    handshake = Handshake(board, make_tcp_pair())
    handshake.theirs.send(b"\x16\3\1\0\4\1\0\0\0")
    await handshake.changed.wait()
    (error,) = handshake.failures
    assert error is not None
    assert error.errno == errno.EPROTO
    assert handshake.established == []
    assert await read_raw(handshake.theirs) == b"\x15\3\3\0\2\2\x32"  # decode_error
    handshake.theirs.close()
    while len(board):
        await trio.lowlevel.checkpoint()
    assert is_empty(handshake.buffers)


async def test_a_peer_that_has_said_much_and_left_is_closed_at_once(
    board: Switchboard, make_tcp_pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.switchboard.endpoint.LINGER_TIMEOUT", 1e6)
    handshake = Handshake(board, make_tcp_pair())
    await trio.testing.wait_all_tasks_blocked()
    handshake.theirs.send(b"\x16\3\1\0\4\1\0\0\0" + bytes(100_000))
    handshake.theirs.shutdown(socket.SHUT_WR)
    await handshake.changed.wait()
    while len(board):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("size", [0, 1, 6, 100])
async def test_a_peer_that_leaves_has_cut_the_handshake_short(board: Switchboard, make_pair, size: int) -> None:
    handshake = Handshake(board, make_pair())
    handshake.theirs.send((b"\x16\3\1\0\xc8\1\0\0\xc4\3\3" + bytes(100))[:size])
    handshake.theirs.close()
    await handshake.changed.wait()
    assert isinstance(handshake.failures[0], ConnectionAbortedError)
    while len(board):
        await trio.lowlevel.checkpoint()
    assert handshake.ours.fileno() == -1


async def test_a_peer_that_is_too_slow_is_told_nothing_and_closed(board: Switchboard, make_pair) -> None:
    handshake = Handshake(board, make_pair(), timeout=0.01)
    handshake.theirs.send(b"\x16")
    await handshake.changed.wait()
    (error,) = handshake.failures
    assert error is not None
    assert error.errno == errno.ETIMEDOUT
    assert await read_raw(handshake.theirs) == b""
    handshake.theirs.close()
    while len(board):
        await trio.lowlevel.checkpoint()


async def test_a_reset_fails_the_handshake_at_once(board: Switchboard, make_tcp_pair) -> None:
    handshake = Handshake(board, make_tcp_pair())
    with contextlib.suppress(BlockingIOError):
        handshake.puppet.handshake()
    await trio.lowlevel.wait_readable(handshake.theirs)
    handshake.theirs.close()  # With the server's flight unread: the system sends RST.
    await handshake.changed.wait()
    assert isinstance(handshake.failures[0], ConnectionResetError)


async def test_the_boards_end_ends_the_handshake_without_a_word(make_pair) -> None:
    async with open_switchboard() as board:
        handshake = Handshake(board, make_pair())
        handshake.theirs.send(b"\x16")
        await trio.testing.wait_all_tasks_blocked()
    assert handshake.failures == [None]
    assert handshake.sock.fileno() == -1
    assert is_empty(handshake.buffers)


@versions
async def test_an_endpoint_sends_and_reads_whatever_the_size(board: Switchboard, make_pair, version) -> None:
    client, server = tls_pair(version, pair=make_pair())
    ours, theirs = RecordingEndpoint(board, client), RecordingEndpoint(board, server)
    ours.send(LARGE)
    ours.send(b"behind it")
    ours.send_eof()
    theirs.send(b"answer")
    await theirs.wait_until(lambda: theirs.has_ended)
    assert theirs.received == LARGE + b"behind it"
    await ours.wait_until(lambda: ours.is_done)
    assert not ours.unsent
    theirs.send(LARGE)
    theirs.send_eof()
    await ours.wait_until(lambda: ours.has_ended)
    assert ours.received == b"answer" + LARGE
    assert not ours.errors + theirs.errors
    for endpoint in (ours, theirs):
        endpoint.close()


@versions
async def test_an_endpoint_whose_goodbye_does_not_fit_says_it_later(board: Switchboard, make_pair, version) -> None:
    sock, puppet = with_puppet(version, pair=make_pair())
    assert puppet.read() == b""
    endpoint = RecordingEndpoint(board, sock)
    endpoint.send(b"last words")
    assert puppet.read() == b"last words"
    await trio.testing.wait_all_tasks_blocked()
    with nothing_can_leave(sock, puppet):
        endpoint.send_eof()
        assert not endpoint.is_done
        puppet.sock.sendall(puppet.encrypt(b"meanwhile"))
        await endpoint.wait_until(lambda: endpoint.received)
        endpoint.send_eof()
        assert not endpoint.is_done
    await endpoint.wait_until(lambda: endpoint.is_done)
    assert puppet.read() == b""
    assert puppet.has_ended()
    puppet.sock.sendall(puppet.encrypt(b", and later") + puppet.goodbye())
    await endpoint.wait_until(lambda: endpoint.has_ended)
    assert endpoint.received == b"meanwhile, and later"
    assert not endpoint.errors
    endpoint.close()


async def test_an_endpoint_whose_peer_leaves_without_a_goodbye_is_broken(board: Switchboard, make_pair) -> None:
    sock, puppet = with_puppet(pair=make_pair())
    puppet.read()
    endpoint = RecordingEndpoint(board, sock)
    puppet.sock.sendall(puppet.encrypt(b"cut sho"))
    puppet.sock.close()
    await endpoint.wait_until(lambda: endpoint.errors)
    assert endpoint.received == b"cut sho"
    assert not endpoint.has_ended
    assert [type(error) for error in endpoint.errors] == [ConnectionAbortedError]


@versions
async def test_last_bytes_arrive_encrypted_though_input_is_unread(board: Switchboard, make_tcp_pair, version) -> None:
    sock, puppet = with_puppet(version, pair=make_tcp_pair())
    puppet.sock.sendall(puppet.encrypt(bytes(50_000)))
    closing = LingeringClose(board, sock, LARGE, is_new=True)
    received = b""
    while not puppet.has_ended():
        await trio.lowlevel.wait_readable(puppet.sock)
        received += puppet.read()
    assert received == LARGE
    assert not closing.is_closed
    await trio.testing.wait_all_tasks_blocked()
    puppet.sock.sendall(puppet.encrypt(b"x") + puppet.goodbye())
    while not closing.is_closed:
        await trio.lowlevel.checkpoint()
    assert sock.fileno() == -1


async def test_a_lingering_close_ends_with_a_peer_that_says_no_goodbye(board: Switchboard, make_tcp_pair) -> None:
    sock, puppet = with_puppet(pair=make_tcp_pair())
    puppet.read()
    closing = LingeringClose(board, sock, b"last", is_new=True)
    puppet.sock.close()
    while not closing.is_closed:
        await trio.lowlevel.checkpoint()


async def test_the_client_s_side_may_be_a_member_too(board: Switchboard, make_pair) -> None:
    handshake = Handshake(board, make_pair())
    other = TlsSocket(handshake.theirs, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    board.add(other, Recorder())
    done: list[TlsSocket] = []
    TlsHandshake(board, other, timeout=60, established=done.append, failed=handshake.failures.append)
    await handshake.changed.wait()
    assert done == [other]
    assert handshake.failures == []
    finish_handshakes(other, handshake.sock)
    for sock in (other, handshake.sock):
        board.close(sock)
