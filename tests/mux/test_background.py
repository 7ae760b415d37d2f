"""The nursery under every session: its owner's exceptions are the owner's own."""

import pytest
import trio

from otun.background import open_background


async def _fail() -> None:
    raise RuntimeError("a bug in the background")


async def test_the_tasks_are_cancelled_when_the_body_ends() -> None:
    is_cancelled = False

    async def work() -> None:
        nonlocal is_cancelled
        try:
            await trio.sleep_forever()
        finally:
            is_cancelled = True

    async with open_background() as background:
        background.start_soon(work)
    assert is_cancelled


async def test_the_bodys_exception_is_not_wrapped() -> None:
    async def body() -> None:
        async with open_background() as background:
            background.start_soon(trio.sleep_forever)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await body()


async def test_a_bug_in_a_task_comes_out_in_an_exception_group_though_the_body_waits_for_ever() -> None:
    async def body() -> None:
        async with open_background() as background:
            background.start_soon(_fail)
            await trio.sleep_forever()

    with pytest.RaisesGroup(RuntimeError):
        await body()


async def test_a_bug_in_a_task_comes_out_though_the_body_waits_in_a_nursery_of_its_own() -> None:
    """A cancelled nursery raises a group of cancellations, and no bare one."""

    async def body() -> None:
        async with open_background() as background, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            background.start_soon(_fail)
            await trio.sleep_forever()

    with pytest.RaisesGroup(RuntimeError):
        await body()


async def test_an_error_of_the_bodys_comes_out_and_no_cancellation_when_a_task_has_a_bug_too() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("mine")

    async def body() -> None:
        async with open_background() as background:
            background.start_soon(_fail)
            await fail_when_cancelled()

    with pytest.raises(ValueError, match="mine"):
        await body()


async def test_a_bug_in_a_task_comes_out_when_the_body_has_already_ended() -> None:
    async def body() -> None:
        async with open_background() as background:
            background.start_soon(_fail)

    with pytest.RaisesGroup(RuntimeError):
        await body()


async def test_the_bodys_exception_survives_the_cancellation_of_the_surroundings() -> None:
    async def body() -> None:
        with trio.CancelScope() as scope:
            async with open_background() as background:
                background.start_soon(trio.sleep_forever)
                scope.cancel()
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await body()


async def test_cancelling_the_surroundings_is_caught_by_their_scope() -> None:
    with trio.CancelScope() as scope:
        async with open_background() as background:
            background.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
