"""The last bytes arrive, although the other side is still sending what nobody reads."""

import socket

import pytest
import trio
import trio.lowlevel
import trio.testing

from otun.switchboard import LingeringClose, Switchboard, open_switchboard

from .support import Recorder, read_to_end

pytestmark = pytest.mark.usefixtures("kind")

LAST_BYTES = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n"


def _hand_over(board: Switchboard, sock: socket.socket, last_bytes: bytes = LAST_BYTES) -> LingeringClose:
    board.add(sock, Recorder())
    return LingeringClose(board, sock, last_bytes)


def _send_all_that_goes(sock: socket.socket) -> int:
    total = 0
    try:
        while True:
            total += sock.send(bytes(65536))
    except BlockingIOError:
        return total


async def test_the_last_bytes_arrive_though_input_is_unread(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    assert _send_all_that_goes(theirs) > 100_000
    _hand_over(board, ours)
    assert await read_to_end(theirs) == LAST_BYTES
    theirs.close()


async def test_the_other_side_may_go_on_sending_before_it_reads(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    closing = _hand_over(board, ours)
    for _ in range(200):
        await trio.lowlevel.wait_writable(theirs)
        theirs.send(bytes(65536))
    theirs.shutdown(socket.SHUT_WR)
    assert await read_to_end(theirs) == LAST_BYTES
    while not closing.is_closed:
        await trio.lowlevel.checkpoint()
    assert ours.fileno() == -1


async def test_it_closes_when_the_other_side_has_closed(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    closing = _hand_over(board, ours)
    assert await read_to_end(theirs) == LAST_BYTES
    assert not closing.is_closed
    theirs.close()
    while not closing.is_closed:
        await trio.lowlevel.checkpoint()
    assert ours.fileno() == -1
    assert closing.deadline_slot == 0


async def test_it_does_so_when_the_former_owner_was_told_of_bytes_and_left_some(
    board: Switchboard, make_tcp_pair
) -> None:
    ours, theirs = make_tcp_pair()
    former = Recorder()
    theirs.send(b"GET / HTTP/1.1")
    await trio.lowlevel.wait_readable(ours)
    board.add(ours, former)
    await former.was_called.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert ours.recv(3) == b"GET"
    closing = LingeringClose(board, ours, LAST_BYTES)
    assert await read_to_end(theirs) == LAST_BYTES
    theirs.close()
    with trio.fail_after(2):
        while not closing.is_closed:
            await trio.lowlevel.checkpoint()


async def test_last_bytes_that_do_not_fit_are_sent_when_there_is_room(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    page = bytes(range(256)) * 40_000
    _hand_over(board, ours, page)
    assert await read_to_end(theirs) == page


async def test_the_former_owner_is_not_called_any_more(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    former = Recorder()
    board.add(ours, former)
    await former.was_called.wait()
    former.log.clear()
    LingeringClose(board, ours, LAST_BYTES)
    theirs.send(b"x")
    assert await read_to_end(theirs) == LAST_BYTES
    assert former.log == []


async def test_a_peer_that_never_closes_is_cut_off_after_a_while(
    make_tcp_pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets need the real clock: the limit is made small."""
    monkeypatch.setattr("otun.switchboard.endpoint.LINGER_TIMEOUT", 0.05)
    ours, theirs = make_tcp_pair()
    async with open_switchboard() as board:
        closing = _hand_over(board, ours)
        assert await read_to_end(theirs) == LAST_BYTES
        while not closing.is_closed:
            await trio.lowlevel.checkpoint()
        assert ours.fileno() == -1


async def test_a_peer_that_has_gone_already_is_just_closed(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    ours.send(b"unread")
    theirs.close()  # Over unread bytes: RST.
    await trio.lowlevel.wait_readable(ours)
    closing = _hand_over(board, ours)
    while not closing.is_closed:
        await trio.lowlevel.checkpoint()
    assert ours.fileno() == -1


async def test_the_end_of_the_board_ends_it(make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    async with open_switchboard() as board:
        closing = _hand_over(board, ours)
        assert await read_to_end(theirs) == LAST_BYTES
    assert closing.is_closed
    assert ours.fileno() == -1
