"""TLS that passes through: the server reads the name in the ClientHello, and has no key to read more."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

import attrs
import pytest
import trio

from otun import (
    RegistrationRefused,
    TcpAddress,
    Tunnel,
    TunnelSettings,
    open_tunnel,
    open_tunnels,
)
from otun.errors import ServerNotTrusted
from otun.proxy_protocol import TUNNEL_ID, ProxyHeaderReader
from otun.tls.trust import Trust

from ..tls.hello_wire import bytewise, extension, hello, sni
from ..tls.issuing import Authority
from .certificates import DOMAIN, connect_tls, fetch_tls, names_shown, send_in_pieces
from .conversation import Conversation, tenant
from .edges import NAME, Edge, StartEdge
from .raw_client import RawClient, raw_client, see_no_streams_left
from .services import receive_all, receive_head, response
from .visitors import connect, fetch, parse, receive_exactly, receive_until_reset, request, reset

OWN = f"own.{DOMAIN}"
HELLO = hello(sni(OWN.encode()))


def tls(name: str = "own", **changes: object) -> TunnelSettings:
    return TunnelSettings(name=name, kind="tls", **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def raw_tls(edge: Edge, name: str = "own", **fields: object) -> AsyncIterator[RawClient]:
    """Open a tunnel for TLS whose streams are the test's."""
    async with raw_client(edge.control) as client:
        answer = await client.register(name, kind="tls", **fields)
        assert answer["type"] == "registered", answer
        yield client


@attrs.frozen
class Site:
    """A Trio program that answers visitors of a tunnel by TLS of its own."""

    tunnel: Tunnel
    context: ssl.SSLContext
    """Of a visitor who believes its authority, which is not the server's."""
    heads: list[bytes]


