import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.control.names import covers, normalize_name, random_name, wildcards_over
from otun.errors import InvalidName, OtunError

LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app", "app"),
        ("My-App-2", "my-app-2"),
        ("7", "7"),
        ("a--b", "a--b"),
        ("xn--bcher-kva", "xn--bcher-kva"),
        ("A" * 63, "a" * 63),
    ],
)
def test_a_dns_label_is_a_name_in_lower_case(text: str, name: str) -> None:
    assert normalize_name(text) == name
    assert normalize_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        *["", "-", "-app", "app-", "a" * 64, "a.b", "a_b", "a b", " app", "app\n", "\napp", "app\0", "*", "a/b"],
        *["\u212aelvin", "b\u00fccher", "\uff11", "app\uff11", "\u0661", "\u0130", "a\u200db", "\ud800"],
    ],
)
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName, match="is no name for a tunnel") as caught:
        normalize_name(text)
    assert isinstance(caught.value, OtunError)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_a_long_text_is_shortened_in_the_error() -> None:
    with pytest.raises(InvalidName) as caught:
        normalize_name("\0" * 10_000)
    assert len(str(caught.value)) < 180


@given(st.text() | st.from_regex(r"\A[A-Za-z0-9-]{1,64}\n?\Z"))
def test_a_name_is_always_a_lower_case_label(text: str) -> None:
    is_label = LABEL.fullmatch(text.lower()) is not None and text.isascii()
    try:
        name = normalize_name(text)
    except InvalidName:
        assert not is_label
    else:
        assert is_label
        assert name == text.lower()


def test_a_random_name_has_8_characters_chosen_one_by_one() -> None:
    offered: list[str] = []

    def choose(characters: str) -> str:
        offered.append(characters)
        return characters[-len(offered)]

    assert random_name(choose) == "98765432"
    assert offered == ["abcdefghijklmnopqrstuvwxyz0123456789"] * 8


@given(st.randoms(use_true_random=False))
def test_a_random_name_is_a_valid_name(source: random.Random) -> None:
    name = random_name(source.choice)
    assert len(name) == 8
    assert normalize_name(name) == name


@pytest.mark.parametrize(
    ("hostname", "wildcards"),
    [
        ("a.b.example.org", ["*.b.example.org", "*.example.org", "*.org"]),
        ("*.b.example.org", ["*.example.org", "*.org"]),
        ("org", []),
        ("*.org", []),
    ],
)
def test_wildcards_over_a_host_name_cover_it(hostname: str, wildcards: list[str]) -> None:
    assert list(wildcards_over(hostname)) == wildcards
    assert all(covers(wildcard, hostname) for wildcard in wildcards)
