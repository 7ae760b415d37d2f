"""Log-ins that were right a moment ago."""

import pytest

from otun.access import proven
from otun.access.credentials import Credentials
from otun.access.proven import IDLE_LIMIT, ProvenLogins

KEY = bytes(range(32))
ANN = Credentials("ann", "secret")


def test_a_proof_holds_for_as_long_as_it_is_used() -> None:
    logins = ProvenLogins(KEY)
    mark = logins.mark_of(ANN, "hash")
    logins.add(mark, 100.0)
    now = 100.0
    for _ in range(10):
        now += IDLE_LIMIT - 1
        assert logins.find(mark, now) is not None
    assert logins.find(mark, now + IDLE_LIMIT) is None
    assert logins.find(mark, now) is None
    assert len(logins) == 0


def test_a_proof_in_somebodys_hands_runs_out_as_well() -> None:
    proof = ProvenLogins(KEY).add(b"mark", 100.0)
    assert proof.holds(100.0 + IDLE_LIMIT - 1)
    assert not proof.holds(99.0 + 2 * IDLE_LIMIT)


@pytest.mark.parametrize(
    ("credentials", "password_hash"),
    [
        (Credentials("ann", "secres"), "hash"),
        (Credentials("anm", "secret"), "hash"),
        (ANN, "hasi"),
        (Credentials("annh", "secret"), "ash"),
    ],
)
def test_another_user_password_or_hash_is_another_mark(credentials: Credentials, password_hash: str) -> None:
    logins = ProvenLogins(KEY)
    assert logins.mark_of(credentials, password_hash) != logins.mark_of(ANN, "hash")
    assert logins.mark_of(ANN, "hash") == logins.mark_of(Credentials("ann", "secret"), "hash")


def test_marks_of_another_process_are_other_ones() -> None:
    assert ProvenLogins(KEY).mark_of(ANN, "hash") != ProvenLogins(bytes(32)).mark_of(ANN, "hash")


def test_there_are_only_so_many_and_those_who_are_here_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proven, "MAX_PROVEN", 10)
    logins = ProvenLogins(KEY)
    logins.add(b"here", 1.0)
    for number in range(100):
        assert logins.find(b"here", 1.0) is not None
        logins.add(str(number).encode(), 1.0)
        assert len(logins) <= 10
    assert logins.find(b"0", 1.0) is None


def test_nothing_of_a_password_is_kept() -> None:
    logins = ProvenLogins(KEY)
    mark = logins.mark_of(Credentials("ann", "s3cret"), "hash")
    logins.add(mark, 1.0)
    assert b"s3cret" not in mark
    assert "s3cret" not in repr(vars(logins))
