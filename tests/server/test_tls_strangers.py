"""Whoever comes to a port with something else than what it is for: a line in the log, an answer, and nothing kept."""

import random
import ssl
from collections.abc import Callable

import pytest
import trio
import trio.testing

from otun.addresses import TcpAddress
from otun.server.reports import LINES_AT_ONCE, LINES_PER_SECOND, Reports

from ..tls.hello_wire import MAX_FRAGMENT, extension, hello, message, record, records, sni
from ..tls.issuing import Authority, in_days
from .certificates import DOMAIN, TlsVisitor, connect_tls
from .conversation import Conversation, tenant
from .edges import NAME, Edge, StartEdge
from .services import receive_all
from .visitors import ask, connect, fetch, parse, reset

SSL_2 = bytes.fromhex("80 2e 01 00 02 00 15 00 00 00 10 010080 020080 030080 040080 050080 060040 0700c0") + bytes(16)
RANDOM = random.Random(4711).randbytes(3000)
GARBAGE = {
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "SSL 2": SSL_2,
    "random": b"\xff" + RANDOM,
    "zeros": bytes(5000),
    "SMTP": b"EHLO scanner.example\r\n",
    "RDP": bytes.fromhex("0300002a 25e00000000000") + b"Cookie: mstshash=scan\r\n" + bytes(8),
    "LF": b"\n\n\n\n",
    "escapes": b"\x1b[31m\x1b]0;owned\x07\r\nINFO visitor 10.0.0.1: forged\r\n",
}
ALERTS = {10, 22, 47, 50, 70, 112}
garbage = pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)


async def sent_to(address: TcpAddress, sent: bytes) -> bytes:
    """Send *sent*, and receive until the end, however it comes."""
    received = bytearray()
    async with await connect(address) as visitor:
        await visitor.send_all(sent)
        try:
            async for piece in visitor:
                received += piece
        except trio.BrokenResourceError:
            pass
    return bytes(received)


# No TLS at all


@garbage
async def test_garbage_on_the_https_port_is_a_line_in_the_log(edge: Edge, sent: bytes) -> None:
    await sent_to(edge.https, sent)
    assert (await edge.see_report()).startswith("no TLS connection: it begins with ")
    await edge.see_nobody()
    assert len(edge.reports) == 1


