"""What peers send that no library would: it costs them the connection, and nobody else anything."""

import ssl
import threading
from pathlib import Path

import pytest

from otun.switchboard import TlsSocket
from otun.switchboard.tls_socket import CIPHERTEXT_SIZE, OVERHEAD_LIMIT, UNSENT_LIMIT

from .tls_forging import (
    CLIENT_HELLO,
    DATA,
    HANDSHAKE,
    UPDATE,
    UPDATE_REQUESTED,
    Forger12,
    Forger13,
    logging_context,
)
from .tls_peers import (
    VERSIONS,
    Puppet,
    nothing_can_leave,
    read_until_error,
    receive_all_there_is,
    socket_pair,
    with_puppet,
)

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)

LARGE = 4 * 1024 * 1024
"""Asked of the kernel for a socket's buffer, to hold a flood."""


def forge(path: Path, version: ssl.TLSVersion) -> tuple[TlsSocket, Puppet, Forger12 | Forger13]:
    """A server's socket, and a client at whose end records are forged."""
    context = logging_context(path / "secrets", version)
    sock, puppet = with_puppet(puppet_context=context, pair=socket_pair(buffer_size=LARGE))
    puppet.read()
    kind = Forger13 if version is ssl.TLSVersion.TLSv1_3 else Forger12
    return sock, puppet, kind(puppet, path / "secrets")


@pytest.fixture
def forged13(tmp_path: Path) -> tuple[TlsSocket, Puppet, Forger13]:
    sock, puppet, forger = forge(tmp_path, ssl.TLSVersion.TLSv1_3)
    assert isinstance(forger, Forger13)
    return sock, puppet, forger


@versions
def test_records_may_carry_a_byte_or_nothing(tmp_path: Path, version) -> None:
    sock, puppet, forger = forge(tmp_path, version)
    with sock, puppet.sock:
        for content in (b"a", b"", b"b", b"", b"", b"c"):
            puppet.sock.sendall(forger.record(DATA, content))
        assert sock.recv(100) == b"abc"


def test_padding_is_no_data(forged13) -> None:
    sock, puppet, forger = forged13
    with sock, puppet.sock:
        puppet.sock.sendall(forger.record(DATA, b"data", padding=10_000) + forger.record(DATA, b"", padding=16_000))
        assert sock.recv(100) == b"data"
        with pytest.raises(BlockingIOError):
            sock.recv(100)


@pytest.mark.parametrize("message", [UPDATE, UPDATE_REQUESTED], ids=["update", "update requested"])
def test_the_peers_keys_may_change_between_any_two_records(forged13, message: bytes) -> None:
    sock, puppet, forger = forged13
    with sock, puppet.sock:
        for number in range(20):
            content = f"record {number}".encode()
            puppet.sock.sendall(forger.record(DATA, content) + forger.key_update(message))
            assert sock.recv(100) == content
            # It takes note when it is asked to change its own keys, too.
            assert sock.send(content) == len(content)
            assert puppet.read() == content


def test_the_keys_may_change_after_our_goodbye(forged13) -> None:
    sock, puppet, forger = forged13
    with sock, puppet.sock:
        puppet.sock.sendall(forger.record(DATA, b"one, "))
        sock.shutdown(1)
        puppet.sock.sendall(forger.key_update(UPDATE_REQUESTED) + forger.record(DATA, b"two"))
        assert receive_all_there_is(sock) == b"one, two"


def test_a_renegotiation_is_refused_and_the_connection_goes_on(tmp_path: Path) -> None:
    sock, puppet, forger = forge(tmp_path, ssl.TLSVersion.TLSv1_2)
    with sock, puppet.sock:
        for number in range(5):
            puppet.sock.sendall(forger.record(HANDSHAKE, CLIENT_HELLO) + forger.record(DATA, bytes([number])))
            assert sock.recv(10) == bytes([number])
            with pytest.raises(BlockingIOError):
                sock.recv(10)
            puppet.take_in()
        # Its alerts have come without anybody's sending data.
        assert puppet.received_ciphertext.count(b"\x15\3\3") == 5
        assert not sock.is_backlogged


