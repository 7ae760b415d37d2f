"""What a tunnel demands of visitors: how it is written, and whom it lets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access.rules import MAX_NETWORKS, MAX_REQUIRED, RequiredHeader, VisitorRules, check_networks, check_required
from otun.errors import AddressError, ConfigurationError
from otun.http.fields import Field

from .logins import cheap_login


def rules(**asked: tuple[str, ...]) -> VisitorRules:
    parsed = VisitorRules.parse(**asked)
    assert parsed is not None
    return parsed


# Addresses


@pytest.mark.parametrize(
    ("allowed", "denied", "address", "is_admitted"),
    [
        ("", "", "192.0.2.1", True),
        ("192.0.2.0/24", "", "192.0.2.1", True),
        ("192.0.2.0/24", "", "192.0.3.1", False),
        ("", "192.0.2.0/24", "192.0.2.1", False),
        ("", "192.0.2.0/24", "192.0.3.1", True),
        ("192.0.2.0/24", "192.0.2.7", "192.0.2.7", False),
        ("192.0.2.7", "192.0.2.0/24", "192.0.2.7", False),
        ("192.0.2.1 2001:db8::/32", "", "2001:db8::5", True),
        ("192.0.2.0/24", "", "2001:db8::5", False),
        ("192.0.2.0/24", "", "::ffff:192.0.2.1", True),
        ("", "192.0.2.1", "::ffff:192.0.2.1", False),
        ("", "::ffff:192.0.2.1", "192.0.2.1", False),
        ("", "::ffff:192.0.2.1", "::ffff:192.0.2.1", False),
        ("::ffff:192.0.2.0/120", "", "192.0.2.1", True),
        ("fe80::/10", "", "fe80::1%eth0", True),
        ("0.0.0.0/0", "", "2001:db8::5", False),
        ("::/0", "", "192.0.2.1", False),
        ("192.0.2.0/24", "", "nonsense", False),
        ("", "192.0.2.0/24", "nonsense", False),
        ("", "192.0.2.0/24", None, False),
    ],
)
def test_denied_is_denied_and_else_allowed_is_allowed(
    allowed: str, denied: str, address: str | None, is_admitted: bool
) -> None:
    lists = tuple(allowed.split()), tuple(denied.split())
    for allow_ip, deny_ip in (lists, map(check_networks, lists)):  # As written, and as a client of ours sends it.
        asked = VisitorRules.parse(allow_ip=allow_ip, deny_ip=deny_ip)
        for _ in range(2):  # What was decided is remembered.
            assert (asked is None or asked.admits(address)) == is_admitted


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    asked = rules(deny_ip=("192.0.2.0/24",))
    for number in range(5000):
        assert asked.admits(f"198.51.{number >> 8}.{number & 255}")
    assert len(asked._decided) <= 1024
    assert not asked.admits("192.0.2.1")


@pytest.mark.parametrize("text", ["", "app", "192.0.2.1/24", "192.0.2.0/33", "1.2.3", "192.0.2.1:80", "x" * 5000])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        check_networks((text,))
    with pytest.raises(AddressError):
        VisitorRules.parse(allow_ip=(text,))


# Headers


def fields(*pairs: tuple[str, str]) -> list[Field]:
    return [Field.of(name.encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize(
    ("required", "given", "is_in"),
    [
        ("X-Key", [("X-Key", "")], True),
        ("X-Key", [("x-KEY", "anything")], True),
        ("X-Key", [("X-Key", "a"), ("X-Key", "b")], True),
        ("X-Key", [("X_Key", "a")], False),
        ("X-Key", [], False),
        ("X-Key: abc", [("x-key", "abc")], True),
        ("X-Key:abc", [("x-key", "abc")], True),
        ("X-Key: abc", [("x-key", "Abc")], False),
        ("X-Key: abc", [("x-key", "abcd")], False),
        ("X-Key: abc", [("x-key", "abc"), ("x-key", "abc")], False),
        ("X-Key: abc", [("x-key", "x"), ("x-key", "abc")], False),
        ("X-Key: abc", [], False),
    ],
)
def test_a_header_is_there_or_has_its_value(required: str, given: list[tuple[str, str]], is_in: bool) -> None:
    assert RequiredHeader.parse(required).is_in(fields(*given)) == is_in


@pytest.mark.parametrize(
    "text", ["", ":", ": x", "X Key", "X-Key:", "X-Key: ", "X-Key: s3cret\r\nX: y", "X-Key: s3crét", "x" * 600, "é"]
)
def test_what_is_no_header_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_required((text,))
    assert "s3cr" not in str(caught.value)
    assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize("name", ["Host", "connection", "X-Forwarded-For", "Content-Length", "Upgrade", "Forwarded"])
def test_what_the_server_changes_itself_cannot_be_required(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the server changes itself"):
        check_required((f"{name}: x",))


def test_a_secret_is_in_no_repr() -> None:
    assert "s3cret" not in repr(RequiredHeader.parse("X-Key: s3cret"))


# All together


def test_nothing_asked_is_no_rules() -> None:
    assert VisitorRules.parse() is None


def test_what_is_in_force_is_named() -> None:
    login = cheap_login("ann", "x")
    assert rules(basic_auth=(login,)).names == ("basic_auth",)
    assert rules(allow_ip=("::/0",), require_header=("X",)).names == ("allow_ip", "require_header")
    everything = rules(basic_auth=(login,), allow_ip=("::/0",), deny_ip=("::1",), require_header=("X",))
    assert everything.names == ("basic_auth", "allow_ip", "deny_ip", "require_header")


def test_what_is_for_the_edge_alone_is_not_passed_on() -> None:
    login = cheap_login("ann", "x")
    assert rules(basic_auth=(login,), require_header=("A: secret", "B")).secret_fields == {b"authorization", b"a"}
    assert rules(require_header=("Authorization",)).secret_fields == frozenset()
    assert rules(require_header=("Authorization: Bearer x",)).secret_fields == {b"authorization"}
    assert rules(allow_ip=("::/0",)).secret_fields == frozenset()


def test_a_log_in_and_a_required_authorization_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="'Authorization' is where visitors log in"):
        VisitorRules.parse(basic_auth=(cheap_login("ann", "x"),), require_header=("Authorization",))


@pytest.mark.parametrize(
    "asked",
    [
        {"allow_ip": tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(MAX_NETWORKS + 1))},
        {"deny_ip": ("::1",) * (MAX_NETWORKS + 1)},
        {"require_header": ("X",) * (MAX_REQUIRED + 1)},
        {"basic_auth": (cheap_login("ann", "x"),) * 2},
        {"basic_auth": tuple(cheap_login(str(n), "x") for n in range(33))},
        {"basic_auth": ("ann:plain",)},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_there_are_bounds(asked: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ConfigurationError):
        VisitorRules.parse(**asked)


def test_users_are_told_apart() -> None:
    asked = rules(basic_auth=(cheap_login("ann", "x"), cheap_login("é", "y")))
    assert asked.login_of("ann") is asked.logins[0]
    assert asked.login_of("é") is asked.logins[1]
    for user in ("Ann", "an", "ann ", "", "e"):
        assert asked.login_of(user) is None


@given(st.lists(st.ip_addresses(), max_size=4), st.lists(st.ip_addresses(), max_size=4), st.ip_addresses(), st.data())
def test_addresses_are_compared_as_the_standard_library_does(allowed: list, denied: list, visitor, data) -> None:
    visitor = data.draw(st.sampled_from([visitor, *allowed, *denied]))
    asked = VisitorRules.parse(allow_ip=tuple(map(str, allowed)), deny_ip=tuple(map(str, denied)))

    def bare(address):
        return getattr(address, "ipv4_mapped", None) or address

    expected = bare(visitor) not in map(bare, denied) and (not allowed or bare(visitor) in map(bare, allowed))
    assert (asked is None or asked.admits(str(visitor))) == expected
