"""The keep-alive's arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.yamux import KeepAlive
from otun.yamux.keepalive import KeepAliveAction

NOTHING, SEND_PING, GIVE_UP = KeepAliveAction.NOTHING, KeepAliveAction.SEND_PING, KeepAliveAction.GIVE_UP


def test_after_30_seconds_of_silence_one_ping_is_due() -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    assert keepalive.deadline == 1030.0
    assert keepalive.check(1029.999) is NOTHING
    assert keepalive.check(1030.0) is SEND_PING
    assert keepalive.check(1030.0) is NOTHING
    assert keepalive.deadline == 1040.0


@pytest.mark.conformance(13, 71)
def test_a_dead_peer_is_given_up_after_interval_and_timeout() -> None:
    keepalive = KeepAlive(1000.0, interval=7.0, timeout=3.0)
    assert keepalive.deadline == 1007.0
    assert keepalive.check(1007.0) is SEND_PING
    assert keepalive.deadline == 1010.0
    assert keepalive.check(1009.999) is NOTHING
    assert keepalive.check(1010.0) is GIVE_UP


@pytest.mark.conformance(72)
def test_any_bytes_count_as_life() -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    keepalive.bytes_received(1020.0)
    assert keepalive.deadline == 1050.0
    assert keepalive.check(1030.0) is NOTHING
    assert keepalive.check(1050.0) is SEND_PING


@pytest.mark.conformance(72)
@pytest.mark.parametrize("heard", [1030.0, 1030.001, 1039.999, 1040.0])
def test_bytes_after_the_ping_begin_a_new_silence(heard: float) -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    assert keepalive.check(1030.0) is SEND_PING
    keepalive.bytes_received(heard)
    assert keepalive.check(heard) is NOTHING
    assert keepalive.deadline == heard + 30.0
    assert keepalive.check(1040.0) is NOTHING
    assert keepalive.check(heard + 30.0) is SEND_PING
    assert keepalive.check(heard + 40.0) is GIVE_UP


def test_bytes_at_the_moment_a_ping_is_due_make_it_needless() -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    keepalive.bytes_received(1030.0)
    assert keepalive.check(1030.0) is NOTHING


def test_a_late_check_gives_the_answer_its_whole_time() -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    assert keepalive.check(2000.0) is SEND_PING
    assert keepalive.deadline == 2010.0
    assert keepalive.check(2009.0) is NOTHING


@pytest.mark.conformance(72)
def test_an_answer_may_take_longer_while_the_ping_cannot_leave() -> None:
    keepalive = KeepAlive(1000.0, interval=30.0, timeout=10.0)
    assert keepalive.check(1030.0) is SEND_PING
    keepalive.postpone(1039.0)
    assert keepalive.deadline == 1049.0
    assert keepalive.check(1048.999) is NOTHING
    assert keepalive.check(1049.0) is GIVE_UP


@pytest.mark.conformance(71)
@given(
    silences=st.lists(st.floats(0, 39), max_size=20),
    interval=st.floats(1, 1000),
    timeout=st.floats(1, 1000),
    start=st.floats(0, 1e6),
)
def test_whatever_came_before_the_end_comes_after_interval_and_timeout(
    silences: list[float], interval: float, timeout: float, start: float
) -> None:
    now = start
    keepalive = KeepAlive(now, interval=interval, timeout=timeout)
    for silence in silences:
        heard = now + silence / 40 * (interval + timeout)
        while keepalive.deadline <= heard:
            assert keepalive.check(keepalive.deadline) is SEND_PING
        keepalive.bytes_received(now := heard)
    assert keepalive.deadline == now + interval
    assert keepalive.check(keepalive.deadline) is SEND_PING
    assert keepalive.deadline == now + interval + timeout
    assert keepalive.check(keepalive.deadline) is GIVE_UP
