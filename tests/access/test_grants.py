"""What tokens may, as it is written down."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access import EVERYTHING, Grants
from otun.access.grants import MAX_GRANTS, MAX_LENGTH, NamePattern
from otun.errors import ConfigurationError

LABELS = st.from_regex(r"\A[a-z0-9](?:[a-z0-9-]{0,20}[a-z0-9])?\Z")
ANY_CASE = st.from_regex(r"\A[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?\Z")
NAMES = ANY_CASE | ANY_CASE.map(lambda label: f"{label}*") | ANY_CASE.map(lambda label: f"{label}-*") | st.just("*")
PORTS = st.integers(1, 65535)
HOSTNAMES = st.lists(ANY_CASE, min_size=1, max_size=4).map(".".join)
ITEMS = st.one_of(
    st.builds("{}:{}".format, st.sampled_from(["http", "tls", "HTTP", "Tls"]), NAMES),
    PORTS.map("tcp:{}".format),
    st.tuples(PORTS, PORTS).map(lambda pair: f"tcp:{min(pair)}-{max(pair)}"),
    st.just("tcp:*"),
    HOSTNAMES.map("host:{}".format),
    HOSTNAMES.map("host:*.{}".format),
    st.just("host:*"),
)
TEXTS = st.lists(ITEMS, min_size=1, max_size=12).map(",".join)


@given(TEXTS)
def test_the_text_of_grants_means_the_same_grants(text: str) -> None:
    grants = Grants.parse(text)
    assert Grants.parse(str(grants)) == grants
    assert str(Grants.parse(str(grants))) == str(grants)


@given(st.lists(ITEMS, min_size=1, max_size=12), st.randoms(use_true_random=False), st.sampled_from([", ", "\n", ",,"]))
def test_order_case_repetition_and_spacing_mean_nothing(items: list[str], source: object, separator: str) -> None:
    shuffled = [item.upper() if item[-1].isdigit() else item for item in [*items, *items[:2]]]
    source.shuffle(shuffled)
    assert Grants.parse(f" {separator.join(shuffled)}\t") == Grants.parse(",".join(items))


@given(TEXTS, PORTS)
def test_joined_ports_are_the_same_ports(text: str, port: int) -> None:
    each = [Grants.parse(item) for item in text.split(",")]
    assert Grants.parse(text).may_use_port(port) == any(grants.may_use_port(port) for grants in each)


def test_ports_that_touch_or_overlap_are_one_range() -> None:
    assert str(Grants.parse("tcp:9,tcp:5-6,tcp:7-8,tcp:5,tcp:20-30,tcp:25")) == "tcp:5-9,tcp:20-30"
    assert str(Grants.parse("tcp:1-9,tcp:10-65535")) == "tcp:*"
    assert str(Grants.parse("tcp:1-9,tcp:11-20")) == "tcp:1-9,tcp:11-20"


@given(NAMES, LABELS, LABELS)
def test_no_name_pattern_matches_across_a_dot(text: str, one: str, other: str) -> None:
    pattern = NamePattern.parse(text)
    for name in (f"{one}.{other}", f"{pattern.name}.{other}", f"{pattern.name}{one}.{other}", f"{pattern.name}."):
        assert not pattern.matches(name)


@given(HOSTNAMES.map(str.lower), HOSTNAMES.map(str.lower))
def test_a_wildcard_means_whole_labels(base: str, other: str) -> None:
    grants = Grants.parse(f"host:*.{base}")
    assert grants.may_use_hostname(f"{other}.{base}")
    assert grants.may_use_hostname(f"*.{base}")
    assert grants.may_use_hostname(f"*.{other}.{base}")
    assert not grants.may_use_hostname(base)
    assert not grants.may_use_hostname(f"{other}{base}") or f"{other}{base}".endswith(f".{base}")
    assert grants.may_use_hostname(other) == other.endswith(f".{base}")


@pytest.mark.parametrize(
    ("may", "allowed", "refused"),
    [
        ("http:app", ["app"], ["app1", "ap", "", "a.app"]),
        ("http:app-*", ["app-1", "app-a-b"], ["app", "app1", "xapp-1"]),
        ("http:app*", ["app", "app1", "app-1"], ["ap", "xapp"]),
        ("http:*", ["a", "app-1"], ["a.b"]),
        ("http:a,http:b-*", ["a", "b-1"], ["c"]),
        ("tls:app,tcp:*,host:*", [], ["app"]),
    ],
)
def test_names(may: str, allowed: list[str], refused: list[str]) -> None:
    grants = Grants.parse(may)
    assert [name for name in allowed + refused if grants.may_use_name("http", name)] == allowed


def test_one_kind_does_not_imply_the_other() -> None:
    grants = Grants.parse("http:web,tls:vault-*")
    assert grants.may_use_name("http", "web")
    assert not grants.may_use_name("tls", "web")
    assert grants.may_use_name("tls", "vault-1")
    assert not grants.may_use_name("http", "vault-1")


@pytest.mark.parametrize(
    ("may", "allowed", "refused"),
    [
        ("host:shop.example.org", ["shop.example.org"], ["a.shop.example.org", "*.shop.example.org", "example.org"]),
        ("host:*.Bücher.example", ["a.xn--bcher-kva.example"], ["xn--bcher-kva.example", "bücher.example"]),
        ("host:*", ["shop.example.org", "*.example.org"], []),
        ("http:*", [], ["shop.example.org"]),
    ],
)
def test_hostnames(may: str, allowed: list[str], refused: list[str]) -> None:
    grants = Grants.parse(may)
    assert [name for name in allowed + refused if grants.may_use_hostname(name)] == allowed


@given(st.lists(st.tuples(PORTS, st.integers(0, 300)), max_size=5), TEXTS, PORTS)
def test_the_offered_ports_that_are_left_are_those_that_both_have(
    offers: list[tuple[int, int]], text: str, port: int
) -> None:
    grants = Grants.parse(text)
    offered = [range(first, first + size) for first, size in offers]
    left = grants.ports(offered)
    assert all(left)
    assert any(port in ports for ports in left) == (
        any(port in ports for ports in offered) and grants.may_use_port(port)
    )


@pytest.mark.parametrize(
    ("may", "name"),
    [
        ("http:*,http:app", "x7k2"),
        ("http:app-*,http:zoo", "app-x7k2"),
        ("http:app,http:zoo", "app"),
        ("http:x7k2,http:app", "x7k2"),
        ("http:" + "a" * 62 + "*", "a" * 62 + "x"),
        ("tls:app", None),
    ],
)
def test_a_made_up_name_is_made_to_fit(may: str, name: str | None) -> None:
    assert Grants.parse(may).fit_name("http", "x7k2") == name


@given(TEXTS, st.from_regex(r"\A[a-z0-9]{8}\Z"))
def test_a_name_that_fits_is_granted(text: str, made_up: str) -> None:
    grants = Grants.parse(text)
    name = grants.fit_name("http", made_up)
    assert (name is None) == (not grants.http)
    assert name is None or grants.may_use_name("http", name)


@given(LABELS, HOSTNAMES.map(str.lower), PORTS)
def test_everything_is_everything(name: str, hostname: str, port: int) -> None:
    assert EVERYTHING.may_use_name("http", name)
    assert EVERYTHING.may_use_name("tls", name)
    assert EVERYTHING.may_use_hostname(hostname)
    assert EVERYTHING.may_use_port(port)


@pytest.mark.parametrize(
    "text",
    [
        *["", " , ", "app", "http", "http:", "ftp:app", "http:*app", "http:a*b", "http:a**", "http:-*", "http:a.b"],
        *["http:app_*", "http:\u212a", "http:a\0", "\U0001f600", "http:\U0001f600", "http:a\u00a0http:b", "tcp:"],
        *["tcp:0", "tcp:65536", "tcp:9-5", "tcp:-1", "tcp:1e3", "tcp:\u0661", "tcp:a", "tcp:20**", "host:", "host:a b"],
        *["host:*.*.a", "host:**", "host:a..b", "host:*a", "host:https://a.b", "host:a.b/", "tls:", "http:" + "a" * 64],
        *["http:" + "a" * 63 + "*", "tcp:" + "9" * 9000, "\ud800:a", "http:\ud800", "x" * (MAX_LENGTH + 1)],
        ",".join(f"tcp:{2 * port}" for port in range(1, MAX_GRANTS + 2)),
    ],
)
def test_a_mistake_is_one_helpful_line(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Grants.parse(text)
    message = str(caught.value)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250


@given(st.text(max_size=200) | st.lists(ITEMS | st.text(max_size=20), max_size=5).map(",".join))
def test_any_text_is_grants_or_a_mistake(text: str) -> None:
    with suppress(ConfigurationError):
        grants = Grants.parse(text)
        assert Grants.parse(str(grants)) == grants


def test_as_many_and_as_long_grants_as_there_may_be_can_be_written_and_read() -> None:
    labels = ".".join(["a" * 63] * 3)
    grants = Grants.parse(",".join(f"host:*.{labels}.{'b' * 50}{number:02}" for number in range(MAX_GRANTS)))
    assert len(grants.hosts) == MAX_GRANTS
    assert Grants.parse(str(grants)) == grants
