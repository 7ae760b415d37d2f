"""How a proxy is written, and which one the environment asks for."""

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun import AddressError, ProxyAddress, TcpAddress, proxy_from_environment
from otun.client.proxies import parse_proxy

PROXY = TcpAddress("proxy.example", 3128)
SERVER = TcpAddress("tunnel.example.org", 4443)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.example:3128", ProxyAddress("http", PROXY)),
        ("http://proxy.example:3128/", ProxyAddress("http", PROXY)),
        ("HTTP://proxy.example:3128", ProxyAddress("http", PROXY)),
        ("proxy.example:3128", ProxyAddress("http", PROXY)),
        ("proxy.example", ProxyAddress("http", TcpAddress("proxy.example", 1080))),
        ("http://proxy.example", ProxyAddress("http", TcpAddress("proxy.example", 1080))),
        ("socks5://proxy.example", ProxyAddress("socks5", TcpAddress("proxy.example", 1080))),
        ("socks5h://proxy.example:3128", ProxyAddress("socks5h", PROXY)),
        ("http://[2001:db8::1]:3128", ProxyAddress("http", TcpAddress("2001:db8::1", 3128))),
        ("http://[2001:db8::1]", ProxyAddress("http", TcpAddress("2001:db8::1", 1080))),
        ("http://user:word@proxy.example:3128", ProxyAddress("http", PROXY, "user", "word")),
        ("user:word@proxy.example:3128", ProxyAddress("http", PROXY, "user", "word")),
        ("http://user@proxy.example:3128", ProxyAddress("http", PROXY, "user", "")),
        ("http://:word@proxy.example:3128", ProxyAddress("http", PROXY, "", "word")),
        ("http://@proxy.example:3128", ProxyAddress("http", PROXY)),
        ("http://user:a:b@proxy.example:3128", ProxyAddress("http", PROXY, "user", "a:b")),
        ("http://user:a@b@proxy.example:3128", ProxyAddress("http", PROXY, "user", "a@b")),
        ("http://us%20er:%40%2f%3A%c3%bc@proxy.example:3128", ProxyAddress("http", PROXY, "us er", "@/:ü")),
        ("http://user:%c2%a0@proxy.example:3128", ProxyAddress("http", PROXY, "user", "\xa0")),
        ("http://user:ü%zz@proxy.example:3128", ProxyAddress("http", PROXY, "user", "ü%zz")),
        ("socks5://us%3Aer:word@proxy.example:3128", ProxyAddress("socks5", PROXY, "us:er", "word")),
    ],
)
def test_a_proxy_is_written_as_for_curl(text: str, expected: ProxyAddress) -> None:
    assert parse_proxy(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid host and port"),
        ("http://", "no valid host and port"),
        ("http://user:secret@", "no valid host and port"),
        ("http://:3128", "no valid host and port"),
        ("http://user:secret", "no valid host and port"),
        ("user:secret", "no valid host and port"),
        ("http://proxy.example:0", "no valid host and port"),
        ("http://proxy.example:65536", "no valid host and port"),
        ("http://user:secret@proxy.example:x", "no valid host and port"),
        ("http://user:secret@2001:db8::1:3128", "no valid host and port"),
        ("http://user:secret@a b:1", "no valid host and port"),
        ("http://user:secret@a\r\nb:1", "no valid host and port"),
        ("http://user:secret@proxy.example/path", "this is no proxy"),
        ("http://user:secret@proxy.example?x", "this is no proxy"),
        ("http://user:sec/ret@proxy.example", "this is no proxy"),
        ("https://user:secret@proxy.example", "TLS to the proxy itself is not supported"),
        ("socks4://user:secret@proxy.example", "this kind of proxy is not supported"),
        ("socks://user:secret@proxy.example", "this kind of proxy is not supported"),
        ("secret://user@proxy.example", "this kind of proxy is not supported"),
        ("http://us%3Aer:secret@proxy.example", "cannot have a colon"),
        ("http://user:secret%0d%0a@proxy.example", "control characters"),
        ("http://user:secret%00@proxy.example", "control characters"),
        ("http://user:secret%c2%9b@proxy.example", "control characters"),
        ("http://user:secret%ff@proxy.example", "not UTF-8"),
        ("http://user:secret\udcff@proxy.example", "not UTF-8"),
        ("socks5://user:secretü@proxy.example", "must be ASCII"),
        ("socks5h://üser:secret@proxy.example", "must be ASCII"),
        ("socks5://user@proxy.example", "1 to 255 characters each"),
        ("socks5://:secret@proxy.example", "1 to 255 characters each"),
        (f"socks5://user:{'secret' * 50}@proxy.example", "1 to 255 characters each"),
    ],
)
def test_what_is_no_proxy_is_said_in_one_line_without_the_password(text: str, message: str) -> None:
    with pytest.raises(AddressError, match=message) as caught:
        parse_proxy(text)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text() | st.from_regex(r"(https?|socks5h?)://[^@]{0,5}@?[a-z0-9.:\[\]]{0,9}(:[0-9]{0,6})?/?", fullmatch=True))
def test_any_text_is_a_proxy_or_an_address_error(text: str) -> None:
    try:
        proxy = parse_proxy(text)
    except AddressError:
        return
    assert parse_proxy(str(proxy)).address == proxy.address


