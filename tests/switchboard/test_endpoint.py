"""Sockets of members: partial sends, half-close, errors, aborts."""

import socket

import pytest
import trio
import trio.testing

from otun.switchboard import Switchboard, open_switchboard
from otun.switchboard.board import HUNG_UP, READABLE

from .support import RecordingEndpoint, read_to_end

pytestmark = pytest.mark.usefixtures("kind")

LARGE = bytes(range(256)) * 40_000
"""Some 10 MB: more than any socket takes at once."""


async def test_what_the_socket_takes_at_once_is_not_kept(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    assert endpoint.send(b"short") == 5
    assert not endpoint.unsent
    endpoint.close()
    assert await read_to_end(theirs) == b"short"
    assert endpoint.drained_bytes == 0


async def test_what_the_socket_refuses_is_kept_and_sent_in_order_when_there_is_room(
    board: Switchboard, make_pair
) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    sent = endpoint.send(LARGE)
    assert 0 < sent < len(LARGE)
    assert len(endpoint.unsent) == len(LARGE) - sent
    assert endpoint.send(b"behind it") == 0
    endpoint.send_eof()
    assert not endpoint.is_done
    received = await read_to_end(theirs)
    assert received == LARGE + b"behind it"
    assert endpoint.drained_bytes == len(LARGE) - sent + len(b"behind it")
    assert endpoint.is_done
    assert not endpoint.unsent


async def test_so_it_is_long_after_the_socket_was_first_writable(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    await trio.testing.wait_all_tasks_blocked()
    endpoint.send(LARGE)
    endpoint.send_eof()
    assert await read_to_end(theirs) == LARGE


async def test_kept_bytes_are_a_copy(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    buffer = bytearray(LARGE)
    endpoint.send(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    endpoint.send_eof()
    assert await read_to_end(theirs) == LARGE


async def test_send_eof_ends_our_direction_only(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    endpoint.send(b"question")
    endpoint.send_eof()
    assert endpoint.is_done
    assert await read_to_end(theirs) == b"question"
    theirs.send(b"answer")
    theirs.shutdown(socket.SHUT_WR)
    await endpoint.wait_until(lambda: endpoint.has_ended)
    assert endpoint.received == b"answer"
    assert not endpoint.is_closed


async def test_the_other_sides_end_behind_its_data_is_seen_without_another_event(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    theirs.send(b"all of it")
    theirs.shutdown(socket.SHUT_WR)
    endpoint = RecordingEndpoint(board, ours)
    await endpoint.wait_until(lambda: endpoint.has_ended)
    assert endpoint.received == b"all of it"


async def test_data_that_was_there_before_the_socket_came_to_the_board_is_read(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    theirs.send(b"early")
    endpoint = RecordingEndpoint(board, ours)
    await endpoint.wait_until(lambda: endpoint.received)
    assert endpoint.received == b"early"


async def test_abort_resets_the_connection_and_drops_what_was_kept(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    endpoint = RecordingEndpoint(board, ours)
    endpoint.send(LARGE)
    endpoint.abort()
    assert endpoint.is_closed
    assert not endpoint.unsent
    assert ours.fileno() == -1
    with pytest.raises(ConnectionResetError):
        await read_to_end(theirs)


async def test_close_without_reset_is_an_orderly_end(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    endpoint = RecordingEndpoint(board, ours)
    endpoint.send(b"goodbye")
    endpoint.close()
    endpoint.close()
    assert await read_to_end(theirs) == b"goodbye"


async def test_a_reset_by_the_other_side_is_reported_once_as_broken(board: Switchboard, make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    endpoint = RecordingEndpoint(board, ours)
    endpoint.send(LARGE)
    theirs.close()  # With unread data: the system sends RST.
    await endpoint.wait_until(lambda: endpoint.errors)
    assert len(endpoint.errors) == 1
    assert endpoint.is_closed


async def test_sending_to_a_side_that_has_gone_is_broken_and_returns_0(board: Switchboard, make_pair) -> None:
    ours, theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    theirs.close()
    assert endpoint.send(b"x") == 0
    assert len(endpoint.errors) == 1


async def test_a_connection_that_is_being_made_keeps_what_is_sent_until_it_stands(board: Switchboard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.socket()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect(listener.getsockname())
        endpoint = RecordingEndpoint(board, sock, is_connecting=True)
        assert "connecting" in repr(endpoint)
        assert endpoint.send(b"hello") == 0
        endpoint.send_eof()
        theirs, _ = listener.accept()
        with theirs:
            theirs.setblocking(False)
            assert await read_to_end(theirs) == b"hello"
        assert endpoint.is_up
        assert endpoint.is_done
        endpoint.close()


async def test_a_connection_to_somebody_who_speaks_at_once_loses_nothing(board: Switchboard) -> None:
    """It may be seen to be readable before it is seen to stand."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(20):
            sock = socket.socket()
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.connect(listener.getsockname())
            theirs, _ = listener.accept()
            with theirs:
                theirs.send(b"220 ready")
            endpoint = RecordingEndpoint(board, sock, is_connecting=True)
            await endpoint.wait_until(lambda endpoint=endpoint: endpoint.has_ended)
            assert endpoint.is_up
            assert endpoint.received == b"220 ready"
            endpoint.close()


async def test_a_connection_that_is_seen_to_be_readable_first_stands(board: Switchboard, make_tcp_pair) -> None:
    """Tasks may see the two in either order, and nobody announces the bytes again."""
    ours, theirs = make_tcp_pair()
    theirs.send(b"220 ready")
    await trio.lowlevel.wait_readable(ours)
    endpoint = RecordingEndpoint(board, ours, is_connecting=True)
    endpoint.ready(READABLE & ~HUNG_UP)
    assert endpoint.is_up
    assert endpoint.received == b"220 ready"


async def test_a_connection_that_is_refused_is_broken(board: Switchboard) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    sock = socket.socket()
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.connect(address)
    endpoint = RecordingEndpoint(board, sock, is_connecting=True)
    await endpoint.wait_until(lambda: endpoint.errors)
    assert isinstance(endpoint.errors[0], ConnectionRefusedError)
    assert not endpoint.is_up
    assert endpoint.is_closed


async def test_a_deadline_that_passes_aborts_unless_a_subclass_says_otherwise(
    board: Switchboard, make_tcp_pair
) -> None:
    ours, theirs = make_tcp_pair()
    endpoint = RecordingEndpoint(board, ours)
    board.set_deadline(endpoint, 0.001)
    with pytest.raises(ConnectionResetError):
        await read_to_end(theirs)
    assert endpoint.is_closed


async def test_closing_takes_the_deadline_back(board: Switchboard, make_pair) -> None:
    ours, _theirs = make_pair()
    endpoint = RecordingEndpoint(board, ours)
    board.set_deadline(endpoint, 1)
    endpoint.close()
    assert endpoint.deadline_slot == 0
    assert "closed" in repr(endpoint)


async def test_the_end_of_the_board_resets_what_is_left(make_tcp_pair) -> None:
    ours, theirs = make_tcp_pair()
    async with open_switchboard() as board:
        endpoint = RecordingEndpoint(board, ours)
        theirs.send(b"x")
        await endpoint.wait_until(lambda: endpoint.received)
    assert endpoint.is_closed
    with pytest.raises(ConnectionResetError):
        await read_to_end(theirs)
