"""The board without epoll: levels are made to look like edges, and nothing spins."""

import errno
import logging
import select
import socket

import pytest
import trio
import trio.testing

from otun.switchboard import Switchboard, board
from otun.switchboard.board import WRITABLE
from otun.switchboard.opening import HAS_EPOLL, open_switchboard
from otun.switchboard.task_board import ARRIVED, TaskBoard

from .support import Recorder, RecordingEndpoint, empty


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> str:
    """In this module there is one kind only."""
    monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", False)
    return "tasks"


@pytest.mark.skipif(not HAS_EPOLL, reason="this system has no epoll")
def test_the_events_have_the_numbers_of_epoll() -> None:
    readable = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    assert readable == board.READABLE
    assert select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR == board.HUNG_UP
    assert select.EPOLLERR == board.FAILED
    assert select.EPOLLOUT == board.WRITABLE


async def test_the_kind_is_chosen_by_what_the_system_has(board: Switchboard) -> None:
    assert isinstance(board, TaskBoard)


async def test_a_member_that_leaves_bytes_unread_is_told_once_and_nothing_spins(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    member = Recorder()
    theirs.send(b"x")
    board.add(ours, member)
    await trio.testing.wait_all_tasks_blocked()  # Would wait for ever beside a task that never stands still.
    calls = len(member.log)
    assert calls in (1, 2)  # To read and to write, at once or one after the other.
    theirs.send(b"y")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(member.log) == calls


async def test_a_member_that_has_read_everything_is_told_of_what_comes_next(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    member, received = Recorder(), []

    def read(events: int) -> None:
        if events & ARRIVED:
            received.append(empty(board, ours))

    member.on_ready = read
    board.add(ours, member)
    for number in range(5):
        await member.was_called.wait()
        member.was_called = trio.Event()
        theirs.send(bytes([number]))
        while len(received) <= number:
            await member.was_called.wait()
            member.was_called = trio.Event()
        member.was_called.set()
    assert b"".join(received) == bytes(range(5))


async def test_a_member_that_reads_later_of_its_own_accord_is_told_again_from_then_on(
    board: Switchboard, make_pair
) -> None:
    """So does whoever had to wait for a stream's window."""
    ours, theirs = make_pair()
    member = Recorder()
    theirs.send(b"x")
    board.add(ours, member)
    await trio.testing.wait_all_tasks_blocked()
    member.log.clear()
    assert empty(board, ours) == b"x"
    await trio.testing.wait_all_tasks_blocked()
    assert member.log == []
    theirs.send(b"y")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert member.log == ["ready"]


async def test_a_member_is_told_that_it_can_write_at_the_start_and_then_only_after_it_could_not(
    board: Switchboard, make_pair
) -> None:
    ours, theirs = make_pair()
    member, events_seen = Recorder(), []
    member.on_ready = events_seen.append
    board.add(ours, member)
    await trio.testing.wait_all_tasks_blocked()
    assert events_seen == [WRITABLE]
    with pytest.raises(BlockingIOError):  # noqa: PT012
        while True:
            ours.send(bytes(65536))
    board.filled(ours)
    await trio.testing.wait_all_tasks_blocked()
    assert events_seen == [WRITABLE]
    with pytest.raises(BlockingIOError):  # noqa: PT012
        while True:
            theirs.recv(65536)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert events_seen == [WRITABLE, WRITABLE]


async def test_no_task_remains_for_a_socket_that_was_closed(board: Switchboard, make_pair) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    unread, waiting, unborn = (make_pair() for _ in range(3))
    unread[1].send(b"x")
    for ours, _theirs in (unread, waiting):
        board.add(ours, Recorder())
    await trio.testing.wait_all_tasks_blocked()
    board.add(unborn[0], Recorder())
    for ours, _theirs in (unread, waiting, unborn):
        board.close(ours)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_what_was_seen_of_a_closed_socket_does_not_reach_the_next_one_with_its_number(
    board: Switchboard, make_pair
) -> None:
    """In whatever order the tasks run: it may be seen, and not told yet, at the first or at the second checkpoint."""
    seen_and_not_told = 0
    for checkpoints in [1, 2] * 20:
        ours, theirs = make_pair()
        number = ours.fileno()
        board.add(ours, Recorder())
        await trio.testing.wait_all_tasks_blocked()
        theirs.send(b"x")
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        seen_and_not_told += number in board._events
        board.close(ours)
        successor = Recorder()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            assert listening.fileno() == number
            board.add(listening, successor, is_listening=True)
            await trio.testing.wait_all_tasks_blocked()
            assert successor.log == []
            board.close(listening)
    assert seen_and_not_told


async def test_a_socket_that_cannot_be_watched_is_closed_and_the_others_go_on(
    board: Switchboard, make_pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_descriptor: int) -> None:
        await trio.lowlevel.checkpoint()  # Both directions are being waited for.
        raise OSError(errno.ENOSPC, "No space left on device")

    (ours, _), (sound, others) = make_pair(), make_pair()
    with monkeypatch.context() as patches, caplog.at_level(logging.ERROR):
        patches.setattr("trio.lowlevel.wait_readable", fail)
        patches.setattr("trio.lowlevel.wait_writable", fail)
        endpoint = RecordingEndpoint(board, ours)
    neighbour = RecordingEndpoint(board, sound)
    await trio.testing.wait_all_tasks_blocked()
    assert endpoint.is_closed
    assert "No space left" in caplog.text
    others.send(b"x")
    await neighbour.wait_until(lambda: neighbour.received)


async def test_many_sockets_are_ended_with_the_board(kind: str) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_switchboard() as board:
        endpoints = []
        for _ in range(200):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                theirs.send(b"x")
                endpoints.append(RecordingEndpoint(board, ours))
        for endpoint in endpoints:
            await endpoint.wait_until(lambda endpoint=endpoint: endpoint.has_ended)
    assert all(endpoint.is_closed for endpoint in endpoints)
    assert trio.lowlevel.current_statistics().tasks_living == before