@asynccontextmanager
async def trio_site(edge: Edge, tmp_path, settings: TunnelSettings | None = None, *names: str) -> AsyncIterator[Site]:
    """Serve visitors with what README shows: `trio.SSLListener(tunnel, context)`."""
    authority = Authority(tmp_path)
    context = authority.server_context(*(names or (OWN,)))
    heads: list[bytes] = []

    async def answer(stream: trio.SSLStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                head, _ = await receive_head(stream)
                if head:
                    heads.append(head)
                    await stream.send_all(response(b"own " + head.split(b" ")[1], "Connection: close"))

    async with (
        open_tunnel(edge.control, settings or tls()) as tunnel,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(trio.serve_listeners, answer, [trio.SSLListener(tunnel, context)])
        yield Site(tunnel, authority.client_context(), heads)
        nursery.cancel_scope.cancel()


# A program with a key of its own


async def test_a_trio_program_answers_by_tls_of_its_own(edge: Edge, tmp_path) -> None:
    async with trio_site(edge, tmp_path) as site:
        assert site.tunnel.url == f"tls://{OWN}:{edge.https.port}"
        answer = await fetch_tls(edge.https, site.context, "/x", name=OWN, host=OWN)
        assert answer.text == "own /x"
        assert not [line for line in site.heads[0].split(b"\r\n") if line.startswith(b"X-")]
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect_tls(edge.https, edge.context, OWN)
        assert (await fetch_tls(edge.https, site.context, "/y", name=OWN, host=OWN)).text == "own /y"
    await edge.see_nobody()
    assert edge.reports == []


async def test_a_visitor_may_be_a_trio_program_too(edge: Edge, tmp_path) -> None:
    async with trio_site(edge, tmp_path) as site:
        for _ in range(3):
            stream = trio.SSLStream(await connect(edge.https), site.context, server_hostname=OWN, https_compatible=True)
            async with stream:
                await stream.send_all(request("/z", host=OWN))
                assert parse(await receive_all(stream)).text == "own /z"
    await edge.see_nobody()


async def test_many_visitors_at_once_each_have_their_own_stream(edge: Edge, tmp_path) -> None:
    async with trio_site(edge, tmp_path) as site, trio.open_nursery() as nursery:

        async def visit(number: int) -> None:
            answer = await fetch_tls(edge.https, site.context, f"/{number}", name=OWN, host=OWN)
            assert answer.text == f"own /{number}"

        for number in range(30):
            nursery.start_soon(visit, number)
    await edge.see_nobody()


# Bytes as they are


SPLITS: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "at once": lambda data: [data],
    "byte by byte": bytewise,
    "the name in two": lambda data: [data[: data.index(b"own") + 1], data[data.index(b"own") + 1 :]],
}
KINDS = {
    "small": HELLO,
    "records of one byte": hello(sni(OWN.encode()), sizes=(1,)),
    "records of 7 bytes": hello(sni(OWN.encode()), sizes=(7,)),
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_byte_arrives_as_it_was_sent(edge: Edge, kind: str, split: str) -> None:
    sent = KINDS[kind]
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        pieces = SPLITS[split](sent) if b"own" in sent or split != "the name in two" else [sent]
        await send_in_pieces(visitor, pieces)
        stream = await client.session.accept()
        assert await receive_exactly(stream, len(sent)) == sent
        await stream.send_all(b"whatever it says")
        assert await receive_exactly(visitor, 16) == b"whatever it says"
    await edge.see_nobody()


@pytest.mark.parametrize("size", [10_000, 16_000, 17_000, 40_000, 65_000])
@pytest.mark.parametrize("record_size", [1200, 2**14])
async def test_a_large_hello_is_understood(edge: Edge, size: int, record_size: int) -> None:
    sent = hello(extension(0x1234, bytes(size)), sni(OWN.encode()), sizes=(record_size,))
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(sent + b"behind it")
        stream = await client.session.accept()
        assert await receive_exactly(stream, len(sent) + 9) == sent + b"behind it"
    await edge.see_nobody()


async def test_a_hello_over_64_kib_is_refused(edge: Edge) -> None:
    sent = hello(sni(OWN.encode()), extension(0x1234, bytes(65_480)))
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(sent)
        assert (await receive_all(visitor))[:5] == bytes([21, 3, 1, 0, 2])
        await client.see_no_streams_but_control()
    assert "65536 bytes" in await edge.see_report()
    await edge.see_nobody()


async def test_what_comes_behind_the_hello_keeps_its_order(edge: Edge) -> None:
    """So early data does (RFC 8446, section 4.2.10): it follows the hello, and nobody has asked for it."""
    early = b"".join(number.to_bytes(4) for number in range(100_000))
    async with raw_tls(edge) as client, await connect(edge.https) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(visitor.send_all, HELLO + early)
        stream = await client.session.accept()
        assert await receive_exactly(stream, len(HELLO) + len(early)) == HELLO + early


async def test_each_direction_ends_by_itself(edge: Edge) -> None:
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(HELLO)
        await visitor.send_eof()
        stream = await client.session.accept()
        assert await receive_all(stream) == HELLO
        await stream.send_all(b"late")
        await stream.send_eof()
        assert await receive_all(visitor) == b"late"
        await see_no_streams_left(client.session)
        await edge.see_nobody()


async def test_a_reset_looks_like_one_on_the_other_side(edge: Edge) -> None:
    async with raw_tls(edge) as client:
        async with await connect(edge.https) as visitor:
            await visitor.send_all(HELLO)
            stream = await client.session.accept()
            stream.reset()
            await receive_until_reset(visitor)
        visitor = await connect(edge.https)
        await visitor.send_all(HELLO)
        stream = await client.session.accept()
        await receive_exactly(stream, len(HELLO))
        reset(visitor)
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(stream)
    await edge.see_nobody()


# Whose visitors they are


@pytest.mark.parametrize("spelt", [OWN.upper(), f"{OWN}.", "OwN.tunnel.TEST."])
async def test_the_name_counts_however_it_is_spelt(edge: Edge, spelt: str) -> None:
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(hello(sni(spelt.encode())))
        assert await client.session.accept()


async def test_tunnels_of_both_kinds_stand_side_by_side(edge: Edge, tmp_path) -> None:
    async with tenant(edge.control, "app"), trio_site(edge, tmp_path) as site:
        assert (await edge.fetch()).text == "app 1 /"
        assert (await fetch_tls(edge.https, site.context, name=OWN, host=OWN)).text == "own /"
        assert await names_shown(edge.https, edge.context, f"none.{DOMAIN}") == {f"*.{DOMAIN}"}


async def test_a_tunnel_that_has_gone_leaves_its_name_to_the_servers_certificate(edge: Edge) -> None:
    async with raw_tls(edge) as client:
        await client.session.aclose()
    while edge.tunnels:
        await trio.testing.wait_all_tasks_blocked(0.001)
    assert await names_shown(edge.https, edge.context, OWN) == {f"*.{DOMAIN}"}


async def test_host_names_and_wildcards_lead_to_it(start_edge: StartEdge) -> None:
    edge = await start_edge(allow_hostnames=("*.shop.example", "shop.example"))
    async with raw_tls(edge, hostnames=["shop.example", "*.shop.example", f"*.own.{DOMAIN}"]) as client:
        for name in ("shop.example", "a.shop.example", "a.b.shop.example", f"deep.own.{DOMAIN}", OWN):
            async with await connect(edge.https) as visitor:
                sent = hello(sni(name.encode()))
                await visitor.send_all(sent)
                assert await receive_exactly(await client.session.accept(), len(sent)) == sent
        for name in ("xshop.example", "example", DOMAIN, f"other.{DOMAIN}"):
            assert await names_shown(edge.https, edge.context, name) == {f"*.{DOMAIN}"}


async def test_without_a_domain_the_only_tunnel_gets_everybody(start_edge: StartEdge) -> None:
    edge = await start_edge(domain=None)
    async with raw_tls(edge) as client:
        for data in (hello(), hello(sni(b"any.example")), hello(sni(b"own.localhost"))):
            async with await connect(edge.https) as visitor:
                await visitor.send_all(data)
                assert await receive_exactly(await client.session.accept(), len(data)) == data


@pytest.mark.parametrize("protocol", [b"h2", b"http/1.1", b"acme-tls/1", b"imap"])
async def test_protocols_are_the_local_services_business(edge: Edge, protocol: bytes) -> None:
    alpn = extension(16, (len(protocol) + 1).to_bytes(2) + bytes([len(protocol)]) + protocol)
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(hello(sni(OWN.encode()), alpn))
        assert await client.session.accept()


@pytest.mark.parametrize("kinds", [("tls", "http"), ("http", "tls"), ("tls", "tls")], ids=" and ".join)
async def test_a_name_is_taken_whatever_kind_of_tunnel_has_it(edge: Edge, kinds: tuple[str, str]) -> None:
    first, second = kinds
    async with raw_client(edge.control) as one, raw_client(edge.control) as other:
        assert (await one.register("own", kind=first))["type"] == "registered"
        assert (await other.register("own", kind=second))["code"] == "name_taken"


@pytest.mark.parametrize("first", ["http", "tls"])
async def test_a_path_does_not_share_a_name_with_a_tunnel_that_cannot_look_for_it(edge: Edge, first: str) -> None:
    """Visitors by TLS would never reach it, even if both are of the same client."""
    settings = [TunnelSettings(name="own", path="/api"), tls()]
    with pytest.raises(RegistrationRefused, match="in use"):
        async with open_tunnels(edge.control, settings if first == "http" else settings[::-1]):
            pass


async def test_a_server_without_https_says_so(start_server) -> None:
    server = await start_server()
    with pytest.raises(RegistrationRefused, match="--https"):
        async with open_tunnel(server.control, tls()):
            pass


@pytest.mark.parametrize("fields", [{"path": "/api"}, {"host_header": "a"}, {"request_headers": ["A: b"]}])
async def test_what_only_http_has_is_refused(edge: Edge, fields: dict[str, object]) -> None:
    async with raw_client(edge.control) as client:
        assert (await client.register("own", kind="tls", **fields))["code"] == "header_invalid"


# Nothing of it is for those who have ended TLS here


@pytest.mark.parametrize("name", [NAME, None, f"none.{DOMAIN}"])
async def test_a_request_for_it_over_tls_that_has_ended_here_gets_421(edge: Edge, name: str | None) -> None:
    context = edge.authority.client_context(is_checking=False)
    async with raw_tls(edge) as client, tenant(edge.control, "app"):
        for host in (OWN, OWN.upper(), f"{OWN}.:1234"):
            answer = await fetch_tls(edge.https, context, name=name, host=host)
            assert (answer.status, answer.fields["Otun-Error"]) == (421, "misdirected")
        async with await connect_tls(edge.https, context, name) as visitor:
            talk = Conversation(visitor)
            assert (await talk.ask("/", host=NAME)).text.startswith("app")
            assert (await talk.ask("/", host=OWN)).status == 421
        await client.see_no_streams_but_control()
    await edge.see_nobody()


async def test_a_request_for_it_by_http_is_redirected(edge: Edge) -> None:
    async with raw_tls(edge) as client:
        answer = await fetch(edge.public, "/a?b", host=OWN)
        assert (answer.status, answer.fields["Location"]) == (308, f"https://{OWN}:{edge.https.port}/a?b")
        await client.see_no_streams_but_control()


async def test_it_is_redirected_although_the_server_has_no_certificate_for_it(start_edge: StartEdge) -> None:
    edge = await start_edge(allow_hostnames=("shop.example",))
    async with raw_tls(edge, hostnames=["shop.example"]) as client:
        answer = await fetch(edge.public, "/", host="shop.example:80")
        assert answer.fields["Location"] == f"https://shop.example:{edge.https.port}/"
        assert (await fetch(edge.public, "/", host="www.shop.example")).status == 404
        await client.see_no_streams_but_control()


async def test_a_request_for_it_by_http_never_reaches_it(start_edge: StartEdge) -> None:
    edge = await start_edge(redirect=False)
    async with raw_tls(edge) as client:
        answer = await fetch(edge.public, host=OWN)
        assert answer.status == 421
        await client.see_no_streams_but_control()
    await edge.see_nobody()


# Numbers


async def test_visitors_are_counted_and_bounded_for_each_tunnel(start_edge: StartEdge) -> None:
    edge = await start_edge(max_streams=2)
    async with raw_tls(edge) as client:
        visitors = [await connect(edge.https) for _ in range(2)]
        for visitor in visitors:
            await visitor.send_all(HELLO)
            await client.session.accept()
        await edge.see_visitors(2)
        async with await connect(edge.https) as further:
            await further.send_all(HELLO)
            assert await receive_all(further) == bytes([21, 3, 1, 0, 2, 2, 80])
        assert "too many visitors" in await edge.see_report()
        reset(visitors[0])
        await edge.see_visitors(1)
        async with await connect(edge.https) as next_one:
            await next_one.send_all(HELLO)
            await client.session.accept()
            reset(next_one)
        reset(visitors[1])
    await edge.see_nobody()


async def test_visitors_are_forgotten_with_their_tunnel(edge: Edge) -> None:
    async with await connect(edge.https) as visitor:
        async with raw_tls(edge) as client:
            await visitor.send_all(HELLO)
            await client.session.accept()
            await client.vanish()
            await receive_until_reset(visitor)
        await edge.see_nobody()


async def test_a_visitor_whose_stream_cannot_be_opened_is_forgotten(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.relayed.STREAM_TIMEOUT", 0.1)
    visitors = []
    async with raw_tls(edge):
        # Nobody accepts: beyond the backlog, streams wait for a place.
        for _ in range(300):
            visitor = await connect(edge.https)
            visitors.append(visitor)
            await visitor.send_all(HELLO)
        await receive_until_reset(visitors[-1])
        for visitor in visitors:
            reset(visitor)
        await edge.see_nobody()


async def test_a_server_that_ends_forgets_relayed_visitors(edge: Edge) -> None:
    async with raw_tls(edge) as client, await connect(edge.https) as visitor:
        await visitor.send_all(HELLO)
        await client.session.accept()
        await edge.see_visitors(1)
        await edge.server.stop()
        assert edge.visitors == 0


# Who the visitor is


async def test_the_streams_header_says_who_it_is_and_for_which_tunnel(edge: Edge) -> None:
    async with raw_tls(edge, id="t1", stream_header=True) as client, await connect(edge.https) as visitor:
        await visitor.send_all(HELLO)
        stream = await client.session.accept()
        reader = ProxyHeaderReader(is_v1_allowed=False)
        while (header := reader.feed(await stream.receive_some())) is None:
            pass
        assert header.tlv(TUNNEL_ID) == b"t1"
        assert header.source == TcpAddress(*visitor.socket.getsockname())
        assert header.destination == edge.https
        rest = reader.rest
        assert rest + await receive_exactly(stream, len(HELLO) - len(rest)) == HELLO


async def test_a_trusted_proxys_word_reaches_the_program(start_edge: StartEdge) -> None:
    edge = await start_edge(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with open_tunnel(edge.control, tls()) as tunnel, await connect(edge.https) as visitor:
        await visitor.send_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n" + HELLO)
        stream = await tunnel.accept()
        assert stream.visitor == TcpAddress("192.0.2.7", 50_000)
        assert await receive_exactly(stream, len(HELLO)) == HELLO


# Clients who share the port


async def test_clients_come_by_the_https_port_too(start_edge: StartEdge, authority: Authority) -> None:
    """The protocol that they offer tells them from visitors, of whom they are none."""
    certificates = (authority.certify("localhost", f"*.{DOMAIN}"),)
    edge = await start_edge(certificates=certificates)
    address = TcpAddress("localhost", edge.https.port)
    async with open_tunnel(address, name="app", trust=Trust(ca=authority.path)) as tunnel:
        assert edge.visitors == 0
        async with edge.visiting() as visitor:
            await visitor.send_all(request("/", host=NAME))
            stream = await tunnel.accept()
            await receive_head(stream)
            await stream.send_all(response(b"hello"))
            assert (await Conversation(visitor).receive()).text == "hello"
    await edge.see_nobody()


async def test_a_client_that_does_not_believe_the_https_port_is_a_line_in_the_log(edge: Edge) -> None:
    with pytest.raises(ServerNotTrusted):
        async with open_tunnel(TcpAddress("localhost", edge.https.port), name="app", trust=Trust()):
            pass
    assert await edge.see_report() == "no TLS connection: the other side said: unknown ca"
    await edge.see_nobody()