def _flood(sock: TlsSocket, puppet: Puppet, pieces) -> tuple[int, OSError | None]:
    """Send pieces, and read each; return how often that was possible, and why not once more."""
    for number, piece in enumerate(pieces):
        puppet.sock.sendall(piece)
        _, error = read_until_error(sock)
        if not isinstance(error, BlockingIOError):
            return number, error
    return number + 1, None


@versions
def test_answers_that_nobody_reads_end_the_connection(tmp_path: Path, version) -> None:
    sock, puppet, forger = forge(tmp_path, version)

    def pieces():
        for _ in range(1000):
            if isinstance(forger, Forger13):
                yield b"".join(forger.key_update(UPDATE_REQUESTED) for _ in range(300)) + forger.record(DATA, b"x")
            else:
                yield b"".join(forger.record(HANDSHAKE, CLIENT_HELLO) for _ in range(300)) + forger.record(DATA, b"x")

    with sock, puppet.sock:
        with nothing_can_leave(sock, puppet):
            count, error = _flood(sock, puppet, pieces())
        assert error is not None
        assert error.strerror == "it wants answers, and does not read them"
        assert 20 < count < 100
        raw, rest = sock.to_plain()
        raw.close()
        assert UNSENT_LIMIT < len(rest) < UNSENT_LIMIT + 50_000


@versions
def test_answers_that_are_read_may_be_many(tmp_path: Path, version) -> None:
    sock, puppet, forger = forge(tmp_path, version)
    with sock, puppet.sock:
        for _ in range(100):
            for _ in range(100):
                if isinstance(forger, Forger13):
                    puppet.sock.sendall(forger.key_update(UPDATE_REQUESTED))
                else:
                    puppet.sock.sendall(forger.record(HANDSHAKE, CLIENT_HELLO))
            puppet.sock.sendall(forger.record(DATA, b"data"))
            assert receive_all_there_is(sock) == b"data"
            puppet.take_in()
        assert sock.send(b"x") == 1


def test_records_without_data_end_the_connection_though_they_never_do(forged13) -> None:
    """A call must come to an end while more and more arrives."""
    sock, puppet, forger = forged13
    flood = b"".join(forger.key_update() for _ in range(20_000))
    puppet.sock.setblocking(True)
    thread = threading.Thread(target=_send_until_it_fails, args=(puppet, flood))
    with sock:
        thread.start()
        error: OSError | None = BlockingIOError()
        while isinstance(error, BlockingIOError):
            received, error = read_until_error(sock)
            assert received == b""
        assert error is not None
        assert error.strerror == "it sends records with nothing in them"
    thread.join()
    puppet.sock.close()


def _send_until_it_fails(puppet: Puppet, data: bytes) -> None:
    try:
        puppet.sock.sendall(data)
    except OSError:
        return


@versions
def test_small_records_are_read_in_small_helpings(version) -> None:
    """One read of 256 KiB, a byte a record, would take a quarter of a second."""
    sock, puppet = with_puppet(version, pair=socket_pair(buffer_size=LARGE))
    with sock, puppet.sock:
        puppet.sock.sendall(puppet.encrypt(bytes(8000), 1))
        sizes = []
        while sum(sizes) < 8000:
            sizes.append(len(sock.recv(2**18)))
        assert max(sizes) * 20 < OVERHEAD_LIMIT + CIPHERTEXT_SIZE
        assert len(sizes) > 1


def test_records_of_the_usual_sizes_are_read_in_one_go() -> None:
    sock, puppet = with_puppet(pair=socket_pair(buffer_size=LARGE))
    with sock, puppet.sock:
        for record_size in (1_300, 4_096, 16_384):
            puppet.sock.sendall(puppet.encrypt(bytes(2**18), record_size))
            assert len(sock.recv(2**18)) == 2**18
