"""What `open_session` promises about exceptions, cancellation and what is left behind."""

import socket

import pytest
import trio
import trio.testing

from otun.mux import SessionClosed, open_board_session, open_session
from otun.switchboard import Switchboard, open_switchboard

from .support import RawPeer, fixed_window, open_over, transports_for


def _living_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def _fail_in_body(driver, error: BaseException) -> None:
    ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "client") as session:
        await session.open_stream()
        await theirs.aclose()
        raise error


async def test_an_exception_of_the_body_comes_out_as_it_is(driver) -> None:
    with pytest.raises(ValueError, match="mine"):
        await _fail_in_body(driver, ValueError("mine"))


@pytest.mark.parametrize("error", [KeyError("mine"), SessionClosed("mine"), trio.BrokenResourceError("mine")])
async def test_the_very_same_exception_object_comes_out(driver, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        await _fail_in_body(driver, error)
    assert caught.value is error


async def test_an_exception_group_of_the_body_comes_out_unchanged(driver) -> None:
    group = ExceptionGroup("mine", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])
    with pytest.RaisesGroup(ValueError, pytest.RaisesGroup(KeyError)) as caught:
        await _fail_in_body(driver, group)
    assert caught.value is group


@pytest.mark.parametrize("is_late", [False, True], ids=["before raising", "while closing"])
async def test_an_exception_of_the_body_is_not_lost_when_the_surroundings_are_cancelled(driver, is_late: bool) -> None:
    ours, theirs = transports_for(driver)
    scope = trio.CancelScope()

    async def use_session() -> None:
        with scope:
            async with open_over(driver, ours, "client"):
                if not is_late:
                    scope.cancel()
                raise ValueError("mine")

    async def cancel_at_the_end_of_its_bytes() -> None:
        await RawPeer(theirs).rest()
        scope.cancel()

    async with theirs, trio.open_nursery() as nursery:
        if is_late:
            nursery.start_soon(cancel_at_the_end_of_its_bytes)
        with pytest.raises(ValueError, match="mine"):
            await use_session()
        nursery.cancel_scope.cancel()


async def test_leaving_the_body_by_an_exception_ends_the_session_and_leaves_no_task(driver) -> None:
    before = _living_tasks()
    with pytest.raises(ValueError, match="mine"):
        await _fail_in_body(driver, ValueError("mine"))
    assert _living_tasks() == before


async def test_after_the_session_no_task_remains_and_the_transport_is_closed(driver) -> None:
    before = _living_tasks()
    ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "client") as session:
        await session.open_stream()
        await theirs.aclose()
    assert _living_tasks() == before
    await _check_closed(ours)


async def _check_closed(transport: trio.abc.Stream | socket.socket) -> None:
    if isinstance(transport, socket.socket):
        assert transport.fileno() == -1
    else:
        with pytest.raises(trio.ClosedResourceError):
            await transport.receive_some()


async def test_cancelling_the_scope_round_a_session_closes_its_transport_at_once(driver) -> None:
    before = _living_tasks()
    ours, theirs = transports_for(driver)
    with trio.CancelScope() as scope:
        async with open_over(driver, ours, "client") as session:
            stream = await session.open_stream()
            scope.cancel()
            await stream.receive_some()
    assert scope.cancelled_caught
    assert session.is_closed
    await _check_closed(ours)
    assert _living_tasks() == before
    await RawPeer(theirs).rest()
    await theirs.aclose()


async def test_cancelling_takes_no_time_though_the_peer_does_not_answer(autojump_clock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    with trio.move_on_after(3):
        async with open_session(ours, "client") as session:
            await (await session.open_stream()).send_all(bytes(1_000_000))
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(3)


@pytest.mark.conformance(91)
async def test_a_cancelled_close_closes_the_transport_at_once(driver) -> None:
    ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "client") as session:
        with trio.CancelScope() as scope:
            scope.cancel()
            await session.aclose()
        assert scope.cancelled_caught
        assert session.is_closed
        await RawPeer(theirs).rest()
        await theirs.aclose()
    await _check_closed(ours)


async def test_closing_a_session_twice_is_fine(open_pair) -> None:
    async with open_pair() as (client, _server):
        await client.aclose()
        await client.aclose()


async def test_a_session_whose_body_does_nothing_ends_cleanly(driver) -> None:
    ours, theirs = transports_for(driver)
    await theirs.send_eof()
    async with open_over(driver, ours, "server"):
        pass
    await theirs.aclose()


async def test_streams_of_an_ended_session_raise_instead_of_waiting(driver) -> None:
    ours, theirs = transports_for(driver)
    async with open_over(driver, ours, "client") as session:
        stream = await session.open_stream()
        await theirs.aclose()
    for call in (stream.receive_some, lambda: stream.send_all(b"x"), session.accept, session.open_stream):
        with pytest.raises(SessionClosed):
            await call()


async def test_the_end_of_the_board_ends_its_sessions() -> None:
    ours, theirs = socket.socketpair()
    is_open = trio.Event()

    async def use_session(board: Switchboard) -> None:
        async with open_board_session(board, ours, "client") as session:
            is_open.set()
            with pytest.raises(SessionClosed):
                await session.accept()

    with theirs:
        async with trio.open_nursery() as nursery, open_switchboard() as board:
            nursery.start_soon(use_session, board)
            await is_open.wait()
        assert ours.fileno() == -1


@pytest.mark.parametrize("window", [0, 262143, 2**32])
async def test_a_receive_window_below_256_kib_or_above_32_bits_is_refused(driver, window: int) -> None:
    ours, theirs = transports_for(driver)
    with pytest.raises(ValueError, match="window"):
        async with open_over(driver, ours, "client", limits=fixed_window(window)):
            pytest.fail("the session was opened")
    ours.close() if isinstance(ours, socket.socket) else await ours.aclose()
    await theirs.aclose()
