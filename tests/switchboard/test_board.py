"""The board: who is called when, what a failure costs, what a batch puts off."""

import logging
import os

import pytest
import trio
import trio.testing

from otun.switchboard import Switchboard, open_switchboard
from otun.switchboard.deadlines import TICK

from .support import Recorder, empty

pytestmark = pytest.mark.usefixtures("kind")


async def test_a_member_is_called_when_its_socket_becomes_readable(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    member = Recorder()
    board.add(ours, member)
    await member.was_called.wait()  # Writable, from the start.
    member.was_called = trio.Event()
    theirs.send(b"x")
    await member.was_called.wait()
    assert ours.recv(10) == b"x"


@pytest.mark.parametrize("call", ["ready", "flush", "deadline"])
async def test_a_member_that_fails_is_closed_and_logged_and_the_others_go_on(
    board: Switchboard, make_pair, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    def fail(*_args: int) -> None:
        raise ValueError("a bug in a member")

    (ours, _), (sound, others) = make_pair(), make_pair()
    broken, neighbour = Recorder("broken"), Recorder("neighbour")
    was_closed = trio.Event()

    def close() -> None:
        board.close(ours)
        was_closed.set()

    broken.on_abort = close
    setattr(broken, f"on_{call}", fail)
    board.add(sound, neighbour)
    with caplog.at_level(logging.ERROR):
        board.add(ours, broken)
        if call == "flush":
            board.flush_later(broken)
        elif call == "deadline":
            board.set_deadline(broken, 0.001)
        await was_closed.wait()
    assert ours.fileno() == -1
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("a bug in a member",)]
    assert "broken" in caplog.text
    neighbour.was_called = trio.Event()
    others.send(b"x")
    await neighbour.was_called.wait()


async def test_a_member_that_cannot_even_be_closed_does_not_end_the_board(
    board: Switchboard, make_pair, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: int) -> None:
        raise ValueError("a bug in a member")

    (ours, _), (sound, _) = make_pair(), make_pair()
    broken, neighbour = Recorder(), Recorder()
    broken.on_ready = broken.on_abort = fail
    board.add(ours, broken)
    await broken.was_called.wait()
    board.close(ours)
    board.add(sound, neighbour)
    await neighbour.was_called.wait()
    assert len(caplog.records) == 2


async def test_flushes_come_at_the_end_of_the_batch_and_at_once_when_there_is_none(
    board: Switchboard, make_pair
) -> None:
    log: list[str] = []
    (left, _), (right, _) = make_pair(), make_pair()
    members = Recorder("left ", log), Recorder("right ", log)
    for sock, member in zip((left, right), members, strict=True):
        board.add(sock, member)
        member.on_ready = lambda _events, member=member: board.flush_later(member)
    for member in members:
        await member.was_called.wait()
    assert [entry.partition(" ")[2] for entry in log] == ["ready", "ready", "flush", "flush"]
    log.clear()
    board.flush_later(members[0])
    assert log == ["left flush"]


async def test_call_again_comes_in_a_later_batch_with_no_events(board: Switchboard, make_pair) -> None:
    ours, _theirs = make_pair()
    member = Recorder()
    was_again = trio.Event()

    def call_again_once(events: int) -> None:
        if events:
            board.call_again(member)
            member.log.append("asked")
        else:
            was_again.set()

    member.on_ready = call_again_once
    board.add(ours, member)
    await was_again.wait()
    assert member.log[:3] == ["ready", "asked", "again"]


async def test_call_again_is_fair_to_members_with_events_and_to_other_tasks(board: Switchboard, make_pair) -> None:
    """Two members never finish; a third, and a Trio task, get their turns all the same."""
    greedy = [Recorder("first "), Recorder("second ")]
    log = greedy[1].log = greedy[0].log
    for member in greedy:
        member.on_ready = lambda _events, member=member: board.call_again(member)
        board.add(make_pair()[0], member)
    ours, theirs = make_pair()
    modest = Recorder()
    modest.on_ready = lambda _events: empty(board, ours)
    board.add(ours, modest)
    await modest.was_called.wait()
    for _ in range(5):
        modest.was_called = trio.Event()
        theirs.send(b"x")
        await modest.was_called.wait()
    again = [entry for entry in log if entry.endswith("again")]
    assert abs(again.count("first again") - again.count("second again")) <= 1
    for member in greedy:
        member.on_ready = lambda _events: None


async def test_call_again_comes_also_when_it_is_asked_for_outside_a_batch(board: Switchboard, make_pair) -> None:
    ours, _theirs = make_pair()
    member = Recorder()
    board.add(ours, member)
    await member.was_called.wait()
    await trio.testing.wait_all_tasks_blocked()
    member.was_called = trio.Event()
    board.call_again(member)
    with trio.fail_after(2):
        await member.was_called.wait()
    assert member.log[-1] == "again"


async def test_call_again_comes_also_when_a_flush_outside_a_batch_asks_for_it(board: Switchboard, make_pair) -> None:
    ours, _theirs = make_pair()
    member = Recorder()
    board.add(ours, member)
    await member.was_called.wait()
    await trio.testing.wait_all_tasks_blocked()
    was_again = trio.Event()
    member.on_ready = lambda _events: was_again.set()
    member.on_flush = lambda: board.call_again(member)
    board.flush_later(member)
    with trio.fail_after(2):
        await was_again.wait()


async def test_a_socket_closed_in_a_batch_keeps_its_descriptor_until_the_end_of_it(
    board: Switchboard, make_pair
) -> None:
    ours, _theirs = make_pair()
    descriptor = ours.fileno()
    seen: list[bool] = []
    member = Recorder()

    def is_taken() -> bool:
        try:
            os.fstat(descriptor)
        except OSError:
            return False
        return True

    def close(_events: int) -> None:
        board.close(ours)
        seen.append(is_taken())
        board.flush_later(member)

    member.on_ready = close
    member.on_flush = lambda: seen.append(is_taken())
    board.add(ours, member)
    await member.was_called.wait()
    assert seen == [True, True]
    assert ours.fileno() == -1


async def test_a_member_closed_by_another_one_in_the_same_batch_is_not_called(board: Switchboard, make_pair) -> None:
    (left, left_peer), (right, right_peer) = make_pair(), make_pair()
    members = {left: Recorder("left "), right: Recorder("right ")}
    for sock, member in members.items():
        board.add(sock, member)
    for member in members.values():
        await member.was_called.wait()
        member.log.clear()
        member.was_called = trio.Event()
    for sock, other in ((left, right), (right, left)):
        members[sock].on_ready = lambda _events, other=other: board.close(other)
    left_peer.send(b"x")
    right_peer.send(b"x")
    async with trio.open_nursery() as nursery:
        for member in members.values():
            nursery.start_soon(_cancel_when_called, member, nursery.cancel_scope)
    assert sum(len(member.log) for member in members.values()) == 1


async def _cancel_when_called(member: Recorder, scope: trio.CancelScope) -> None:
    await member.was_called.wait()
    scope.cancel()


async def test_a_socket_closed_outside_a_batch_is_closed_at_once(board: Switchboard, make_pair) -> None:
    ours, _theirs = make_pair()
    member = Recorder()
    board.add(ours, member)
    await member.was_called.wait()
    board.close(ours)
    assert ours.fileno() == -1


async def test_a_socket_that_was_handed_over_calls_its_new_member_only(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    old, new = Recorder(), Recorder()
    board.add(ours, old)
    await old.was_called.wait()
    old.log.clear()
    board.replace(ours, new)
    theirs.send(b"x")
    await new.was_called.wait()
    assert old.log == []


async def test_a_deadline_comes_not_before_its_time_and_at_most_one_tick_later(autojump_clock) -> None:
    late: list[float] = []
    async with open_switchboard() as board:
        await trio.sleep(0.001)
        for number in range(40):
            member = Recorder()
            delay = 1.0 + number / 37
            deadline = trio.current_time() + delay
            board.set_deadline(member, delay)
            await member.was_called.wait()
            late.append(trio.current_time() - deadline)
            await trio.sleep(0.0137)
    assert min(late) >= -1e-9
    assert max(late) <= TICK + 1e-9


async def test_a_deadline_that_was_cleared_or_moved_does_not_come_at_its_old_time(autojump_clock) -> None:
    async with open_switchboard() as board:
        cleared, moved = Recorder(), Recorder()
        board.set_deadline(cleared, 5)
        board.set_deadline(moved, 5)
        board.clear_deadline(cleared)
        board.clear_deadline(cleared)
        board.set_deadline(moved, 20)
        await moved.was_called.wait()
        assert 20 <= trio.current_time() <= 20 + 2 * TICK
        await trio.sleep(10)
        assert cleared.log == []
        assert moved.log == ["deadline"]
