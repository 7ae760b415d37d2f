"""How much a token's visitors may do, as it is written down."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.access import NO_LIMITS, UNLIMITED, Limits, Quota
from otun.access.limits import MAX_BANDWIDTH, MAX_COUNT, MAX_DAILY, MAX_LENGTH, MIN_BYTES, show_size
from otun.errors import ConfigurationError

QUOTAS = st.builds(
    Quota,
    requests=st.none() | st.integers(1, MAX_COUNT),
    bandwidth=st.none() | st.integers(MIN_BYTES, MAX_BANDWIDTH),
    visitors=st.none() | st.integers(1, MAX_COUNT),
    daily=st.none() | st.integers(MIN_BYTES, MAX_DAILY),
)
LIMITS = st.builds(Limits, QUOTAS, QUOTAS).filter(lambda limits: limits != NO_LIMITS)


@given(LIMITS)
def test_the_text_of_limits_means_the_same_limits(limits: Limits) -> None:
    assert Limits.parse(str(limits)) == limits
    assert len(str(limits)) <= MAX_LENGTH


@given(LIMITS, st.randoms(use_true_random=False), st.sampled_from([", ", "\n", ",,"]))
def test_order_case_and_spacing_mean_nothing(limits: Limits, source: object, separator: str) -> None:
    items = [item.upper() for item in str(limits).split(",")]
    source.shuffle(items)
    assert Limits.parse(f" {separator.join(items)}\t") == limits


def test_each_limit_is_for_the_whole_or_for_each_tunnel() -> None:
    text = "tunnel.visitors=50,daily=5GB,bandwidth=10MB,tunnel.requests=20,requests=100"
    limits = Limits.parse(text)
    assert limits.whole == Quota(requests=100, bandwidth=10_000_000, daily=5_000_000_000)
    assert limits.tunnel == Quota(requests=20, visitors=50)
    assert str(limits) == "requests=100,bandwidth=10MB,daily=5GB,tunnel.requests=20,tunnel.visitors=50"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("1kB", 1000),
        ("1KB", 1000),
        ("5m", 5_000_000),
        ("1500B", 1500),
        ("2gb", 2 * 10**9),
        ("1T", 10**12),
    ],
)
def test_sizes_have_decimal_units(text: str, size: int) -> None:
    assert Limits.parse(f"daily={text}").whole.daily == size


@given(st.integers(0, MAX_DAILY))
def test_a_size_is_shown_exactly(size: int) -> None:
    units = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    text = show_size(size)
    assert (int(text) if text.isdigit() else int(text[:-2]) * units[text[-2:]]) == size


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "which limits? write requests=100, bandwidth=10MB"),
        (" ,\n", "which limits?"),
        ("requests", "'requests' is no limit: write requests=100"),
        ("speed=1", "'speed=1' is no limit"),
        ("tunnel=1", "'tunnel=1' is no limit"),
        ("tunnel.tunnel.requests=1", "'tunnel.tunnel.requests=1' is no limit"),
        ("requests=", "requests: '' is no number from 1 to 1000000"),
        ("requests=0", "requests: '0' is no number"),
        ("requests=-1", "requests: '-1' is no number"),
        ("requests=1.5", "requests: '1.5' is no number"),
        ("requests=\N{DEVANAGARI DIGIT ONE}", r"requests: '\u0967' is no number"),
        ("visitors=1000001", "visitors: '1000001' is no number"),
        ("visitors=" + "9" * 500, "visitors: '9999"),
        ("bandwidth=fast", "bandwidth: 'fast' is no number of bytes: write it as 500kB, 10MB or 5GB"),
        ("bandwidth=10MiB", "bandwidth: '10MiB' is no number of bytes"),
        ("bandwidth=10\N{KELVIN SIGN}B", r"bandwidth: '10\u212aB' is no number of bytes"),
        ("bandwidth=999", "bandwidth: '999' is not between 1kB and 1TB"),
        ("bandwidth=2TB", "bandwidth: '2TB' is not between 1kB and 1TB"),
        ("tunnel.daily=1001TB", "tunnel.daily: '1001TB' is not between 1kB and 1000TB"),
        ("daily=\x1b[31m", r"daily: '\x1b[31m' is no number of bytes"),
        ("daily=1kB,Daily=2kB", "daily has two limits: write one"),
        ("requests=1," * 1000, "that is too long for limits: 11000 characters of 1000"),
    ],
)
def test_nonsense_is_told_apart(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Limits.parse(text)
    assert str(caught.value).startswith(complaint)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 300


@given(st.text(max_size=60))
def test_any_text_is_limits_or_a_mistake(text: str) -> None:
    with suppress(ConfigurationError):
        assert Limits.parse(text) != NO_LIMITS


@given(QUOTAS, QUOTAS)
def test_the_stricter_limit_counts(one: Quota, other: Quota) -> None:
    both = one.stricter(other)
    assert both == other.stricter(one)
    for name in ("requests", "bandwidth", "visitors", "daily"):
        given_ones = [limit for limit in (getattr(one, name), getattr(other, name)) if limit is not None]
        assert getattr(both, name) == (min(given_ones) if given_ones else None)
    assert one.stricter(UNLIMITED) == one
