"""How much may be done in a time: never more than that, and never less for somebody who waits as told."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access.rates import SECONDS_A_DAY, Bandwidth, DailyBytes, TokenBucket, until_next_day

RATES = st.floats(0.01, 1e6)
STEPS = st.lists(st.floats(0, 1e4), max_size=60)
START = st.floats(0, 1e9)
SIZES = st.integers(0, 1 << 30)


# Things


def test_so_many_at_once_and_then_one_whenever_its_time_has_come() -> None:
    bucket = TokenBucket(2, burst=3)
    assert [bucket.take(10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(10.25) == 0.25
    assert bucket.take(10.5) == 0
    assert bucket.take(10.5) == 0.5


def test_a_bucket_does_not_overflow() -> None:
    bucket = TokenBucket(2, burst=3)
    bucket.take(0.0)
    assert [bucket.take(1e9) for _ in range(4)] == [0, 0, 0, 0.5]


@given(RATES, st.integers(1, 1000), START, STEPS)
def test_no_more_pass_than_the_burst_and_what_the_time_gives(
    rate: float, burst: int, start: float, steps: list
) -> None:
    bucket = TokenBucket(rate, burst=burst)
    now, passed = start, 0
    for step in steps:
        now += step
        passed += sum(bucket.take(now) == 0 for _ in range(10))
        assert passed <= (burst + (now - start) * rate) * (1 + 1e-6) + 1e-3


@given(RATES, st.integers(1, 5), START, STEPS)
def test_whoever_waits_as_long_as_told_gets_one(rate: float, burst: int, start: float, steps: list) -> None:
    bucket = TokenBucket(rate, burst=burst)
    now = start
    for step in steps:
        now += step
        while not (seconds := bucket.take(now)):
            pass
        assert 0 < seconds <= 1 / rate * (1 + 1e-9)
        # A double near 1e9 cannot tell less than 1e-7 seconds apart.
        assert bucket.take(now + seconds + 1e-6 / rate + math.ulp(now)) == 0
        now += seconds + 1e-6 / rate + math.ulp(now)


@given(RATES, st.integers(1, 5), START, st.lists(st.floats(-1e4, 1e4), max_size=40))
def test_a_clock_that_goes_back_gives_nothing(rate: float, burst: int, start: float, steps: list) -> None:
    bucket = TokenBucket(rate, burst=burst)
    now = latest = start
    passed = int(bucket.take(now) == 0)
    for step in steps:
        now += step
        latest = max(latest, now)
        passed += bucket.take(now) == 0
        assert passed <= (burst + (latest - start) * rate) * (1 + 1e-6) + 1e-3


@pytest.mark.parametrize("rate", [0, -1, math.inf, math.nan])
def test_a_rate_is_a_number_over_0(rate: float) -> None:
    with pytest.raises(ValueError, match="a rate is a number over 0"):
        TokenBucket(rate, burst=1)
    with pytest.raises(ValueError, match="a rate is a number over 0"):
        Bandwidth(rate, burst=1)


@pytest.mark.parametrize("burst", [0, 0.5, -1, math.inf, math.nan])
def test_a_bucket_has_room_for_one(burst: float) -> None:
    with pytest.raises(ValueError, match="a burst is a number from 1 up"):
        TokenBucket(1, burst=burst)


# Bytes a second


def test_a_reader_pauses_until_what_it_has_read_is_paid_for() -> None:
    bandwidth = Bandwidth(100, burst=50)
    assert bandwidth.passed(50, 7.0) == 0
    assert bandwidth.passed(200, 7.0) == 2
    assert bandwidth.pause(8.5) == 0.5
    assert bandwidth.pause(9.0) == 0
    assert bandwidth.passed(50, 9.5) == 0


@given(RATES, st.integers(0, 1 << 20), START, st.lists(st.tuples(st.floats(0, 100), SIZES), max_size=40))
def test_a_reader_that_pauses_gets_its_rate_and_no_more(rate: float, burst: int, start: float, steps: list) -> None:
    bandwidth = Bandwidth(rate, burst=burst)
    now, total = start, 0
    for idle, size in steps:
        now += idle
        total += size
        pause = bandwidth.passed(size, now)
        assert pause >= 0
        now += pause
        assert total <= (burst + (now - start) * rate) * (1 + 1e-6) + 1e-6 + rate * math.ulp(now) * len(steps)
        assert bandwidth.pause(now + math.ulp(now)) <= math.ulp(now) * 2 + 1e-9 * pause


@given(RATES, START, st.lists(st.floats(-1e3, 1e3), max_size=20))
def test_a_pause_is_never_negative_whatever_the_clock_does(rate: float, start: float, steps: list) -> None:
    bandwidth = Bandwidth(rate, burst=10)
    now = start
    for step in steps:
        now += step
        assert bandwidth.passed(7, now) >= 0
        assert bandwidth.pause(now) >= 0


# Bytes a day


def test_each_day_of_utc_has_its_own_bytes() -> None:
    quota = DailyBytes(100)
    day = 20_000 * SECONDS_A_DAY
    assert quota.passed(60, day) == 40
    assert quota.passed(60, day + SECONDS_A_DAY - 1) == 0
    assert quota.left(day + SECONDS_A_DAY - 0.001) == 0
    assert quota.left(day + SECONDS_A_DAY) == 100
    assert until_next_day(day + 1) == SECONDS_A_DAY - 1
    assert until_next_day(day) == SECONDS_A_DAY


@given(st.integers(0, 1 << 40), st.lists(st.tuples(st.floats(-3e5, 3e5), SIZES), max_size=40))
def test_a_day_that_comes_again_gives_nothing(limit: int, steps: list) -> None:
    quota = DailyBytes(limit)
    now = latest = 1e9
    assert quota.left(now) == limit
    used: dict[float, int] = {}
    for step, size in steps:
        now += step
        latest = max(latest, now)
        day = latest // SECONDS_A_DAY
        used[day] = min(used.get(day, 0) + size, limit)
        assert quota.passed(size, now) == limit - used[day] == quota.left(now) >= 0


def test_no_bytes_a_day_are_none() -> None:
    assert DailyBytes(0).left(1e9) == 0
    with pytest.raises(ValueError, match="a limit is a number of bytes"):
        DailyBytes(-1)
