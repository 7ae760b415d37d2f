"""Visitors who come by HTTP, and are sent to HTTPS, or are not."""

from ipaddress import ip_network
from urllib.parse import urlsplit

import pytest

from ..tls.issuing import Authority
from .certificates import DOMAIN
from .conversation import conversation, tenant
from .edges import NAME, Edge, StartEdge
from .visitors import Answer, ask, fetch, parse, request

TRUSTED = (ip_network("127.0.0.0/8"),)


def there(edge: Edge, target: str = "/", host: str = NAME) -> str:
    return f"https://{host}:{edge.https.port}{target}"


def check(answer: Answer, location: str) -> None:
    assert (answer.status, answer.fields["Location"]) == (308, location)
    assert answer.fields["Connection"] == "close"


@pytest.mark.parametrize(
    "target",
    ["/", "/a/b?c=d&e=%20%2F", "/?https://evil.example/", "/" + "x" * 8000, "/;a=b,c!'()*~", "/%0d%0aSet-Cookie:x"],
)
async def test_path_and_query_stay(edge: Edge, target: str) -> None:
    async with tenant(edge.control, "app") as app:
        answer = await fetch(edge.public, target, host=NAME)
        check(answer, there(edge, target))
        assert target in answer.text
        assert not app.streams
        assert (await edge.fetch(target)).status == 200
    await edge.see_nobody()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_the_method_stays_and_the_body_is_not_waited_for(edge: Edge, method: str) -> None:
    """308 says that the request is to be made again as it was (RFC 9110, section 15.4.9)."""
    async with tenant(edge.control, "app"):
        check(await fetch(edge.public, host=NAME, method=method), there(edge))
        unfinished = request("/", "Content-Length: 1000000", host=NAME, method=method)
        check(parse(await ask(edge.public, unfinished), method=method), there(edge))


@pytest.mark.parametrize("port", ["", ":80", ":8080", ":443", ":"])
@pytest.mark.parametrize("host", [NAME, NAME.upper(), f"{NAME}."])
async def test_host_and_port_become_those_of_https(edge: Edge, host: str, port: str) -> None:
    check(await fetch(edge.public, host=f"{host}{port}"), there(edge))


