"""Many `TlsSocket`s share one `TlsBuffers`: nothing of one is ever there when another one's turn comes."""

import contextlib
import random
import socket
import ssl

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from .tls_neighbours import BUFFERS, Connection
from .tls_peers import (
    VERSIONS,
    is_empty,
    read_until_error,
    receive_all_there_is,
    tls_pair,
    with_puppet,
)

COUNT = 4

numbers = st.integers(0, COUNT - 1)


class Neighbours(RuleBasedStateMachine):
    """Connections in all phases take turns, and some of them go wrong."""

    connections: list[Connection]

    @initialize(kinds=st.lists(st.tuples(st.sampled_from(VERSIONS), st.booleans()), min_size=COUNT, max_size=COUNT))
    def connect(self, kinds) -> None:
        self.connections = [
            Connection(number, version, is_server=is_server) for number, (version, is_server) in enumerate(kinds)
        ]
        for connection in self.connections[:2]:
            while not (connection.is_established and connection.is_puppet_established):
                connection.step()
                connection.deliver(100_000)

    @rule(number=numbers)
    def step(self, number) -> None:
        connection = self.connections[number]
        if not connection.is_established:
            connection.step()

    @rule(number=numbers, size=st.integers(1, 40_000), record_size=st.integers(100, 16_384))
    def puppet_speaks(self, number, size, record_size) -> None:
        connection = self.connections[number]
        if connection.is_puppet_established:
            end = min(connection.said + size, len(connection.pattern))
            connection.wire += connection.puppet.encrypt(connection.pattern[connection.said : end], record_size)
            connection.said = end

    @rule(number=numbers, size=st.integers(1, 20_000))
    def deliver(self, number, size) -> None:
        self.connections[number].deliver(size)

    @rule(number=numbers, limit=st.integers(1, 300_000) | st.integers(1, 20), flags=st.sampled_from([0, 0, 2]))
    def hear(self, number, limit, flags) -> None:
        if self.connections[number].is_established:
            self.connections[number].hear(limit, flags)

    @rule(number=numbers, size=st.integers(1, 100_000))
    def send(self, number, size) -> None:
        if self.connections[number].is_established:
            self.connections[number].send(size)

    @rule(number=numbers)
    def puppet_hears(self, number) -> None:
        if self.connections[number].is_puppet_established:
            self.connections[number].puppet_hears()

    @rule(number=st.integers(1, COUNT - 1), harm=st.binary(min_size=1, max_size=300))
    def harm(self, number, harm) -> None:
        """The first one stays healthy."""
        connection = self.connections[number]
        connection.may_fail = True
        connection.wire = harm + connection.wire

    @rule(number=st.integers(1, COUNT - 1))
    def cut(self, number) -> None:
        connection = self.connections[number]
        connection.may_fail = True
        with contextlib.suppress(OSError):
            connection.puppet.sock.shutdown(socket.SHUT_WR)

    @rule(number=st.integers(2, COUNT - 1))
    def end_our_direction(self, number) -> None:
        connection = self.connections[number]
        connection.may_fail = True  # There may be something that has not left.
        with connection.failing():
            connection.sock.shutdown(socket.SHUT_WR)

    @invariant()
    def nothing_is_left(self) -> None:
        assert is_empty(BUFFERS)

    def teardown(self) -> None:
        for connection in getattr(self, "connections", []):
            connection.close()


class TestNeighbours(Neighbours.TestCase):
    settings = settings(deadline=None, max_examples=40, stateful_step_count=60)


def test_hundreds_of_connections_take_turns_in_all_their_phases() -> None:
    chance = random.Random(7)
    connections = [Connection(number, VERSIONS[number % 2], is_server=number % 3 != 0) for number in range(300)]
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.callback(connection.close)
        left = list(connections)
        while left:
            connection = chance.choice(left)
            if not (connection.is_established and connection.is_puppet_established):
                connection.step()
            elif connection.said < 30_000:
                connection.wire += connection.puppet.encrypt(
                    connection.pattern[connection.said : connection.said + 5000], chance.randint(100, 5000)
                )
                connection.said += 5000
            elif connection.heard == connection.said and connection.sent >= 5000:
                left.remove(connection)
            connection.deliver(chance.randint(1, 3000))
            if connection.is_established:
                connection.hear(chance.randint(1, 10_000), 0)
                if connection.sent < 5000:
                    connection.send(chance.randint(1, 5000))
                connection.puppet_hears()
            assert is_empty(BUFFERS)


