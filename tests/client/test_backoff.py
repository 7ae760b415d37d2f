"""When a client tries again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.client.backoff import (
    FIRST_DELAY,
    HEALTHY_AFTER,
    LONG_OUTAGE,
    MAX_DELAY,
    MAX_DELAY_IN_LONG_OUTAGE,
    Backoff,
)


def most() -> float:
    return 1.0


def test_the_delays_double_up_to_two_seconds() -> None:
    backoff = Backoff(most)
    assert [backoff.next_delay(0.0) for _ in range(6)] == [FIRST_DELAY, 0.4, 0.8, 1.6, MAX_DELAY, MAX_DELAY]


def test_after_five_minutes_they_go_up_to_thirty() -> None:
    backoff = Backoff(most)
    for _ in range(4):
        backoff.next_delay(0.0)
    assert backoff.next_delay(LONG_OUTAGE - 0.1) == MAX_DELAY
    delays = [backoff.next_delay(LONG_OUTAGE) for _ in range(5)]
    assert delays == sorted(delays)
    assert delays[-1] == MAX_DELAY_IN_LONG_OUTAGE


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0, 1000), min_size=1))
def test_the_jitter_is_full(drawn: float, times: list[float]) -> None:
    jittered, longest = Backoff(lambda: drawn), Backoff(most)
    for now in sorted(times):
        assert jittered.next_delay(now) == pytest.approx(drawn * longest.next_delay(now))


def test_a_minute_of_health_ends_the_outage() -> None:
    backoff = Backoff(most)
    for _ in range(6):
        backoff.next_delay(0.0)
    backoff.connected(10.0)
    assert backoff.next_delay(10.0 + HEALTHY_AFTER) == FIRST_DELAY
    assert backoff.attempts == 1


def test_a_connection_that_is_lost_at_once_belongs_to_the_outage() -> None:
    backoff = Backoff(most)
    for _ in range(6):
        backoff.next_delay(0.0)
        backoff.connected(0.0)
    backoff.connected(HEALTHY_AFTER - 1)
    assert backoff.next_delay(2 * HEALTHY_AFTER - 2) == MAX_DELAY


def test_an_outage_may_last_for_years() -> None:
    backoff = Backoff(most)
    assert max(backoff.next_delay(60.0 * minute) for minute in range(5000)) == MAX_DELAY_IN_LONG_OUTAGE
