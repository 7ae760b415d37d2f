import errno
import os
import signal

import pytest
import trio
import typer

from otun.cli.signals import run_until_signal
from otun.errors import OtunError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_cancels_the_main_task_in_order(number: signal.Signals, code: int) -> None:
    seen: list[str] = []

    async def main() -> None:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    with pytest.raises(typer.Exit) as ended:
        run_until_signal(main)
    assert ended.value.exit_code == code
    assert seen == ["Cancelled"]


def test_a_signal_never_lands_in_the_middle_of_synchronous_code() -> None:
    finished = False

    async def main() -> None:
        nonlocal finished
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1_000_000))
        finished = True
        await trio.sleep_forever()

    with pytest.raises(typer.Exit):
        run_until_signal(main)
    assert finished


def test_a_main_task_that_ends_needs_no_signal() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()

    run_until_signal(main)


def test_what_the_main_task_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        run_until_signal(main)
    assert caught.group_contains(LookupError)


def test_a_system_that_does_not_let_trio_start_is_no_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(trio, "run", run)
    with pytest.raises(OtunError, match="Trio cannot start: Too many open files"):
        run_until_signal(trio.sleep_forever)


def test_a_second_signal_ends_a_process_that_hangs_while_closing() -> None:
    child = os.fork()
    if child == 0:  # pragma: no cover

        async def main() -> None:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await trio.sleep_forever()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                with trio.CancelScope(shield=True):
                    await trio.sleep(20)

        try:
            run_until_signal(main)
        finally:
            os._exit(77)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130
