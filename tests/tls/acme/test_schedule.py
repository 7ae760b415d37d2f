"""When to renew, and when to try again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.tls.acme.schedule import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    MAX_FAILED_VALIDATIONS,
    PAUSE_JITTER,
    Attempts,
    earliest_renewal,
    pause,
    renewal_time,
)

HOUR = 3600.0
DAY = 24 * HOUR

jitters = st.floats(0, 1)


def test_certificate_is_renewed_after_two_thirds_of_its_lifetime() -> None:
    assert renewal_time(1000, 1000 + 90 * DAY, 0.0) == 1000 + 60 * DAY


@given(st.floats(0, 1e10), st.floats(1, 1e9), jitters)
def test_jitter_leaves_a_quarter_of_the_lifetime(start: float, lifetime: float, jitter: float) -> None:
    renewal = renewal_time(start, start + lifetime, jitter)
    assert renewal_time(start, start + lifetime, 0) <= renewal <= start + 0.75 * lifetime


def test_new_certificate_that_looks_old_is_not_renewed_at_once() -> None:
    assert earliest_renewal(1e9, 0, 90 * DAY) == 1e9 + 30 * DAY


@pytest.mark.parametrize(
    ("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (6, 32), (9, 256), (10, 360), (11, 360), (10**9, 360)]
)
def test_pauses_double_up_to_six_hours(failures: int, minutes: int) -> None:
    assert pause(failures, 0.0) == 60 * minutes


@given(st.integers(1, 10**6), jitters)
def test_jitter_makes_a_pause_a_little_longer(failures: int, jitter: float) -> None:
    assert pause(failures, 0) <= pause(failures, jitter) <= pause(failures, 0) * (1 + PAUSE_JITTER)
    assert FIRST_PAUSE <= pause(failures, jitter) <= LONGEST_PAUSE * (1 + PAUSE_JITTER)


def test_authority_that_asks_for_more_patience_gets_it() -> None:
    assert Attempts().failed(0, 0, retry_after=7200).not_before == 7200
    assert Attempts().failed(0, 0, retry_after=1).not_before == FIRST_PAUSE


def test_authority_cannot_ask_for_patience_without_end() -> None:
    assert Attempts().failed(0, 0, retry_after=1e300).not_before == LONGEST_RETRY_AFTER


def test_interrupted_attempt_does_not_make_pauses_longer() -> None:
    attempts = Attempts().failed(0, 0).postponed(100)
    assert attempts.not_before == 100 + FIRST_PAUSE
    assert attempts.failed(200, 0).not_before == 200 + 2 * FIRST_PAUSE


def test_sixth_validation_waits_until_the_first_is_an_hour_ago() -> None:
    attempts, times = Attempts(), [0.0]
    while len(times) < 7:
        attempts = attempts.failed(times[-1], 0, is_rejection=True)
        times.append(attempts.not_before)
    assert [time / 60 for time in times] == [0, 1, 3, 7, 15, 60, 92]


delays = st.sampled_from([0.0, 0.0, 0.0, 1.0, 600.0]) | st.floats(0, HOUR)


@given(st.lists(st.tuples(st.sampled_from([True, True, True, False]), delays, jitters), min_size=6, max_size=30))
def test_five_validations_at_most_fail_in_an_hour(history: list[tuple[bool, float, float]]) -> None:
    """Whatever fails, and whenever the next attempt is made at the earliest."""
    attempts, now, rejections = Attempts(), 1e9, []
    for is_rejection, delay, jitter in history:
        attempts = attempts.failed(now, jitter, is_rejection=is_rejection)
        if is_rejection:
            rejections.append(now)
        now = attempts.not_before + delay
    for number, time in enumerate(rejections[MAX_FAILED_VALIDATIONS:]):
        assert time - rejections[number] >= HOUR
    assert len(attempts.recent_rejections) <= MAX_FAILED_VALIDATIONS