@given(st.sampled_from(["http", "socks5", "socks5h"]), st.text(st.sampled_from(string.printable[:95]), max_size=200))
def test_any_password_can_be_encoded_and_is_never_shown(scheme: str, text: str) -> None:
    password = f"{text}hunter2"
    proxy = parse_proxy(f"{scheme}://user:{quote(password, safe='')}@proxy.example:3128")
    assert (proxy.user, proxy.password) == ("user", password)
    assert "hunter2" not in f"{proxy} {proxy!r}"
    assert str(proxy) == f"{scheme}://proxy.example:3128"


# The environment


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "one:1"}, "http://one:1"),
        ({"https_proxy": "one:1"}, "http://one:1"),
        ({"ALL_PROXY": "socks5h://one:1"}, "socks5h://one:1"),
        ({"all_proxy": "socks5h://one:1"}, "socks5h://one:1"),
        ({"https_proxy": "one:1", "HTTPS_PROXY": "two:2", "all_proxy": "three:3"}, "http://one:1"),
        ({"HTTPS_PROXY": "one:1", "all_proxy": "two:2", "ALL_PROXY": "three:3"}, "http://one:1"),
        ({"all_proxy": "one:1", "ALL_PROXY": "two:2"}, "http://one:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "one:1"}, "http://one:1"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": ""}, None),
        ({"HTTP_PROXY": "one:1", "http_proxy": "one:1", "FTP_PROXY": "one:1"}, None),
    ],
)
def test_variables_are_asked_in_curls_order(environ: dict[str, str], expected: str | None) -> None:
    found = proxy_from_environment(environ, SERVER)
    assert (None if found is None else str(found)) == expected


def test_a_mistake_names_its_variable_and_no_password() -> None:
    environ = {"ALL_PROXY": "http://user:secret@", "HTTPS_PROXY": ""}
    with pytest.raises(AddressError, match=r"^ALL_PROXY: the proxy has no valid host and port") as caught:
        proxy_from_environment(environ, SERVER)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("app.localhost", True),
        ("notlocalhost", False),
        ("localhost.example.org", False),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("::2", False),
        ("fe80::1%eth0", False),
        ("fe80::1%app.localhost", False),
    ],
)
def test_a_server_on_this_machine_is_reached_without_the_environments_proxy(host: str, is_local: bool) -> None:
    found = proxy_from_environment({"HTTPS_PROXY": "http://proxy.example:3128"}, TcpAddress(host, 4443))
    assert (found is None) == is_local


def test_a_bad_variable_does_not_matter_to_a_server_on_this_machine() -> None:
    assert proxy_from_environment({"HTTPS_PROXY": "nonsense://"}, TcpAddress("localhost", 4443)) is None


@pytest.mark.parametrize(
    ("exceptions", "server", "is_meant"),
    [
        ("tunnel.example.org", "tunnel.example.org", True),
        ("TUNNEL.example.ORG", "tunnel.Example.org", True),
        ("tunnel.example.org.", "tunnel.example.org", True),
        ("tunnel.example.org", "tunnel.example.org.", True),
        ("example.org", "tunnel.example.org", True),
        (".example.org", "tunnel.example.org", True),
        (".example.org", "example.org", True),
        ("*.example.org", "tunnel.example.org", True),
        ("ample.org", "tunnel.example.org", False),
        ("tunnel.example.org", "example.org", False),
        ("tunnel.example.org.evil", "tunnel.example.org", False),
        ("*", "tunnel.example.org", True),
        ("a.example, *", "tunnel.example.org", True),
        ("*", "10.0.0.7", True),
        ("", "tunnel.example.org", False),
        (" , ,", "tunnel.example.org", False),
        (".", "tunnel.example.org", False),
        (":4443", "tunnel.example.org", False),
        ("a.example,example.org", "tunnel.example.org", True),
        ("a.example example.org", "tunnel.example.org", True),
        ("a.example ,, example.org ,", "tunnel.example.org", True),
        ("example.org:4443", "tunnel.example.org", True),
        ("example.org:443", "tunnel.example.org", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.7:4443", "10.0.0.7", True),
        ("10.0.0.7:443", "10.0.0.7", False),
        ("0.0.7", "10.0.0.7", False),
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/33", "10.0.0.1", False),
        ("10.0.0.0/8", "tunnel.example.org", False),
        ("2001:db8::/32", "2001:db8::5", True),
        ("2001:db8::5", "2001:DB8:0::5", True),
        ("[2001:db8::5]", "2001:db8::5", True),
        ("[2001:db8::5]:4443", "2001:db8::5", True),
        ("[2001:db8::5]:443", "2001:db8::5", False),
        ("2001:db8::/32", "10.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("[", "tunnel.example.org", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_exceptions(variable: str, exceptions: str, server: str, is_meant: bool) -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example:3128", variable: exceptions}
    assert (proxy_from_environment(environ, TcpAddress(server, 4443)) is None) == is_meant


def test_the_exceptions_in_lower_case_count() -> None:
    environ = {"HTTPS_PROXY": "one:1", "no_proxy": "other.example", "NO_PROXY": "*"}
    assert proxy_from_environment(environ, SERVER) is not None


@given(st.text(), st.text(min_size=1))
def test_any_exceptions_and_any_host_are_understood(exceptions: str, host: str) -> None:
    environ = {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": exceptions}
    proxy_from_environment(environ, TcpAddress(host, 4443))
