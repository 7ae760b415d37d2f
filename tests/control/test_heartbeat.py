from otun.control.heartbeat import (
    HEARTBEAT_INTERVAL,
    REGISTRATION_LIMIT,
    SILENCE_LIMIT,
    registration_deadline,
    silence_deadline,
)


def test_a_silent_peer_is_given_up_after_90_seconds() -> None:
    assert silence_deadline(1_000.0) == 1_090.0
    assert silence_deadline(1_000.0, limit=1.0) == 1_001.0


def test_a_connection_that_does_not_register_is_given_up_after_10_seconds() -> None:
    assert registration_deadline(1_000.0) == 1_010.0
    assert registration_deadline(1_000.0, limit=1.0) == 1_001.0


def test_two_heartbeats_may_be_lost_before_the_peer_is_given_up() -> None:
    assert SILENCE_LIMIT >= 3 * HEARTBEAT_INTERVAL
    assert REGISTRATION_LIMIT < HEARTBEAT_INTERVAL
