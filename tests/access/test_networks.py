"""Looking an address up in a table of networks."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access.networks import NetworkTable, has_loopback, parse_plain_network
from otun.errors import AddressError

v4 = st.builds(
    lambda bits, length: IPv4Network((bits, length), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
v6 = st.builds(
    lambda bits, length: IPv6Network((bits, length), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)
)
networks = st.lists(v4 | v6, max_size=8)
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))


@given(networks, addresses, st.data())
def test_an_address_is_covered_if_a_network_has_it(
    given: list[IPv4Network | IPv6Network], other: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    table = NetworkTable()
    removed = set(data.draw(st.lists(st.sampled_from(given)))) if given else set()
    for network in given:
        table.put(network)
    for network in removed:
        table.remove(network)
    left = set(given) - removed
    assert len(table) == len(left)
    inside = [network[data.draw(st.integers(0, network.num_addresses - 1))] for network in given]
    for address in (*inside, other):
        seen = getattr(address, "ipv4_mapped", None) or address
        assert table.covers(str(address), 0) == any(seen in network for network in left)


@pytest.mark.parametrize(
    ("network", "address", "is_covered"),
    [
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("192.0.2.0/24", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.0/120", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::/32", "2001:db8:1::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("0.0.0.0/0", "198.51.100.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "198.51.100.1", False),
        ("::/0", "2001:db8::1", True),
        ("0.0.0.0/0", "localhost", False),
        ("::/0", "", False),
    ],
)
def test_which_addresses_are_in_which_networks(network: str, address: str, is_covered: bool) -> None:
    table = NetworkTable()
    table.put(parse_plain_network(network))
    assert table.covers(address, 0) is is_covered


def test_a_network_counts_until_its_time_has_come() -> None:
    table = NetworkTable()
    inner, outer = ip_network("192.0.2.0/24"), ip_network("192.0.0.0/16")
    table.put(inner, 10)
    table.put(outer, 5)
    assert [table.covers("192.0.2.1", now) for now in (4, 5, 9, 10)] == [True, True, True, False]
    assert [table.covers("192.0.3.1", now) for now in (4, 5)] == [True, False]
    table.put(inner, inf)
    assert table.covers("192.0.2.1", 10**12)
    assert len(table) == 2


def test_an_empty_table_does_not_look_at_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    table = NetworkTable()
    table.put(ip_network("192.0.2.0/24"))
    table.remove(ip_network("192.0.2.0/24"))
    table.remove(ip_network("198.51.100.0/24"))
    monkeypatch.setattr("otun.access.networks.read_ip_address", None)
    assert not table.covers("192.0.2.1", 0)


def test_ten_thousand_networks_are_one_look_for_each_length() -> None:
    class Counting(dict[int, float]):
        looks = 0

        def get(self, *arguments: object) -> float | None:
            Counting.looks += 1
            return super().get(*arguments)

    table = NetworkTable()
    for number in range(10_000):
        table.put(IPv4Network((number << 12, 20 + number % 2)))  # From 0.0.0.0 to 2.113.0.0.
    table._untils = {key: Counting(untils) for key, untils in table._untils.items()}
    assert table.covers("2.112.240.1", 0)
    assert not table.covers("200.0.0.1", 0)
    assert Counting.looks <= 4


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("127.0.0.1", True),
        ("127.1.0.0/16", True),
        ("0.0.0.0/0", True),
        ("64.0.0.0/2", True),
        ("128.0.0.0/1", False),
        ("::1", True),
        ("::/0", True),
        ("::/127", True),
        ("::ffff:0:0/96", True),
        ("::ffff:127.0.0.1", True),
        ("2001:db8::/32", False),
    ],
)
def test_which_networks_have_this_machine_in_them(text: str, has: bool) -> None:
    assert has_loopback(parse_plain_network(text)) is has


@pytest.mark.parametrize("text", ["", "x", "10.0.0.1/8", "10.0.0.0/33", "fe80::1%eth0", "1.2.3", "1.2.3.4\n", "😀"])
def test_what_is_no_network_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_plain_network(text)
    assert str(caught.value).isprintable()