@pytest.mark.parametrize("sent", [sent for name, sent in GARBAGE.items() if name != "LF"])  # Those may stand there.
async def test_garbage_on_the_http_port_is_a_line_in_the_log(edge: Edge, sent: bytes) -> None:
    answer = await sent_to(edge.public, sent + b"\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert (await edge.see_report()).startswith("bad request: ")
    await edge.see_nobody()
    assert len(edge.reports) == 1


async def test_tls_on_the_http_port_is_a_line_in_the_log(edge: Edge) -> None:
    async with await connect(edge.public) as sock:
        with pytest.raises(ssl.SSLError):
            await TlsVisitor(sock, edge.context, NAME).shake_hands()
    assert (await edge.see_report()).startswith("bad request: ")
    await edge.see_nobody()


async def test_a_refused_request_says_in_the_log_what_was_wrong_with_it(edge: Edge) -> None:
    answer = parse(await ask(edge.public, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))
    assert answer.status == 400
    assert await edge.see_report() == "bad request: the request has more than one Host"


@pytest.mark.parametrize("head", ["GET / HTTP/1.1", "POST /x HTTP/1.1", "HEAD / HTTP/1.0", "OPTIONS * HTTP/1.1"])
async def test_http_on_the_https_port_is_told_how_to_come(edge: Edge, head: str) -> None:
    answer = parse(await ask(edge.https, f"{head}\r\nHost: {NAME}\r\n\r\n".encode()))
    assert (answer.status, answer.fields["Otun-Error"]) == (400, "https_needed")
    assert "https://" in answer.text
    assert head[:4] in await edge.see_report()
    await edge.see_nobody()


# TLS that comes to nothing

HELLO = hello(sni(NAME.encode()))
BAD_HELLOS = {
    "an empty record": record(b""),
    "an alert": bytes([22, 3, 1, 0, 0]),
    "random": bytes([22, 3, 1]) + RANDOM,
    "too large": record(b"\1\0\xff\xff" + bytes(MAX_FRAGMENT - 4)) * 5,
    "announces too much": record(message(bytes(10), length=0x20000)),
    "a record that is too large": record(b"\1", length=20_000),
    "another message": records(message(bytes(10), kind=2)),
    "something behind it": record(HELLO[5:] + b"more"),
    "no cipher": records(message(b"\3\3" + bytes(32) + b"\0" + b"\0\0" + b"\1\0")),
}


@pytest.mark.parametrize("sent", BAD_HELLOS.values(), ids=BAD_HELLOS)
async def test_a_hello_that_is_none_gets_an_alert(edge: Edge, sent: bytes) -> None:
    answer = await sent_to(edge.https, sent)
    assert answer[:6] == bytes([21, 3, 1, 0, 2, 2])
    assert answer[6] in ALERTS
    assert len(answer) == 7
    assert (await edge.see_report()).startswith("no TLS connection: ")
    await edge.see_nobody()
    assert len(edge.reports) == 1


async def test_a_hello_of_64_kib_less_its_last_byte_is_cut_off(edge: Edge) -> None:
    sent = hello(extension(0x1234, bytes(65_000)), extension(0x1235, b""))
    assert len(sent) > 65_000
    async with await connect(edge.https) as visitor:
        await visitor.send_all(sent[:-1])
        await visitor.send_eof()
        assert await receive_all(visitor) == b""
    assert "middle of its ClientHello" in await edge.see_report()
    await edge.see_nobody()


@pytest.mark.parametrize("size", [1, 3, 5, 9, 90])
@pytest.mark.parametrize("leave", ["by an end", "by a reset"])
async def test_whoever_leaves_in_the_middle_of_a_hello_is_a_line_in_the_log(edge: Edge, size: int, leave: str) -> None:
    visitor = await connect(edge.https)
    await visitor.send_all(HELLO[:size])
    await edge.see_visitors(1)
    await trio.testing.wait_all_tasks_blocked(0.01)  # It has been read.
    if leave == "by a reset":
        reset(visitor)
    else:
        await visitor.aclose()
    assert (await edge.see_report()).startswith("no TLS connection: ")
    await edge.see_nobody()


@pytest.mark.parametrize("leave", ["by an end", "by a reset"])
async def test_whoever_says_nothing_at_all_is_no_news(edge: Edge, leave: str) -> None:
    visitor = await connect(edge.https)
    await edge.see_visitors(1)
    if leave == "by a reset":
        reset(visitor)
    else:
        await visitor.aclose()
    await edge.see_nobody()
    assert edge.reports == []


def mistrusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context()


def believing(authority: Authority) -> ssl.SSLContext:
    return authority.client_context()


REFUSALS: dict[str, tuple[Callable[[Authority], ssl.SSLContext], str, str, str]] = {
    "an authority that it does not know": (mistrusting, NAME, "unable to get local issuer", "unknown ca"),
    "a certificate for another name": (
        believing,
        f"a.b.{DOMAIN}",
        "Hostname mismatch",
        "bad certificate",
    ),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_visitor_who_does_not_believe_the_certificate_says_why(
    edge: Edge, reason: str, version: ssl.TLSVersion
) -> None:
    make_context, name, theirs, ours = REFUSALS[reason]
    context = make_context(edge.authority)
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLCertVerificationError, match=theirs):
        await connect_tls(edge.https, context, name)
    assert await edge.see_report() == f"no TLS connection: the other side said: {ours}"
    await edge.see_nobody()


async def test_an_expired_certificate_is_shown_and_the_visitor_says_so(
    start_edge: StartEdge, authority: Authority
) -> None:
    edge = await start_edge(certificates=(authority.certify(NAME, ends=in_days(-2)),))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await connect_tls(edge.https, edge.context)
    assert await edge.see_report() == "no TLS connection: the other side said: certificate expired"
    await edge.see_nobody()


@pytest.mark.parametrize("end", ["an end", "a reset", "garbage", "an alert"])
async def test_a_handshake_that_stops_half_way_is_a_line_in_the_log(edge: Edge, end: str) -> None:
    sock = await connect(edge.https)
    visitor = TlsVisitor(sock, edge.context, NAME)
    await sock.send_all(visitor.hello())
    await sock.receive_some(1)  # It has answered.
    match end:
        case "an end":
            await sock.aclose()
        case "a reset":
            reset(sock)
        case "garbage":
            await sock.send_all(bytes([23, 3, 3, 0, 100]) + RANDOM[:100])
        case _:
            await sock.send_all(bytes([21, 3, 3, 0, 2, 2, 42]))
    assert (await edge.see_report()).startswith("no TLS connection: ")
    await sock.aclose()
    await edge.see_nobody()


async def test_garbage_behind_the_handshake_ends_the_connection(edge: Edge) -> None:
    async with tenant(edge.control, "app") as app, edge.visiting() as visitor:
        await Conversation(visitor).ask("/", host=NAME)
        await visitor.sock.send_all(bytes([23, 3, 3, 1, 0]) + RANDOM[:256])
        async for _ in visitor.sock:
            pass
        await edge.see_nobody()
        await app.client.see_no_streams_but_control()


# Time


async def test_a_hello_that_does_not_come_in_time_is_given_up(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 0.1)
    async with await connect(edge.https) as silent, await connect(edge.https) as slow:
        await slow.send_all(HELLO[:50])
        assert await receive_all(silent) == b""
        await receive_all(slow)
    assert "no whole ClientHello within 0.1 seconds" in await edge.see_report()
    await edge.see_nobody()


async def test_a_hello_that_drips_does_not_gain_time(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 0.3)

    async def drip(visitor: trio.SocketStream) -> None:
        try:
            for byte in hello(sni(NAME.encode()), extension(0x1234, bytes(60_000)))[:-1]:
                await visitor.send_all(bytes([byte]))
                await fetch(edge.public, host="none.example")  # Takes a while.
        except trio.BrokenResourceError:
            pass

    async with await connect(edge.https) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(drip, visitor)
        assert "no whole ClientHello" in await edge.see_report()
        nursery.cancel_scope.cancel()
    await edge.see_nobody()


async def test_a_handshake_that_stalls_is_given_up(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 0.1)
    async with await connect(edge.https) as sock:
        await sock.send_all(TlsVisitor(sock, edge.context, NAME).hello())
        assert "the handshake took too long" in await edge.see_report()
        await receive_all(sock)
    await edge.see_nobody()


# Numbers


async def test_connections_that_have_only_arrived_count(start_edge: StartEdge) -> None:
    edge = await start_edge(max_connections=3)
    async with await connect(edge.https) as silent, await connect(edge.https) as slow, edge.visiting():
        await slow.send_all(HELLO[:50])
        await edge.see_visitors(3)
        async with await connect(edge.https) as further:
            assert await receive_all(further) == b""
        answer = parse(await ask(edge.public, b""))
        assert (answer.status, answer.fields["Otun-Error"]) == (503, "server_full")
        await silent.aclose()
        await edge.see_visitors(2)
        async with edge.visiting():
            await edge.see_visitors(3)
    await edge.see_nobody()


@pytest.mark.parametrize("has_hello", [False, True], ids=["no-hello", "bad-handshake"])
async def test_those_who_were_refused_count_until_they_have_left(start_edge: StartEdge, has_hello: bool) -> None:
    edge = await start_edge(max_connections=1)
    async with await connect(edge.https) as refused:
        if has_hello:
            await refused.send_all(TlsVisitor(refused, edge.context, NAME).hello())
            await refused.receive_some(1)
        await refused.send_all(b"\x16\x03\x01\0\0")
        while await refused.receive_some():
            pass
        assert edge.visitors == 1
        async with await connect(edge.https) as further:
            assert await receive_all(further) == b""
    await edge.see_nobody()
    async with edge.visiting():
        await edge.see_visitors(1)


async def test_a_server_that_ends_forgets_nobody(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with (
        tenant(edge.control, "app"),
        await connect(edge.https) as _,
        await connect(edge.https) as half,
        await connect(edge.https) as shaking,
        edge.visiting() as visitor,
    ):
        await half.send_all(HELLO[:50])
        await shaking.send_all(TlsVisitor(shaking, edge.context, NAME).hello())
        await shaking.receive_some(1)
        await Conversation(visitor).ask("/", host=NAME)
        await edge.see_visitors(4)
        await edge.server.stop()
        assert edge.visitors == 0
    assert edge.reports == []


async def test_a_flood_does_not_fill_the_log(edge: Edge) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(LINES_AT_ONCE + 50):
            nursery.start_soon(sent_to, edge.https, b"GET / HTTP/1.0\r\n\r\n")
    await edge.see_nobody()
    assert LINES_AT_ONCE <= len(edge.reports) < LINES_AT_ONCE + 50


def test_what_was_left_out_of_the_log_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    now = 0.0
    reports = Reports(lambda: now, called="visitor")
    visitor = TcpAddress("192.0.2.1", 5)
    for number in range(LINES_AT_ONCE + 70):
        reports.add(visitor, f"{number}")
    assert len(caplog.records) == LINES_AT_ONCE
    now = 1.0
    for _ in range(100):
        reports.add(visitor, "later")
    lines = [record.getMessage() for record in caplog.records[LINES_AT_ONCE:]]
    assert lines[0] == "70 lines about a visitor were left out"
    assert lines[1:] == ["visitor 192.0.2.1:5: later"] * LINES_PER_SECOND
    now = 1e9
    caplog.clear()
    for _ in range(LINES_AT_ONCE * 2):
        reports.add(visitor, "much later")
    assert len(caplog.records) == LINES_AT_ONCE + 1