def test_a_record_that_is_there_in_part_is_not_in_the_others_way() -> None:
    one, its_puppet = with_puppet(buffers=BUFFERS)
    other, other_puppet = with_puppet(buffers=BUFFERS)
    with one, other, its_puppet.sock, other_puppet.sock:
        record = its_puppet.encrypt(b"from one")
        for size in range(1, len(record)):
            its_puppet.sock.sendall(record[:size])
            assert receive_all_there_is(one) == b""
            other_puppet.sock.sendall(other_puppet.encrypt(b"from other"))
            assert other.recv(100) == b"from other"
            its_puppet.sock.sendall(record[size:])
            assert one.recv(100) == b"from one"
            record = its_puppet.encrypt(b"from one")


class Interruption(BaseException):
    """As a KeyboardInterrupt, which may come between any two steps."""


@pytest.mark.parametrize("is_before", [True, False])
@pytest.mark.parametrize("name", ["read", "write", "unwrap"])
def test_whatever_interrupts_a_step_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, name: str, is_before: bool
) -> None:
    step = getattr(ssl.SSLObject, name)

    def interrupted(tls: ssl.SSLObject, *arguments: object) -> None:
        if not is_before:
            with contextlib.suppress(ssl.SSLError):
                step(tls, *arguments)
        raise Interruption

    sock, puppet = with_puppet(buffers=BUFFERS)
    with sock, puppet.sock:
        puppet.sock.sendall(puppet.encrypt(bytes(1000)) + puppet.encrypt(bytes(1000)))
        with monkeypatch.context() as patch:
            patch.setattr(ssl.SSLObject, name, interrupted)
            verbs = {"read": lambda: sock.recv(100), "write": lambda: sock.send(b"x")}
            with pytest.raises(Interruption):
                verbs.get(name, lambda: sock.shutdown(socket.SHUT_WR))()
        assert is_empty(BUFFERS)


@pytest.mark.parametrize("error", [ConnectionResetError(), TimeoutError(), Interruption()])
def test_a_socket_that_fails_in_the_middle_of_a_read_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sock, puppet = with_puppet(buffers=BUFFERS)
    receive = socket.socket.recv_into

    def fail_the_second_time(sock: socket.socket, buffer: memoryview) -> int:
        if calls:
            raise error
        calls.append(None)
        return receive(sock, buffer)

    calls: list[None] = []
    with sock, puppet.sock:
        # More than one piece of ciphertext, the first of which ends within the fifth record.
        puppet.sock.sendall(b"".join(puppet.encrypt(bytes(16_000)) for _ in range(5)))
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "recv_into", fail_the_second_time)
            with contextlib.suppress(Interruption):
                assert sock.recv(200_000) == bytes(64_000)
        assert is_empty(BUFFERS)
        if isinstance(error, OSError):
            with pytest.raises(type(error)):
                sock.recv(200_000)


@pytest.mark.parametrize("is_server", [True, False])
def test_whatever_interrupts_a_handshake_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, is_server: bool
) -> None:
    step = ssl.SSLObject.do_handshake

    def interrupted(tls: ssl.SSLObject) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            step(tls)
        raise Interruption

    connection = Connection(0, VERSIONS[0], is_server=is_server)
    connection.puppet.sock.send(b"\x16\3\1\0\xc8\1\0")
    monkeypatch.setattr(ssl.SSLObject, "do_handshake", interrupted)
    with pytest.raises(Interruption):
        connection.sock.handshake()
    connection.close()
    assert is_empty(BUFFERS)


def test_connections_that_are_dropped_in_any_phase_leave_the_others_alone() -> None:
    healthy, puppet = with_puppet(buffers=BUFFERS)
    with healthy, puppet.sock:
        for version in VERSIONS:
            for steps in range(6):
                connection = Connection(steps, version, is_server=bool(steps % 2))
                for _ in range(steps):
                    connection.step()
                    connection.deliver(1000)
                connection.close()
                del connection
                assert is_empty(BUFFERS)
                puppet.sock.sendall(puppet.encrypt(b"ping"))
                assert read_until_error(healthy)[0] == b"ping"
                assert healthy.send(b"pong") == 4
                assert puppet.read() == b"pong"


def test_both_ends_of_one_connection_may_share() -> None:
    client, server = tls_pair(buffers=BUFFERS)
    with client, server:
        for sender, receiver in [(client, server), (server, client)] * 3:
            sender.send(bytes(30_000))
            assert receive_all_there_is(receiver, 1000) == bytes(30_000)
            assert is_empty(BUFFERS)
