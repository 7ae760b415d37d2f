"""What changes in a head on its way to the local service and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.addresses import parse_network
from otun.errors import BadRequest, BadResponse, ConfigurationError
from otun.http.forwarding import (
    NO_EDITS,
    FieldEdits,
    Visitor,
    confine_cookie,
    is_in_networks,
    write_request,
    write_response,
)
from otun.http.head import RequestHead, RequestHeadReader, ResponseHead, ResponseHeadReader

VISITOR = Visitor("203.0.113.9")
PROXY = Visitor("10.0.0.1", is_trusted=True)


def read(*fields: str, host: str = "app.example", target: str = "/", method: str = "GET") -> RequestHead:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]
    head = RequestHeadReader().feed("\r\n".join(lines).encode("latin-1"))
    assert head is not None
    return head


def written(
    *fields: str, visitor: Visitor = VISITOR, host: str = "app.example", edits: FieldEdits = NO_EDITS
) -> list[str]:
    """The lines of the head that the local service sees, without the blank one."""
    sent = write_request(read(*fields), visitor, host=host.encode(), edits=edits).decode("latin-1")
    assert sent.endswith("\r\n\r\n")
    return sent.removesuffix("\r\n\r\n").split("\r\n")


def fields_of(lines: list[str], name: str) -> list[str]:
    """The values of the fields with this name, in any case."""
    pairs = [line.partition(": ") for line in lines[1:]]
    return [value for given, _, value in pairs if given.lower() == name.lower()]


def read_response(*fields: str, status: str = "200 OK") -> ResponseHead:
    head = ResponseHeadReader().feed("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1"))
    assert head is not None
    return head


def answered(*fields: str, base: str | None = "tunnel.example", edits: FieldEdits = NO_EDITS) -> list[str]:
    """The lines of the head that the visitor sees."""
    sent = write_response(read_response(*fields), b"Content-Length: 0\r\n", base=base, edits=edits).decode("latin-1")
    assert sent.endswith("\r\n\r\n")
    return sent.removesuffix("\r\n\r\n").split("\r\n")


# Who the visitor is


def test_the_edge_says_who_the_visitor_is() -> None:
    lines = written("Accept: */*")
    assert lines == [
        "GET / HTTP/1.1",
        "Host: app.example",
        "Accept: */*",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: app.example",
        "X-Forwarded-Proto: http",
        'Forwarded: for=203.0.113.9;proto=http;host="app.example"',
    ]


def test_an_ipv6_visitor_is_written_as_rfc_7239_says() -> None:
    lines = written(visitor=Visitor("2001:db8::7%eth0", scheme="https"))
    assert fields_of(lines, "X-Forwarded-For") == ["2001:db8::7"]
    assert fields_of(lines, "Forwarded") == ['for="[2001:db8::7]";proto=https;host="app.example"']
    assert fields_of(lines, "X-Forwarded-Proto") == ["https"]


IDENTITIES = ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP"]


def spellings(name: str) -> list[str]:
    return [name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", "_", 1).lower()]


@pytest.mark.parametrize("name", sorted({spelt for name in IDENTITIES for spelt in spellings(name)}))
def test_what_a_visitor_says_of_itself_is_dropped(name: str) -> None:
    lines = written(f"{name}: 6.6.6.6", f"{name}: evil", "Kept: yes")
    assert "6.6.6.6" not in "\n".join(lines)
    assert "evil" not in "\n".join(lines)
    assert "Kept: yes" in lines
    assert len(fields_of(lines, "X-Forwarded-For")) == 1
    assert fields_of(lines, "X-Real-IP") == []


def test_what_a_trusted_proxy_says_is_completed() -> None:
    lines = written(
        "X-Forwarded-For: 198.51.100.1",
        "x-forwarded-for: 198.51.100.2, 198.51.100.3",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example",
        "Forwarded: for=198.51.100.1;proto=https",
        visitor=PROXY,
    )
    assert fields_of(lines, "X-Forwarded-For") == ["198.51.100.1, 198.51.100.2, 198.51.100.3, 10.0.0.1"]
    assert fields_of(lines, "X-Forwarded-Proto") == ["https"]
    assert fields_of(lines, "X-Forwarded-Host") == ["shop.example"]
    assert fields_of(lines, "Forwarded") == ['for=198.51.100.1;proto=https, for=10.0.0.1;proto=http;host="app.example"']


def test_a_trusted_proxy_that_says_nothing_is_the_visitor() -> None:
    assert written(visitor=PROXY)[2:] == [
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Host: app.example",
        "X-Forwarded-Proto: http",
        'Forwarded: for=10.0.0.1;proto=http;host="app.example"',
    ]


def test_a_trusted_proxys_underscores_are_not_believed() -> None:
    lines = written("X_Forwarded_For: 6.6.6.6", visitor=PROXY)
    assert fields_of(lines, "X-Forwarded-For") == ["10.0.0.1"]
    assert "6.6.6.6" not in "\n".join(lines)


def test_the_original_host_is_told_when_another_one_is_sent() -> None:
    lines = written(host="localhost:3000")
    assert lines[1] == "Host: localhost:3000"
    assert fields_of(lines, "X-Forwarded-Host") == ["app.example"]


def test_each_request_of_a_connection_has_its_own_host() -> None:
    visitor = Visitor("203.0.113.9")
    for host in ("a.example", "b.example:81", "a.example"):
        sent = write_request(read(host=host), visitor, host=host.encode()).decode()
        assert f"X-Forwarded-Host: {host}\r\n" in sent
        assert f';host="{host}"\r\n' in sent


@given(values=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1), max_size=4))
def test_no_value_of_a_stranger_gets_into_what_the_edge_says(values: list[str]) -> None:
    plain = [line for line in written() if line.lower().startswith(("x-forwarded", "forwarded"))]
    lines = written(*[f"{name}: {value}" for name, value in zip(IDENTITIES, values, strict=False)])
    assert [line for line in lines if line.lower().startswith(("x-forwarded", "forwarded", "x-real"))] == plain


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("2001:db8::1", ["10.0.0.0/8", "2001:db8::/32"], True),
        ("10.1.2.3", [], False),
        ("10.1.2.3", ["::/0"], False),
        ("10.1.2.3", ["10.1.2.3"], True),
    ],
)
def test_who_is_trusted(address: str, networks: list[str], expected: bool) -> None:
    assert is_in_networks(address, tuple(map(parse_network, networks))) is expected


# Hop by hop


@pytest.mark.parametrize("name", ["Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Proxy-Authorization"])
def test_what_is_for_the_next_hop_goes_no_further(name: str) -> None:
    assert fields_of(written(f"{name}: x", f"{name.upper()}: y", "Kept: yes"), name) == []


def test_what_connection_names_goes_no_further() -> None:
    lines = written(
        "Connection: close, X-Secret ,x-other", "connection: third", "X-Secret: 1", "x-OTHER: 2", "Third: 3"
    )
    assert [line for line in lines if "Forwarded" not in line] == ["GET / HTTP/1.1", "Host: app.example"]


def test_what_connection_names_in_a_response_goes_no_further_beside_cookies_either() -> None:
    lines = answered("Connection: x-secret", "X-Secret: 1", "Set-Cookie: a=1", "Kept: yes")
    assert lines == ["HTTP/1.1 200 OK", "Set-Cookie: a=1", "Kept: yes", "Content-Length: 0"]


def test_connection_cannot_take_away_what_the_edge_says() -> None:
    lines = written("Connection: X-Forwarded-For, Forwarded, X-Forwarded-Proto, X-Forwarded-Host")
    assert [len(fields_of(lines, name)) for name in IDENTITIES[:4]] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["Host", "host", "HOST", "Content-Length", "Transfer-Encoding", "Trailer"])
@pytest.mark.parametrize("form", ["{}", "close, {}", "{},close", "x ,\t{}\t, y"])
def test_connection_cannot_name_what_the_message_depends_on(name: str, form: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(f"Connection: {form.format(name)}")
    assert caught.value.status == 400
    with pytest.raises(BadResponse):
        read_response(f"Connection: {form.format(name)}")


def test_trailers_are_asked_for_when_the_visitor_takes_them() -> None:
    lines = written("Connection: TE", "TE: trailers, deflate;q=0.5")
    assert fields_of(lines, "TE") == ["trailers"]
    assert fields_of(lines, "Connection") == ["TE"]
    assert fields_of(written("TE: trailers"), "TE") == []


def test_an_upgrade_is_asked_for_anew() -> None:
    lines = written("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Keep-Alive: timeout=5")
    assert fields_of(lines, "Connection") == ["Upgrade"]
    assert fields_of(lines, "Upgrade") == ["websocket"]
    assert fields_of(lines, "Keep-Alive") == []


@pytest.mark.parametrize("upgrade", ["h2c", "H2C", "websocket, h2c"])
def test_http_2_without_tls_is_never_asked_for(upgrade: str) -> None:
    assert fields_of(written("Connection: Upgrade", f"Upgrade: {upgrade}"), "Upgrade") == []


def test_a_response_loses_what_is_for_the_next_hop() -> None:
    lines = answered(
        "Connection: close, X-Secret",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: close",
        "X-Secret: 1",
        "Upgrade: h2",
        "Server: s",
        "Content-Length: 0",
    )
    assert lines == ["HTTP/1.1 200 OK", "Server: s", "Content-Length: 0"]


def test_framing_is_written_anew() -> None:
    head = read("Content-Length: 5", method="POST")
    assert write_request(head, VISITOR, host=b"h").count(b"Content-Length: 5\r\n") == 1
    head = read("Transfer-Encoding: CHUNKED", method="POST")
    sent = write_request(head, VISITOR, host=b"h")
    assert sent.lower().count(b"transfer-encoding") == 1
    assert b"Transfer-Encoding: chunked\r\n" in sent


# What the owner asked for


def test_a_header_is_added_replaced_or_removed() -> None:
    edits = FieldEdits.parse(("X-New: 1", "User-Agent: otun", "-Cookie"))
    lines = written("user-agent: a", "USER-AGENT: b", "Cookie: c", "cookie: d", "Kept: e", edits=edits)
    assert fields_of(lines, "User-Agent") == ["otun"]
    assert fields_of(lines, "Cookie") == []
    assert fields_of(lines, "X-New") == ["1"]
    assert fields_of(lines, "Kept") == ["e"]


def test_a_header_may_be_set_twice() -> None:
    edits = FieldEdits.parse(("X-New: 1", "X-New: 2"))
    assert fields_of(written("X-New: 0", edits=edits), "X-New") == ["1", "2"]


def test_a_response_header_is_added_replaced_or_removed() -> None:
    edits = FieldEdits.parse(("X-Frame-Options: DENY", "Server: otun", "-X-Powered-By"))
    lines = answered("server: s", "X-Powered-By: PHP", "Kept: e", edits=edits)
    assert fields_of(lines, "Server") == ["otun"]
    assert fields_of(lines, "X-Powered-By") == []
    assert fields_of(lines, "X-Frame-Options") == ["DENY"]
    assert fields_of(lines, "Kept") == ["e"]


@pytest.mark.parametrize("name", ["X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded"])
def test_the_owner_may_replace_and_remove_what_the_edge_says(name: str) -> None:
    for visitor in (VISITOR, PROXY):
        for spelt in (name, name.lower()):
            lines = written(f"{name}: visitor", visitor=visitor, edits=FieldEdits.parse((f"{spelt}: owner",)))
            assert fields_of(lines, name) == ["owner"]
            lines = written(f"{name}: visitor", visitor=visitor, edits=FieldEdits.parse((f"-{spelt}",)))
            assert fields_of(lines, name) == []
            others = [other for other in IDENTITIES[:4] if other != name]
            assert [len(fields_of(lines, other)) for other in others] == [1, 1, 1]


def test_an_empty_value_is_a_value() -> None:
    assert fields_of(written("X-A: 1", edits=FieldEdits.parse(("X-A:",))), "X-A") == [""]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "X-A",
        "-",
        "-X-A: 1",
        ": 1",
        "X A: 1",
        "X-A : 1",
        "X-A: 1\r\nX-B: 2",
        "X-A: 1\n",
        "X-A: \0",
        "X-Ä: 1",
        "X-A: ä",
    ],
)
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no header"):
        FieldEdits.parse((text,))


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Keep-Alive", "TE", "Upgrade", "Trailer", "Expect"],
)
def test_what_says_how_the_message_is_read_cannot_be_changed(name: str) -> None:
    for text in (f"{name}: x", f"-{name}"):
        with pytest.raises(ConfigurationError, match="cannot be changed"):
            FieldEdits.parse((text,))


# Cookies


@pytest.mark.parametrize(
    "domain",
    [
        "tunnel.example",
        ".tunnel.example",
        "TUNNEL.Example",
        "example",
        ".example",
        "tunnel.example.",
        '"tunnel.example"',
        " tunnel.example ",
        "..tunnel.example",
    ],
)
@pytest.mark.parametrize("form", ["a=b; Domain={}; Path=/", "a=b;domain={};Path=/", "a=b; DOMAIN = {}; Path=/"])
def test_a_cookie_for_all_tunnels_is_for_its_own_host_alone(domain: str, form: str) -> None:
    value = confine_cookie(form.format(domain).encode(), "tunnel.example")
    assert value.replace(b"; ", b";") == b"a=b;Path=/"


@pytest.mark.parametrize(
    "value",
    [
        "a=b",
        "a=b; Domain=app.tunnel.example",
        "a=b; Domain=.app.tunnel.example; Secure",
        "a=b; Domain=shop.example.org",
        "a=b; Domain=xtunnel.example",
        "a=b; Domain=el.example",
        "domain=tunnel.example; Path=/",
        "a=domain; Path=/domain=tunnel.example",
        "a=b; Domainx=tunnel.example",
        "a=b; Domain=tunnel.example.org",
    ],
)
def test_other_cookies_stay_as_they_are(value: str) -> None:
    assert confine_cookie(value.encode(), "tunnel.example") == value.encode()


def test_every_domain_of_a_cookie_is_looked_at() -> None:
    value = b"a=b; Domain=app.tunnel.example; Domain=tunnel.example; Domain=example"
    assert confine_cookie(value, "tunnel.example") == b"a=b; Domain=app.tunnel.example"


def test_each_cookie_of_a_response_is_looked_at() -> None:
    lines = answered("Set-Cookie: a=1; Domain=tunnel.example", "set-cookie: b=2; Domain=x.example", "Set-Cookie: c=3")
    assert fields_of(lines, "Set-Cookie") == ["a=1", "b=2; Domain=x.example", "c=3"]


def test_what_a_proxy_passes_on_cannot_speak_for_the_edge() -> None:
    lines = written('X-Forwarded-Host: x", for="6.6.6.6', visitor=PROXY)
    assert fields_of(lines, "Forwarded") == ['for=10.0.0.1;proto=http;host="app.example"']
