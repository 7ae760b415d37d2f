"""Listening sockets on the board."""

import errno
import logging
import os
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from otun.switchboard import Listener, Switchboard, open_switchboard
from otun.switchboard.listener import ACCEPTS_PER_CALL, REPORT_INTERVAL

from .support import Recorder

pytestmark = pytest.mark.usefixtures("kind")


class FailingSocket(socket.socket):
    """A listening socket whose next accepts fail as told, although connections are queued."""

    failures: list[int]

    def accept(self):
        if self.failures:
            code = self.failures.pop(0)
            raise OSError(code, errno.errorcode[code])
        return super().accept()


@pytest.fixture
def listening() -> Iterator[FailingSocket]:
    with FailingSocket() as sock:
        sock.failures = []
        sock.bind(("127.0.0.1", 0))
        sock.listen(200)
        yield sock


@pytest.fixture
def accepted() -> Iterator["Accepted"]:
    accepted = Accepted()
    yield accepted
    for sock in accepted.socks:
        sock.close()


class Accepted:
    """What a listener has accepted."""

    def __init__(self) -> None:
        self.socks: list[socket.socket] = []
        self._news = trio.Event()

    def __call__(self, sock: socket.socket) -> None:
        self.socks.append(sock)
        self._news.set()

    async def wait_for(self, count: int) -> None:
        while len(self.socks) < count:
            self._news = trio.Event()
            await self._news.wait()


def _connect(listening: socket.socket) -> socket.socket:
    return socket.create_connection(listening.getsockname())


async def test_every_connection_is_handed_over_as_a_non_blocking_socket(
    board: Switchboard, listening: FailingSocket, accepted: Accepted
) -> None:
    Listener(board, listening, accepted)
    with _connect(listening), _connect(listening):
        await accepted.wait_for(2)
    assert not any(sock.getblocking() for sock in accepted.socks)


async def test_more_connections_than_one_call_takes_are_all_accepted(
    board: Switchboard, listening: FailingSocket, accepted: Accepted
) -> None:
    clients = [_connect(listening) for _ in range(ACCEPTS_PER_CALL + 20)]
    Listener(board, listening, accepted)
    await accepted.wait_for(len(clients))
    for client in clients:
        client.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_shortage_is_reported_once_and_what_is_queued_is_accepted_when_it_is_over(
    board: Switchboard,
    listening: FailingSocket,
    accepted: Accepted,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    """No new connection comes, and so no new event: the listener has to look again by itself."""
    listening.failures = [code, code]
    with caplog.at_level(logging.ERROR), _connect(listening):
        Listener(board, listening, accepted)
        await accepted.wait_for(1)
    assert len(caplog.records) == 1
    assert listening.failures == []


async def meet_a_shortage(listening: FailingSocket, accepted: Accepted) -> None:
    listening.failures = [errno.EMFILE]
    with _connect(listening):
        await accepted.wait_for(len(accepted.socks) + 1)


async def test_shortages_that_come_and_go_are_reported_once_a_second(
    board: Switchboard, listening: FailingSocket, accepted: Accepted, caplog: pytest.LogCaptureFixture
) -> None:
    Listener(board, listening, accepted)
    await meet_a_shortage(listening, accepted)
    board.shortage_reported = board.now  # However slow this machine is.
    await meet_a_shortage(listening, accepted)
    assert len(caplog.records) == 1
    board.shortage_reported -= REPORT_INTERVAL
    await meet_a_shortage(listening, accepted)
    assert len(caplog.records) == 2


async def test_a_shortage_of_all_listeners_is_reported_by_one(
    board: Switchboard, listening: FailingSocket, accepted: Accepted, caplog: pytest.LogCaptureFixture
) -> None:
    with FailingSocket() as other:
        other.failures = [errno.EMFILE]
        other.bind(("127.0.0.1", 0))
        other.listen()
        Listener(board, listening, accepted)
        Listener(board, other, accepted)
        await meet_a_shortage(listening, accepted)
        board.shortage_reported = board.now
        with _connect(other):
            await accepted.wait_for(2)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO])
async def test_a_connection_that_broke_before_it_was_accepted_does_not_stop_the_others(
    board: Switchboard, listening: FailingSocket, accepted: Accepted, code: int
) -> None:
    listening.failures = [code]
    with _connect(listening):
        Listener(board, listening, accepted)
        await accepted.wait_for(1)


async def test_the_end_of_the_board_closes_the_listening_socket(listening: FailingSocket, accepted: Accepted) -> None:
    address = listening.getsockname()
    async with open_switchboard() as board:
        Listener(board, listening, accepted)
        with _connect(listening):
            await accepted.wait_for(1)
    assert listening.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_the_end_of_the_board_during_a_shortage_closes_the_listening_socket_for_good(
    listening: FailingSocket, accepted: Accepted, caplog: pytest.LogCaptureFixture
) -> None:
    listening.failures = [errno.EMFILE] * 1000
    with _connect(listening):
        async with open_switchboard() as board:
            listener = Listener(board, listening, accepted)
            while not caplog.records:
                await trio.lowlevel.checkpoint()
        assert listening.fileno() == -1
        assert listener.deadline_slot == 0
    assert accepted.socks == []


async def test_a_connection_whose_receiver_fails_does_not_end_the_listening(
    board: Switchboard, listening: FailingSocket, accepted: Accepted, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing callback ends its own connection and is logged; it never ends what serves the others."""

    def fail_once(sock: socket.socket) -> None:
        accepted(sock)
        if len(accepted.socks) == 1:
            raise ValueError("a bug with this connection")

    Listener(board, listening, fail_once)
    with _connect(listening):
        await accepted.wait_for(1)
    with _connect(listening), trio.fail_after(2):
        await accepted.wait_for(2)
    assert "a bug with this connection" in caplog.text


async def test_one_that_finishes_takes_what_is_queued_and_listens_no_more(
    listening: FailingSocket, accepted: Accepted
) -> None:
    address = listening.getsockname()
    queued = 2 * ACCEPTS_PER_CALL
    async with open_switchboard() as board:
        listener = Listener(board, listening, accepted)
        visitors = [socket.create_connection(address) for _ in range(queued)]
        listener.finish()
        assert len(accepted.socks) == queued
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert len(board) == 0
    for visitor in visitors:
        visitor.close()


async def test_one_that_has_more_to_accept_when_it_ends_does_not_try(
    board: Switchboard, listening: FailingSocket, accepted: Accepted, caplog: pytest.LogCaptureFixture
) -> None:
    """It would find the socket closed, take that for a shortage, and try again for as long as the board lives."""
    listener = Listener(board, listening, accepted)
    listener.resume()
    listener.abort()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not caplog.records
    assert listener.deadline_slot == 0


async def test_what_happens_to_a_socket_that_another_process_goes_on_using_reaches_nobody(
    listening: FailingSocket, accepted: Accepted
) -> None:
    """epoll would go on telling it, by a descriptor's number that is somebody else's by then."""
    number = listening.fileno()
    near, far = socket.socketpair()
    with listening.dup() as elsewhere, near, far:
        async with open_switchboard() as board:
            Listener(board, listening, accepted).abort()
            os.dup2(near.fileno(), number)
            with socket.socket(fileno=number) as sock:
                member = Recorder()
                board.add(sock, member)
                await trio.testing.wait_all_tasks_blocked(0.01)
                before = len(member.log)
                with socket.create_connection(elsewhere.getsockname()):
                    await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(member.log) == before
                board.close(sock)
