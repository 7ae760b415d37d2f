"""What tokens look like, and whom they stand for."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access import ANONYMOUS, EVERYTHING, Identity, hash_token, is_same_hash, token_of
from otun.access.identity import normalize_token_name
from otun.cli.tokens import check_token
from otun.errors import InvalidName

SECRETS = st.binary(min_size=32, max_size=32)


@given(SECRETS, SECRETS)
def test_each_secret_is_another_token_that_can_be_given_to_a_client(one: bytes, other: bytes) -> None:
    token = token_of(one)
    assert re.fullmatch(r"otun_[A-Za-z0-9_-]{43}", token)
    assert check_token(token) == token
    assert (token_of(other) == token) == (one == other)
    assert is_same_hash(hash_token(token_of(other)), hash_token(token)) == (one == other)


def test_the_hash_is_sha256_of_the_whole_text() -> None:
    assert hash_token("otun_a") == hashlib.sha256(b"otun_a").digest()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_token_is_never_made_of_less_or_more(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        token_of(bytes(size))


@given(st.text(st.characters()))
def test_any_text_has_a_hash(text: str) -> None:
    assert len(hash_token(text)) == 32


def test_lone_surrogates_have_a_hash() -> None:
    assert hash_token("\ud800") != hash_token("\udfff")


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *pair: bool(compared.append(pair)))
    assert not is_same_hash(b"a", b"a")
    assert compared == [(b"a", b"a")]


@pytest.mark.parametrize(("text", "name"), [("ci", "ci"), ("Ann@Home", "ann@home"), ("7", "7"), ("a" * 64, "a" * 64)])
def test_names_are_compared_in_lower_case(text: str, name: str) -> None:
    assert normalize_token_name(text) == name


@pytest.mark.parametrize(
    "text", ["", "-ci", ".", "a b", "a\n", "a/b", "(key 1)", "a" * 65, "\u212a", "\U0001f600", "\x1b[0m", "a,b", "\0"]
)
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName, match="is no name for a token") as caught:
        normalize_token_name(text)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


def test_no_token_has_the_name_of_everybody() -> None:
    assert ANONYMOUS.grants == EVERYTHING
    with pytest.raises(InvalidName):
        normalize_token_name(ANONYMOUS.name)


def test_an_identity_expires_at_its_time_and_not_before() -> None:
    identity = Identity(name="ci", expires=100.0)
    assert not identity.has_expired(99.9)
    assert identity.has_expired(100.0)
    assert not Identity(name="ci").has_expired(1e12)


def test_a_credential_is_not_shown() -> None:
    assert "SECRET" not in repr(Identity(name="ci", credential=b"SECRET"))
