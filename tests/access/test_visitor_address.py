"""Which address counts: a stranger's word never does."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access.visitor_address import visitor_address
from otun.http.fields import Field
from otun.http.forwarding import is_in_networks

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def trusts(address: str) -> bool:
    return is_in_networks(address, PROXIES)


def address_for(peer: str, *values: str, name: str = "X-Forwarded-For") -> str | None:
    fields = [Field.of(name.encode(), value.encode()) for value in values]
    return visitor_address(peer, [Field.of(b"Accept", b"*"), *fields], trusts)


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["192.0.2.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [" , ,"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6,192.0.2.1 ,\t10.0.0.2, ,10.0.0.3"], "192.0.2.1"),
        ("10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        ("10.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8::0001"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["unknown"], None),
        ("10.0.0.1", ["192.0.2.1, unknown"], None),
        ("10.0.0.1", ["192.0.2.1, _hidden, 10.0.0.2"], None),
        ("10.0.0.1", ["unknown, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ['"192.0.2.1"'], None),
        ("10.0.0.1", ["192.0.2.256"], None),
        ("10.0.0.1", ["192.0.2.1:"], None),
        ("10.0.0.1", ["\N{FULLWIDTH DIGIT ONE}.2.3.4"], None),
    ],
)
def test_the_last_address_that_is_no_proxy_of_ours_counts(peer: str, values: list[str], expected: str | None) -> None:
    assert address_for(peer, *values) == expected


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "X_Forwarded_For", "X-Client-IP", "True-Client-IP"])
def test_other_fields_do_not_count(name: str) -> None:
    assert address_for("10.0.0.1", "192.0.2.1", name=name) == "10.0.0.1"


ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["10.1.2.3", "fd00::1", "192.0.2.1"])


@given(ADDRESSES, st.lists(st.text(max_size=40).filter(lambda text: "," not in text) | ADDRESSES, max_size=6))
def test_what_an_untrusted_peer_says_never_counts(peer: str, entries: list[str]) -> None:
    if not trusts(peer):
        assert address_for(peer, ", ".join(entries)) == peer


@given(st.lists(st.text(max_size=20) | ADDRESSES, max_size=6), st.ip_addresses().filter(lambda a: not trusts(str(a))))
def test_whatever_stands_further_left_what_our_proxy_has_written_counts(before: list[str], visitor) -> None:
    found = address_for("10.0.0.1", ", ".join([*before, str(visitor)]))
    assert found == str(getattr(visitor, "ipv4_mapped", None) or visitor)


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    found = address_for("10.0.0.1", text)
    assert found is None or ip_address(found)
