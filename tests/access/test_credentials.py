"""What an Authorization says: everything that is not plainly a user and a password is nothing."""

import base64
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otun.access.credentials import Credentials, find_authorization, read_basic
from otun.http.fields import Field


def basic(text: bytes, scheme: bytes = b"Basic ") -> bytes:
    return scheme + base64.b64encode(text)


@pytest.mark.parametrize("scheme", [b"Basic ", b"basic ", b"BASIC ", b"bAsIc ", b"Basic   "])
def test_the_schemes_name_has_no_case(scheme: bytes) -> None:
    assert read_basic(basic(b"ann:secret", scheme)) == Credentials("ann", "secret")


def test_the_password_begins_behind_the_first_colon() -> None:
    assert read_basic(basic(b"ann:a:b:")) == Credentials("ann", "a:b:")
    assert read_basic(basic(b":")) == Credentials("", "")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Basic",
        b"Basic ",
        b"Basic\tYTpi",
        b"BasicYTpi",
        b"Bearer YTpi",
        b"Digest username=ann",
        b"Basic YTp",
        b"Basic YT pi",
        b"Basic YTpi, Basic YTpi",
        b"Basic YTpi\nx",
        b"Basic Y-_i",
        b"Basic !!!!",
        b"Basic \xff\xfe",
        basic(b"no colon"),
        basic(b"ann:\xff"),
        basic(b"ann:\xc3\x28"),
        basic(b"ann:se\0cret"),
        basic(b"an\rn:secret"),
        basic("ann:\x85".encode()),
        basic(b"ann:" + b"x" * 30_000),
    ],
)
def test_anything_else_is_nothing(value: bytes) -> None:
    assert read_basic(value) is None


def test_decomposed_text_is_composed() -> None:
    text = unicodedata.normalize("NFD", "José:pässwörd")
    assert read_basic(basic(text.encode())) == Credentials("José", "pässwörd")


def test_a_password_of_the_allowed_size_has_room_even_before_it_is_composed() -> None:
    user, password = "é" * 64, "ü" * 256
    text = unicodedata.normalize("NFD", f"{user}:{password}")
    assert read_basic(basic(text.encode())) == Credentials(user, password)


def fields(*pairs: tuple[bytes, bytes]) -> list[Field]:
    return [Field.of(name, value) for name, value in pairs]


def test_there_must_be_just_one() -> None:
    one, other = (b"Authorization", b"Basic YTpi"), (b"AUTHORIZATION", b"Basic YTpi")
    assert find_authorization(fields(one)) == b"Basic YTpi"
    assert find_authorization(fields((b"Accept", b"*"), other)) == b"Basic YTpi"
    assert find_authorization(fields()) is None
    assert find_authorization(fields(one, other)) is None
    assert find_authorization(fields((b"Proxy-Authorization", b"Basic YTpi"), (b"X_Authorization", b"x"))) is None


def test_a_password_is_in_no_repr() -> None:
    assert repr(read_basic(basic(b"ann:s3cret"))) == "<Credentials>"


@given(st.binary(max_size=300) | st.binary(max_size=200).map(basic) | st.text(max_size=100).map(str.encode).map(basic))
@example(basic(b"\xef\xbb\xbfann:x"))
def test_no_bytes_raise_and_what_is_read_is_text_without_controls(value: bytes) -> None:
    read = read_basic(value)
    if read is not None:
        assert ":" not in read.user
        for text in read:
            assert unicodedata.is_normalized("NFC", text)
            assert not any(unicodedata.category(character) == "Cc" for character in text)


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":"), max_size=20),
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=60),
)
def test_what_a_browser_sends_is_what_was_typed(user: str, password: str) -> None:
    composed = Credentials(unicodedata.normalize("NFC", user), unicodedata.normalize("NFC", password))
    assert read_basic(basic(f"{user}:{password}".encode())) == composed