async def test_the_usual_port_is_not_written(start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.hub._port_of", lambda sockets: 443)
    edge = await start_edge()
    check(await fetch(edge.public, "/x", host=NAME), f"https://{NAME}/x")


async def test_it_does_not_matter_whether_there_is_a_tunnel(edge: Edge) -> None:
    check(await fetch(edge.public, host=f"none.{DOMAIN}"), there(edge, host=f"none.{DOMAIN}"))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_programs_of_all_ages_are_redirected(edge: Edge, version: str) -> None:
    sent = f"GET /x HTTP/{version}\r\nHost: {NAME}\r\n\r\n"
    check(parse(await ask(edge.public, sent.encode())), there(edge, "/x"))


# Who is not


@pytest.mark.parametrize("host", ["unknown.example", DOMAIN, f"a.b.{DOMAIN}", f"not{DOMAIN}", "127.0.0.1", "[::1]"])
async def test_a_host_without_a_certificate_is_served_by_http(edge: Edge, host: str) -> None:
    async with tenant(edge.control, "app"):
        answer = await fetch(edge.public, host=host)
        assert (answer.status, answer.fields["Otun-Error"]) == (404, "tunnel_not_found")


async def test_a_tunnel_whose_host_has_no_certificate_is_reached_by_http(
    start_edge: StartEdge, authority: Authority
) -> None:
    edge = await start_edge(certificates=(authority.certify(NAME),))
    async with tenant(edge.control, "app") as app, tenant(edge.control, "plain") as plain:
        assert app.url == there(edge, "")
        assert plain.url == f"http://plain.{DOMAIN}:{edge.public.port}"
        assert (await fetch(edge.public, host=f"plain.{DOMAIN}")).text == "plain 1 /"
        check(await fetch(edge.public, host=NAME), there(edge))


async def test_nobody_is_when_that_was_not_wanted(start_edge: StartEdge) -> None:
    edge = await start_edge(redirect=False)
    async with tenant(edge.control, "app"):
        assert (await fetch(edge.public, host=NAME)).text == "app 1 /"


async def test_a_request_for_no_host_or_for_the_server_itself_is_not(edge: Edge) -> None:
    assert parse(await ask(edge.public, b"GET / HTTP/1.0\r\n\r\n")).status == 404
    assert (await fetch(edge.public, "*", host=NAME, method="OPTIONS")).status == 404


@pytest.mark.parametrize(
    "said",
    [
        ["X-Forwarded-Proto: https"],
        ["x-forwarded-proto: HTTPS"],
        ["X-Forwarded-Proto: http, https"],
        ["X-Forwarded-Proto: http", "X-Forwarded-Proto: https"],
        ["Forwarded: for=192.0.2.1;proto=https"],
        ['Forwarded: for=192.0.2.1;proto="https";host=a'],
        ["Forwarded: for=192.0.2.1, for=192.0.2.2;Proto=HTTPS;by=_x"],
        ["Forwarded: for=192.0.2.1", "Forwarded: proto=https"],
        ['Forwarded: for="a,b;c";proto=https'],
    ],
    ids=" ".join,
)
async def test_a_visitor_who_came_to_a_trusted_proxy_by_https_is_not(start_edge: StartEdge, said: list[str]) -> None:
    """He would come back by the same way for ever."""
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with tenant(edge.control, "app"):
        assert (await fetch(edge.public, "/", *said, host=NAME)).text == "app 1 /"


@pytest.mark.parametrize(
    "said",
    [
        [],
        ["X-Forwarded-Proto: http"],
        ["X-Forwarded-Proto: https, http"],
        ["X-Forwarded-Proto: httpsx"],
        ["Forwarded: for=192.0.2.1;proto=http"],
        ["Forwarded: for=192.0.2.1"],
        ["Forwarded: proto=https, proto=http"],
        ['Forwarded: for="proto=https"'],
        ["Forwarded: xproto=https"],
        ["X-Forwarded-Proto: http", "Forwarded: proto=https"],
    ],
    ids=" ".join,
)
async def test_a_visitor_who_came_to_a_trusted_proxy_by_http_is_redirected(
    start_edge: StartEdge, said: list[str]
) -> None:
    edge = await start_edge(trusted_proxies=TRUSTED)
    async with tenant(edge.control, "app"):
        check(await fetch(edge.public, "/", *said, host=NAME), there(edge))


@pytest.mark.parametrize("said", ["X-Forwarded-Proto: https", "Forwarded: proto=https", "X-Forwarded-Ssl: on"])
async def test_nobody_else_is_believed(edge: Edge, said: str) -> None:
    async with tenant(edge.control, "app") as app:
        check(await fetch(edge.public, "/", said, host=NAME), there(edge))
        assert not app.streams


async def test_a_visitor_for_whom_a_proxy_speaks_in_a_header_is_redirected(start_edge: StartEdge) -> None:
    """The proxy is trusted, and the visitor whose connection it passes on is not."""
    edge = await start_edge(trusted_proxies=TRUSTED)
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 80\r\n"
    answer = parse(await ask(edge.public, header + request("/", "X-Forwarded-Proto: https", host=NAME)))
    check(answer, there(edge))


# Tricks


@pytest.mark.parametrize(
    "target", ["//evil.example", "//evil.example/%2e%2e", "/\\evil.example", "/@evil.example", "/.evil.example", "///"]
)
async def test_a_target_does_not_lead_to_another_host(edge: Edge, target: str) -> None:
    answer = await fetch(edge.public, target, host=NAME)
    if answer.status == 308:
        check(answer, there(edge, target))
        found = urlsplit(answer.fields["Location"])
        assert (found.hostname, found.port) == (NAME, edge.https.port)
    else:
        assert answer.status == 400


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://evil.example/", NAME),
        ("http://evil.example@app.tunnel.test/", NAME),
        ("http://app.tunnel.test@evil.example/", NAME),
        ("http:evil.example", NAME),
        ("evil.example", NAME),
        (".evil.example", NAME),
        ("@evil.example", NAME),
        ("/", f"{NAME}@evil.example"),
        ("/", f"evil.example/{NAME}"),
        ("/", f"evil.example\\.{NAME}"),
        ("/", f"evil.example#.{DOMAIN}"),
        ("/", f"evil.example?.{DOMAIN}"),
        ("/", f"{NAME}:443@evil.example"),
        ("/", f"{NAME}:443:80"),
        ("/", f"{NAME}, evil.example"),
        ("/", f"{NAME} evil.example"),
        ("/#evil", NAME),
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(edge: Edge, target: str, host: str) -> None:
    answer = await fetch(edge.public, target, host=host)
    assert answer.status == 400
    assert "Location" not in answer.fields


async def test_a_whole_url_as_the_target_counts_like_its_host(edge: Edge) -> None:
    check(await fetch(edge.public, f"http://{NAME}/a?b", host=NAME), there(edge, "/a?b"))
    check(await fetch(edge.public, f"http://{NAME}?b", host=NAME), there(edge, "/?b"))


@pytest.mark.parametrize(
    "sent", [b"/\xff", b"/\xc3\xa9", b"/a\rSet-Cookie: x=y", b"/a\nSet-Cookie: x=y", b"/a\0b", b"/a\tb"]
)
async def test_no_byte_of_a_target_gets_into_another_field(edge: Edge, sent: bytes) -> None:
    received = await ask(edge.public, b"GET " + sent + b" HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\n\r\n")
    assert b"\r\nSet-Cookie" not in received
    assert parse(received).status in (308, 400)


async def test_a_target_that_is_too_long_is_refused_here(edge: Edge) -> None:
    assert (await fetch(edge.public, "/" + "x" * 9000, host=NAME)).status == 414


async def test_a_page_from_the_server_does_not_show_the_target_as_html(edge: Edge) -> None:
    answer = await fetch(edge.public, "/<script>alert(1)</script>", host=NAME)
    assert answer.fields["Content-Type"] == "text/plain"


async def test_a_redirect_ends_the_connection(edge: Edge) -> None:
    """Whatever was sent behind the request is for the other port."""
    async with tenant(edge.control, "app") as app, conversation(edge.public) as visitor:
        await visitor.stream.send_all(request("/1", host=NAME) + request("/2", host=NAME))
        check(await visitor.receive(), there(edge, "/1"))
        assert await visitor.receive_rest() == b""
        assert not app.streams
    await edge.see_nobody()
