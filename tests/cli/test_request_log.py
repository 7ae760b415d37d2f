import contextlib
import itertools
import os
import time

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from otun.cli.output import Output
from otun.cli.request_log import (
    LINES_PER_SECOND,
    RequestLog,
    RequestPrinter,
    describe_exchange,
    open_request_printer,
)
from otun.http.exchange import Exchange

EXCHANGE = Exchange("GET", "/items?token=secret", 200, 0.0124)
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


def test_a_line_has_time_method_path_status_and_duration_but_no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert describe_exchange(EXCHANGE, now=3600.5) == "01:00:00 GET /items 200 12ms"
    monkeypatch.undo()
    time.tzset()


def test_a_request_without_answer_has_a_dash_for_its_status() -> None:
    assert describe_exchange(Exchange("GET", "/", None, 2.04), now=0).split()[1:] == ["GET", "/", "-", "2.0s"]


@given(ANY_TEXT, ANY_TEXT)
def test_a_line_is_five_short_visible_words_whatever_the_visitor_sent(method: str, target: str) -> None:
    line = describe_exchange(Exchange(method, target, 200, 1.0), now=0)
    assert len(line.split(" ")) == 5
    assert len(line) < 200
    assert line.replace("…", "").isascii()
    assert line.isprintable()


def test_fifty_lines_a_second_and_then_a_count_of_the_others() -> None:
    log = RequestLog()
    lines = [line for n in range(130) for line in log.record(EXCHANGE, now=10 + n / 1000)]
    assert len(lines) == LINES_PER_SECOND == 50
    assert log.seconds_to_flush(now=10.75) == 0.25
    assert log.flush(now=10.99) == []
    assert log.flush(now=11.0) == ["… 80 more requests not shown"]
    assert log.flush(now=11.0) == []
    assert log.seconds_to_flush(now=11.0) == float("inf")


def test_the_count_comes_before_the_next_line() -> None:
    log = RequestLog()
    for _ in range(LINES_PER_SECOND + 1):
        log.record(EXCHANGE, now=10)
    first, second = log.record(EXCHANGE, now=12.5)
    assert first == "… 1 more request not shown"
    assert "GET /items" in second


@given(st.lists(st.floats(0, 1e9), max_size=300))
def test_every_exchange_is_shown_or_counted_whatever_the_clock_does(times: list[float]) -> None:
    log = RequestLog()
    lines = [line for now in times for line in log.record(EXCHANGE, now=now)]
    lines += log.flush(now=2e9)
    counted = sum(int(line.split()[1]) for line in lines if line.startswith("…"))
    shown = sum(not line.startswith("…") for line in lines)
    assert shown + counted == len(times)


def test_the_wait_is_bounded_when_the_clock_was_set_back() -> None:
    log = RequestLog()
    for _ in range(60):
        log.record(EXCHANGE, now=1000)
    assert log.seconds_to_flush(now=10) == 1.0


async def test_printer_writes_lines_and_then_the_count_though_no_more_requests_come() -> None:
    now = 10.98
    reading, writing = os.pipe()
    printer = RequestPrinter(Output(writing, is_terminal=False), clock=lambda: now)
    written = b""
    with trio.fail_after(10):
        async with trio.lowlevel.FdStream(reading) as pipe, trio.open_nursery() as nursery:
            nursery.start_soon(printer.run)
            for _ in range(LINES_PER_SECOND):
                printer.exchange_finished(EXCHANGE)
            while written.count(b"\n") < LINES_PER_SECOND:
                written += await pipe.receive_some()
            while trio.to_thread.current_default_thread_limiter().borrowed_tokens:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(7):  # the writer, idle now, has to learn that there is something to count
                printer.exchange_finished(EXCHANGE)
            await trio.testing.wait_all_tasks_blocked()
            now = 11.0
            assert await pipe.receive_some() == "… 7 more requests not shown\n".encode()
            nursery.cancel_scope.cancel()
    os.close(writing)


def fill(descriptor: int) -> None:
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(65536))
    os.set_blocking(descriptor, True)


async def test_a_reader_who_stops_costs_neither_the_tunnel_nor_much_memory() -> None:
    reading, writing = os.pipe()
    fill(writing)
    seconds = itertools.count(1)
    printer = RequestPrinter(Output(writing, is_terminal=False), clock=lambda: float(next(seconds)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(printer.run)
        for _ in range(1000):  # each in a second of its own, so that only the full pipe holds them back
            printer.exchange_finished(EXCHANGE)
            await trio.lowlevel.checkpoint()
        assert repr(printer) == f"<RequestPrinter {2 * LINES_PER_SECOND} waiting>"
        nursery.cancel_scope.cancel()
    os.close(reading)  # the abandoned thread gets EPIPE
    os.close(writing)


async def test_the_context_ends_its_writer() -> None:
    with trio.fail_after(5):
        async with open_request_printer(Output(-1, is_terminal=False)) as printer:
            printer.exchange_finished(EXCHANGE)
