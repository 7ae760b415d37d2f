"""Users, passwords and hashes: what may be one, and that no message repeats what it was."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access.passwords import (
    MAX_LOGINS,
    Login,
    check_login,
    check_logins,
    hash_login,
    hash_logins,
)
from otun.errors import ConfigurationError

from .logins import cheap_login

HASH = "$argon2id$v=19$m=19456,t=2,p=1$Dfp+hltw71EGd3jXu/sjsg$d9DAAv8TjsEDC3sHT2xXTvYbhswP4+f5BBem+WutS/o"


def with_costs(memory: int, time: int, parallelism: int) -> str:
    return HASH.replace("m=19456,t=2,p=1", f"m={memory},t={time},p={parallelism}")


def test_a_password_is_hashed_and_known_again() -> None:
    (hashed,) = hash_logins(("ann:correct horse",))
    assert "correct" not in hashed
    assert hashed.startswith("ann:$argon2id$v=19$m=19456,t=2,p=1$")
    login = Login.parse(hashed)
    assert login.user == "ann"
    assert login.is_right("correct horse")
    assert not login.is_right("correct horsf")
    assert not login.is_right("")


def test_the_same_password_has_another_hash_each_time() -> None:
    assert hash_login("ann:x") != hash_login("ann:x")


def test_a_hash_is_taken_as_it_is() -> None:
    assert check_login(f"ann:{HASH}") == hash_login(f"ann:{HASH}") == f"ann:{HASH}"
    assert str(Login.parse(f"ann:{HASH}")) == f"ann:{HASH}"


def test_neither_hash_nor_password_is_in_a_repr() -> None:
    assert repr(Login.parse(f"ann:{HASH}")) == "Login(user='ann')"


def test_text_is_composed_so_that_both_ends_mean_the_same() -> None:
    decomposed = unicodedata.normalize("NFD", "José:pässwörd")
    assert check_login(decomposed) == "José:pässwörd"
    assert check_login(f"{unicodedata.normalize('NFD', 'José')}:{HASH}") == f"José:{HASH}"


def test_a_password_may_have_colons_and_spaces() -> None:
    assert check_login("ann:a: b :") == "ann:a: b :"
    assert Login.parse(cheap_login("ann", "a: b :")).is_right("a: b :")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s3cret", "a log-in is USER:PASSWORD"),
        (":s3cret", "the user's name is empty"),
        ("ann:", "the password is empty"),
        ("ann:s3cret\n", "the password has control characters"),
        ("an\0n:s3cret", "the user's name has control characters"),
        ("ann:s3cret\x85", "the password has control characters"),
        ("ann:s3cret\udc80", "the password is not UTF-8 text"),
        ("a" * 129 + ":s3cret", "the user's name is over 128 bytes"),
        ("ann:" + "s3cret" * 100, "the password is over 512 bytes"),
        ("ann:$2y$05$s3cret", "the password looks like a hash"),
        ("ann:$apr1$s3cret$x", "the password looks like a hash"),
        ("ann:$argon2i$v=19$s3cret", "the password looks like a hash"),
        ("ann:{SHA}s3cret", "the password looks like a hash"),
        ("ann:$argon2id$s3cret", "a whole hash"),
    ],
)
def test_what_cannot_be_a_log_in_is_refused_and_not_repeated(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_login(text)
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("costs", [(8, 1, 1), (19456, 2, 1), (65536, 3, 4), (65536, 4, 4), (32, 1, 4)])
def test_costs_within_bounds_are_taken(costs: tuple[int, int, int]) -> None:
    Login.parse(f"ann:{with_costs(*costs)}")


@pytest.mark.parametrize(
    "costs", [(65537, 1, 1), (1 << 30, 1, 1), (19456, 5, 1), (19456, 10**9, 1), (19456, 1, 5), (7, 1, 1), (31, 1, 4)]
)
def test_costs_that_would_make_the_server_burn_are_refused(costs: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigurationError, match="a password's hash takes at most"):
        Login.parse(f"ann:{with_costs(*costs)}")


@pytest.mark.parametrize(
    "text",
    [
        HASH,
        f"ann{HASH}",
        f"ann:{HASH} ",
        f"ann:{HASH}\n",
        f"ann: {HASH}",
        f"ann:{HASH.replace('argon2id', 'argon2i')}",
        f"ann:{HASH.replace('v=19', 'v=16')}",
        f"ann:{HASH.replace('m=19456', 'm=019456')}",
        f"ann:{HASH.replace('m=19456', 'm=-1')}",
        f"ann:{HASH.replace('m=19456', 'm=99999999999')}",
        f"ann:{HASH.replace('Dfp+hltw71EGd3jXu/sjsg', 'short')}",
        f"ann:{HASH.replace('Dfp+hltw71EGd3jXu/sjsg', 'x' * 87)}",
        f"ann:{HASH.replace('Dfp+hltw71EGd3jXu/sjsg', 'x' * 13)}",
        f"ann:{HASH}aa",
        f"ann:{HASH[:-30]}",
        f"ann:{HASH}=",
        "ann:secret",
        f":{HASH}",
        f"e\N{COMBINING ACUTE ACCENT}:{HASH}",
    ],
)
def test_other_hashes_are_refused_by_the_server(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Login.parse(text)


@given(st.text(max_size=200))
def test_any_text_is_a_log_in_or_one_clear_error(text: str) -> None:
    complaint = None
    try:
        checked = check_login(f"{text}s3cret☃")
    except ConfigurationError as error:
        complaint = str(error)
    if complaint is not None:
        assert complaint.isprintable()
        assert "s3cret☃" not in complaint
    else:
        user, colon, password = checked.partition(":")
        assert user
        assert colon
        assert password
        assert check_login(checked) == checked


@given(st.text(max_size=120) | st.text("$argon2id=,mtpv19 :aA+/", max_size=120))
def test_whatever_a_client_sends_the_server_takes_or_refuses_it(text: str) -> None:
    try:
        login = Login.parse(text)
    except ConfigurationError:
        return
    assert str(login) == text


def test_a_user_has_one_password_and_there_are_only_so_many() -> None:
    with pytest.raises(ConfigurationError, match="a user has two passwords"):
        check_logins(("ann:a", "bob:b", "ann:c"))
    with pytest.raises(ConfigurationError, match="a user has two passwords"):
        check_logins(("é:a", "e\N{COMBINING ACUTE ACCENT}:b"))
    with pytest.raises(ConfigurationError, match=f"at most {MAX_LOGINS} users"):
        check_logins(tuple(f"user{number}:x" for number in range(MAX_LOGINS + 1)))


@pytest.mark.parametrize("costs", [(8, 1, 1), (65536, 4, 4)])
def test_argon2_itself_takes_what_is_let_through(costs: tuple[int, int, int]) -> None:
    assert not Login.parse(f"ann:{with_costs(*costs)}").is_right("x")
    longest = f"$argon2id$v=19$m=8,t=1,p=1${'A' * 86}${'A' * 86}"
    assert not Login.parse(f"ann:{longest}").is_right("x")
    shortest = f"$argon2id$v=19$m=8,t=1,p=1${'A' * 11}${'A' * 22}"
    assert not Login.parse(f"ann:{shortest}").is_right("x")
