"""The public URL that a client is told."""

import pytest

from otun import ConfigurationError, ServerSettings
from otun.server.urls import PublicPorts, public_url

from .raw_client import raw_client


def url(*, client: str = "203.0.113.7", reached: str = "198.51.100.1", port: int = 8080, **settings: object) -> str:
    ports = PublicPorts(http=port)
    return public_url(ServerSettings(**settings), "app", client_host=client, reached_host=reached, ports=ports)


@pytest.mark.parametrize("domain", [None, "tunnel.example"])
@pytest.mark.parametrize("client", ["127.0.0.1", "203.0.113.7"])
@pytest.mark.parametrize(
    ("public", "told"),
    [
        ("https://tunnel.example.org", "https://tunnel.example.org"),
        ("http://tunnel.example.org:8443/base", "http://tunnel.example.org:8443/base"),
        ("https://{name}.example.org", "https://app.example.org"),
        ("https://example.org/{name}/", "https://example.org/app"),
    ],
)
def test_the_public_url_goes_before_everything_else(domain: str | None, client: str, public: str, told: str) -> None:
    assert url(public_url=public, domain=domain, client=client) == told


@pytest.mark.parametrize("client", ["127.0.0.1", "203.0.113.7", "::1"])
def test_with_a_domain_it_is_name_dot_domain(client: str) -> None:
    assert url(domain="tunnel.example", client=client) == "http://app.tunnel.example:8080"


def test_port_80_is_left_out() -> None:
    assert url(domain="tunnel.example", port=80) == "http://app.tunnel.example"
    assert url(client="127.0.0.1", port=80) == "http://app.localhost"
    assert url(port=80) == "http://198.51.100.1"
    assert url(reached="2001:db8::1", port=80) == "http://[2001:db8::1]"


def test_port_443_is_not_left_out_of_an_http_url() -> None:
    assert url(domain="tunnel.example", port=443) == "http://app.tunnel.example:443"


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1"])
def test_a_client_from_loopback_is_told_name_dot_localhost(client: str) -> None:
    assert url(client=client, reached=client) == "http://app.localhost:8080"


@pytest.mark.parametrize("client", ["203.0.113.7", "10.0.0.1", "2001:db8::7", "fe80::1%eth0"])
def test_another_client_is_told_the_address_that_it_has_reached(client: str) -> None:
    assert url(client=client) == "http://198.51.100.1:8080"


def test_an_ipv6_address_is_told_in_brackets() -> None:
    assert url(client="2001:db8::7", reached="2001:db8::1") == "http://[2001:db8::1]:8080"


@pytest.mark.parametrize(
    ("public", "told"),
    [
        (None, "http://shop.example.org:8080"),
        ("https://{name}.t.example", "https://shop.example.org"),
        ("https://t.example:8443/{name}", "https://shop.example.org:8443"),
    ],
)
def test_a_host_name_of_its_own_has_the_public_urls_scheme_and_port(public: str | None, told: str) -> None:
    settings = ServerSettings(public_url=public, domain="tunnel.example.org")
    url = public_url(
        settings,
        "app",
        client_host="192.0.2.1",
        reached_host="192.0.2.9",
        ports=PublicPorts(http=8080),
        host="shop.example.org",
    )
    assert url == told


async def test_a_client_is_told_the_url_with_the_port_that_the_system_chose(start_server) -> None:
    server = await start_server(domain="tunnel.example")
    async with raw_client(server.control) as client:
        assert (await client.register("app"))["url"] == f"http://app.tunnel.example:{server.public.port}"


async def test_a_client_is_told_the_public_url_of_the_settings(start_server) -> None:
    server = await start_server(public_url="https://{name}.example.org/")
    async with raw_client(server.control) as client:
        assert (await client.register("app"))["url"] == "https://app.example.org"


@pytest.mark.parametrize(
    "domain", ["", ".", "a b", "-a.example", "a..b", "http://example.org", "example.org:80", "ü.de"]
)
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(ConfigurationError):
        ServerSettings(domain=domain)


@pytest.mark.parametrize("public", ["", "example.org", "ftp://example.org", "http://", "http://a b", "http://a:port"])
def test_what_is_no_public_url_is_refused(public: str) -> None:
    with pytest.raises(ConfigurationError):
        ServerSettings(public_url=public)


@pytest.mark.parametrize(
    "public", ["http://{name}.x.org/{foo}", "http://x.org/{", "http://x.org/{{name}}", "http://{}.x"]
)
def test_another_placeholder_than_the_name_is_refused(public: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has other braces than those of \{name\}"):
        ServerSettings(public_url=public)


def test_tokens_do_not_show_in_the_repr_of_settings() -> None:
    assert "SECRET" not in repr(ServerSettings(tokens=frozenset({"SECRET"})))
