"""The end of the board: nothing is left, and nothing goes wrong on the way."""

import socket

import pytest
import trio
import trio.testing

from otun.switchboard import open_switchboard

from .support import Recorder

pytestmark = pytest.mark.usefixtures("kind")


async def test_a_board_whose_body_ends_at_once_ends_without_a_word() -> None:
    async with open_switchboard():
        pass


async def test_a_board_that_ends_just_as_a_socket_becomes_readable_ends_without_a_word(make_pair) -> None:
    """The board's task and the body wake together, in either order."""
    for _ in range(20):
        (ours, theirs), (bell, ringer) = make_pair(), make_pair()
        member = Recorder()
        async with open_switchboard() as board:
            board.add(ours, member)
            await member.was_called.wait()
            theirs.send(b"x")
            ringer.send(b"x")
            await trio.lowlevel.wait_readable(bell)


async def test_the_end_of_the_board_closes_every_socket_that_is_left_on_it(make_pair) -> None:
    socks = [make_pair()[0] for _ in range(20)]
    members: list[Recorder] = []
    async with open_switchboard() as board:
        for sock in socks:
            member = Recorder()
            member.on_abort = lambda sock=sock: board.close(sock)
            members.append(member)
            board.add(sock, member)
        for member in members:
            await member.was_called.wait()
    assert all(member.log[-1] == "abort" for member in members)
    assert {sock.fileno() for sock in socks} == {-1}


async def test_the_end_of_the_board_goes_on_when_a_member_fails_at_it(
    make_pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("a bug in a member")

    broken, sound = Recorder(), Recorder()
    broken.on_abort = fail
    async with open_switchboard() as board:
        for member in (broken, sound):
            board.add(make_pair()[0], member)
            await member.was_called.wait()
    assert sound.log[-1] == "abort"
    assert caplog.records


async def test_the_bodys_exception_leaves_the_board_as_it_is_and_no_task_remains(make_pair) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    ours: socket.socket = make_pair()[0]
    member = Recorder()
    member.on_abort = lambda: board.close(ours)
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with open_switchboard() as board:
            board.add(ours, member)
            await member.was_called.wait()
            raise KeyError("mine")
    assert ours.fileno() == -1
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_cancelling_the_scope_round_a_board_closes_its_sockets(make_pair) -> None:
    ours: socket.socket = make_pair()[0]
    member = Recorder()
    with trio.CancelScope() as scope:
        async with open_switchboard() as board:
            member.on_abort = lambda: board.close(ours)
            board.add(ours, member)
            await member.was_called.wait()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert ours.fileno() == -1
