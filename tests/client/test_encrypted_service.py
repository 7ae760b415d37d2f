"""A local service that speaks TLS itself: `otun http https://localhost:8443`."""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from otun import ConfigurationError, Exchange, TcpAddress, Tunnel, TunnelSettings
from otun.addresses import LocalTarget
from otun.tls.fingerprints import Fingerprint
from otun.tls.self_made import own_certificate
from otun.tls.trust import Trust

from ..server.certificates import TlsVisitor
from ..server.conversation import conversation, receive_request
from ..server.harness import RunningServer
from ..server.services import Asked, Handler, Service, receive_all, receive_head, response
from ..server.services import start_service as start_service_in
from ..server.visitors import (
    Answer,
    Responses,
    ask,
    connect,
    fetch,
    parse,
    receive_exactly,
    receive_until_reset,
    request,
    reset,
)
from ..tls.issuing import Authority, in_days
from .support import MIB, Names, blocks, digest_of, forward_until_end, receive_digest


@attrs.define(eq=False)
class Log:
    """What the request log says."""

    exchanges: list[Exchange] = attrs.field(factory=list)

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


@attrs.frozen
class Place:
    """A server, and a tunnel to a service that speaks TLS."""

    server: RunningServer
    service: Service
    tunnel: Tunnel
    log: Log

    @property
    def public(self) -> TcpAddress:
        return self.server.public


Open = Callable[..., Awaitable[Place]]


@pytest.fixture
def encrypted(server: RunningServer, authority: Authority, nursery: trio.Nursery) -> Open:
    """Start a service that speaks TLS, and says goodbye when its handler is done, and a tunnel to it."""

    async def start(
        handler: Handler,
        *names: str,
        trust: Trust | None = None,
        context: ssl.SSLContext | None = None,
        host: str = "localhost",
        settings: TunnelSettings | None = None,
        **options: object,
    ) -> Place:
        shown = context or authority.server_context(*(names or ("localhost", "127.0.0.1")))

        async def handle(connection: trio.abc.HalfCloseableStream) -> None:
            stream = TlsVisitor(connection, shown, is_server=True)
            with suppress(trio.BrokenResourceError, ssl.SSLError):
                await stream.shake_hands()
                await handler(stream)
                await stream.send_eof()

        service = await start_service_in(nursery, handle)
        log = Log()
        tunnel = await nursery.start(
            partial(
                forward_until_end,
                server.control,
                LocalTarget(TcpAddress(host, service.address.port), is_encrypted=True),
                settings=settings or TunnelSettings(name="app"),
                local_trust=trust or Trust(ca=authority.path),
                on_exchange=log,
                **options,
            )
        )
        return Place(server, service, tunnel, log)

    return start


async def greet(stream: trio.abc.HalfCloseableStream) -> None:
    """Answer request after request with its target, and what has come with it."""
    rest = b""
    while True:
        head, body, rest = await receive_request(stream, rest)
        if not head:
            return
        await stream.send_all(response(head.split(b" ")[1] + b" " + body, f"X-Host: {Asked.of(head).fields['host']}"))


def check_refused(answer: Answer, place: Place, *words: str, status: int = 502) -> None:
    assert (answer.status, answer.fields["Otun-Error"]) == (status, "local_service_unreachable")
    assert f"https://localhost:{place.service.address.port}" in answer.text
    for word in words:
        assert word in answer.text, answer.text


# Those that are believed


async def test_a_service_whose_authority_is_given_is_reached(encrypted: Open) -> None:
    place = await encrypted(greet)
    assert (await fetch(place.public, "/x")).text == "/x "
    assert (await fetch(place.public, "/y", method="POST", body=b"abc")).text == "/y abc"
    async with conversation(place.public) as visitor:
        for number in range(5):
            assert (await visitor.ask(f"/{number}")).text == f"/{number} "
    assert [(one.target, one.status) for one in place.log.exchanges][:2] == [("/x", 200), ("/y", 200)]


async def test_an_address_is_checked_like_a_name(encrypted: Open) -> None:
    place = await encrypted(greet, "127.0.0.1", host="127.0.0.1")
    assert (await fetch(place.public, "/x")).text == "/x "


async def test_the_service_is_asked_for_its_name_and_for_http(encrypted: Open, authority: Authority) -> None:
    context = authority.server_context("box.home")
    context.set_alpn_protocols(["h2", "http/1.1"])
    asked: list[str | None] = []
    context.sni_callback = lambda _stream, name, _context: asked.append(name)
    Names(**{"box.home": ["127.0.0.1"]})
    place = await encrypted(greet, context=context, host="box.home")
    assert (await fetch(place.public, "/x")).text == "/x "
    assert asked == ["box.home"]


async def test_a_name_without_a_dot_at_its_end_is_checked(encrypted: Open) -> None:
    Names(**{"box.home.": ["127.0.0.1"]})
    place = await encrypted(greet, "box.home", host="box.home.")
    assert (await fetch(place.public, "/x")).text == "/x "


async def test_any_certificate_will_do_when_that_is_said(encrypted: Open, tmp_path: Path) -> None:
    place = await encrypted(
        greet, context=Authority(tmp_path).server_context("other.example", ends=in_days(-1)), trust=Trust(is_blind=True)
    )
    assert (await fetch(place.public, "/x")).text == "/x "


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_are_spoken(encrypted: Open, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.server_context("localhost")
    context.minimum_version = context.maximum_version = version
    place = await encrypted(greet, context=context)
    assert (await fetch(place.public, "/x")).text == "/x "


async def test_the_host_can_be_that_of_the_service(encrypted: Open) -> None:
    place = await encrypted(greet, settings=TunnelSettings(name="app", host_header="localhost:8443"))
    answer = await fetch(place.public, "/x")
    assert answer.fields["X-Host"] == "localhost:8443"


async def test_a_header_of_the_proxy_protocol_comes_before_tls(
    server: RunningServer, authority: Authority, nursery: trio.Nursery
) -> None:
    context = authority.server_context("localhost")
    seen: list[bytes] = []

    async def handle(connection: trio.abc.HalfCloseableStream) -> None:
        start = await receive_exactly(connection, 16)
        seen.append(start + await receive_exactly(connection, int.from_bytes(start[14:])))
        stream = TlsVisitor(connection, context, is_server=True)
        await stream.shake_hands()
        await greet(stream)

    service = await start_service_in(nursery, handle)
    local = LocalTarget(TcpAddress("localhost", service.address.port), is_encrypted=True)
    await nursery.start(
        partial(
            forward_until_end,
            server.control,
            local,
            name="app",
            local_trust=Trust(ca=authority.path),
            proxy_protocol=True,
        )
    )
    assert (await fetch(server.public, "/x")).text == "/x "
    assert seen[0].startswith(b"\r\n\r\n\0\r\nQUIT\n")


# Those that are not


async def test_a_service_of_an_unknown_authority_is_refused_with_a_hint(encrypted: Open, tmp_path: Path) -> None:
    reached: list[bytes] = []

    async def note(stream: trio.abc.HalfCloseableStream) -> None:
        reached.append(await stream.receive_some())

    place = await encrypted(note, context=Authority(tmp_path).server_context("localhost"))
    check_refused(await fetch(place.public, "/secret"), place, "certificate", "issuer", "--local-ca")
    assert not reached
    ((target, status, problem),) = [(one.target, one.status, one.problem) for one in place.log.exchanges]
    assert (target, status) == ("/secret", 502)
    assert "--local-ca" in problem


def self_signed(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate(folder, "localhost").certificate)
    return context


async def test_a_self_signed_service_is_refused_with_a_hint(encrypted: Open, tmp_path: Path) -> None:
    place = await encrypted(greet, context=self_signed(tmp_path))
    check_refused(await fetch(place.public), place, "self-signed", "--local-ca")


async def test_a_self_signed_service_is_believed_when_its_own_certificate_is_given(
    encrypted: Open, tmp_path: Path
) -> None:
    context = self_signed(tmp_path)
    place = await encrypted(greet, context=context, trust=Trust(ca=tmp_path / "control.pem"))
    assert (await fetch(place.public, "/x")).text == "/x "


async def test_a_service_may_be_known_by_its_fingerprint(encrypted: Open, tmp_path: Path) -> None:
    context = self_signed(tmp_path)
    text = (tmp_path / "control.pem").read_text()
    shown = Fingerprint.of(ssl.PEM_cert_to_DER_cert(text[text.index(ssl.PEM_HEADER) :]))
    right, wrong = (Trust(fingerprint=one) for one in (shown, Fingerprint(bytes(32))))
    place = await encrypted(greet, context=context, trust=right)
    assert (await fetch(place.public, "/x")).text == "/x "
    other = await encrypted(greet, context=context, trust=wrong, settings=TunnelSettings(name="other"))
    check_refused(await fetch(other.public, host="other.localhost"), other, "fingerprint")


async def test_without_an_authority_those_of_the_system_count(encrypted: Open) -> None:
    place = await encrypted(greet, trust=Trust())
    check_refused(await fetch(place.public), place, "--local-ca")


async def test_a_certificate_for_another_name_is_refused(encrypted: Open) -> None:
    place = await encrypted(greet, "other.example")
    check_refused(await fetch(place.public), place, "localhost", "not valid for", "--local-ca")


async def test_the_hint_is_there_however_long_the_name_is(encrypted: Open) -> None:
    host = f"{'a' * 60}.{'b' * 60}.home"
    Names(**{host: ["127.0.0.1"]})
    place = await encrypted(greet, "other.example", host=host)
    answer = await fetch(place.public)
    assert answer.status == 502
    assert "--local-ca" in answer.text


async def test_an_expired_certificate_is_refused(encrypted: Open, authority: Authority) -> None:
    place = await encrypted(greet, context=authority.server_context("localhost", ends=in_days(-1)))
    check_refused(await fetch(place.public), place, "expired", "--local-ca")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_a_service_without_a_common_version_is_refused(encrypted: Open, authority: Authority) -> None:
    context = authority.server_context("localhost")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    place = await encrypted(greet, context=context)
    check_refused(await fetch(place.public), place, "the other side said: no common version of TLS")


async def test_a_service_that_wants_a_certificate_says_so(encrypted: Open, authority: Authority) -> None:
    context = authority.server_context("localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    place = await encrypted(greet, context=context)
    check_refused(await fetch(place.public), place, "the other side said: handshake failure")


@pytest.mark.parametrize("authority_file", ["none.pem", "empty.pem"])
async def test_an_authority_that_cannot_be_read_is_an_error_at_once(
    server: RunningServer, tmp_path: Path, authority_file: str
) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=authority_file):
        await forward_until_end(
            server.control,
            "https://localhost:1",
            name="app",
            local_trust=Trust(ca=tmp_path / authority_file),
            task_status=trio.TASK_STATUS_IGNORED,
        )


# Services that do not speak TLS, or not in time


PlainTo = Callable[..., Awaitable[Service]]


@pytest.fixture
def plain(server: RunningServer, authority: Authority, nursery: trio.Nursery) -> PlainTo:
    """Start a service that knows no TLS, and a tunnel that expects it."""

    async def start(handler: Handler) -> Service:
        service = await start_service_in(nursery, handler)
        local = LocalTarget(TcpAddress("localhost", service.address.port), is_encrypted=True)
        trust = Trust(ca=authority.path)
        await nursery.start(partial(forward_until_end, server.control, local, name="app", local_trust=trust))
        return service

    return start


async def test_a_service_that_speaks_http_is_said_not_to_speak_tls(server: RunningServer, plain: PlainTo) -> None:
    async def refuse(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        await stream.send_all(response(b"no", status="400 Bad Request"))
        await stream.send_eof()

    await plain(refuse)
    answer = await fetch(server.public)
    assert answer.status == 502
    assert "does not speak TLS" in answer.text


async def test_a_service_that_closes_at_once_is_502(server: RunningServer, plain: PlainTo) -> None:
    async def leave(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    await plain(leave)
    answer = await fetch(server.public)
    assert (answer.status, answer.fields["Otun-Error"]) == (502, "local_service_unreachable")


async def test_a_service_that_stalls_in_the_handshake_is_504(
    server: RunningServer, plain: PlainTo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.forwarder.LOCAL_CONNECT_TIMEOUT", 0.2)

    async def stall(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_all(stream)  # The client gives up.
        given_up.set()

    given_up = trio.Event()
    await plain(stall)
    answer = await fetch(server.public, method="POST", body=b"x" * 1000)
    assert (answer.status, answer.fields["Otun-Error"]) == (504, "local_service_unreachable")
    assert "no answer within 0.2 seconds" in answer.text
    await given_up.wait()


async def test_a_visitor_who_leaves_during_the_handshake_takes_the_connection_along(
    server: RunningServer, plain: PlainTo
) -> None:
    has_come, has_gone = trio.Event(), trio.Event()

    async def stall(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        has_come.set()
        with suppress(trio.BrokenResourceError):
            await receive_all(stream)
        has_gone.set()

    await plain(stall)
    visitor = await connect(server.public)
    await visitor.send_all(request())
    await has_come.wait()
    reset(visitor)
    await has_gone.wait()


async def test_another_address_is_tried_when_the_first_speaks_no_tls(
    server: RunningServer, authority: Authority, nursery: trio.Nursery, encrypted: Open
) -> None:
    place = await encrypted(greet, "box.home", host="127.0.0.1", trust=Trust(is_blind=True))
    port = place.service.address.port
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.2")

    async def refuse(stream: trio.abc.HalfCloseableStream) -> None:
        await stream.receive_some()
        await stream.send_all(response(b"no", status="400 Bad Request"))

    await start_service_in(nursery, refuse, listener=listeners[0])
    Names(**{"box.home": ["127.0.0.2", "127.0.0.1"]})
    local = LocalTarget(TcpAddress("box.home", port), is_encrypted=True)
    trust = Trust(ca=authority.path)
    await nursery.start(partial(forward_until_end, server.control, local, name="two", local_trust=trust))
    for target in ("/1", "/2"):
        answer = await fetch(server.public, target, host="two.localhost", method="POST", body=b"kept")
        assert answer.text == f"{target} kept"


# What is sent


async def test_what_is_sent_before_the_handshake_is_done_is_not_lost(
    server: RunningServer, authority: Authority, nursery: trio.Nursery
) -> None:
    context = authority.server_context("localhost")
    may_shake = trio.Event()

    async def handle(connection: trio.abc.HalfCloseableStream) -> None:
        await may_shake.wait()
        stream = TlsVisitor(connection, context, is_server=True)
        await stream.shake_hands()
        await greet(stream)

    service = await start_service_in(nursery, handle)
    local = LocalTarget(TcpAddress("localhost", service.address.port), is_encrypted=True)
    trust = Trust(ca=authority.path)
    await nursery.start(partial(forward_until_end, server.control, local, name="app", local_trust=trust))
    body = b"".join(blocks(100_000))
    async with conversation(server.public) as visitor:
        await visitor.send("/x", method="POST", body=body)
        while not service.connections:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.testing.wait_all_tasks_blocked(0.01)
        may_shake.set()
        assert (await visitor.receive()).body == b"/x " + body


async def test_large_bodies_go_both_ways(encrypted: Open) -> None:
    size = 8 * MIB

    async def swap(stream: trio.abc.HalfCloseableStream) -> None:
        _, rest = await receive_head(stream)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                for block in blocks(size, seed=2):
                    await stream.send_all(block)

            nursery.start_soon(send)
            digests.append(await receive_digest(stream, size, rest))
            has_received.set()

    digests: list[str] = []
    has_received = trio.Event()
    place = await encrypted(swap)
    async with await connect(place.public) as visitor, trio.open_nursery() as nursery:

        async def send() -> None:
            await visitor.send_all(request("/", f"Content-Length: {size}", method="POST"))
            for block in blocks(size, seed=1):
                await visitor.send_all(block)

        nursery.start_soon(send)
        _, start = await receive_head(visitor)
        assert await receive_digest(visitor, size, start) == digest_of(size, seed=2)
    await has_received.wait()
    assert digests == [digest_of(size, seed=1)]


async def test_a_service_that_answers_and_closes_first_is_heard(encrypted: Open) -> None:
    async def answer_and_close(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(blocks(MIB)))

    place = await encrypted(answer_and_close)
    for _ in range(3):
        answer = parse(await ask(place.public, request("/", "Connection: close")))
        assert answer.body == b"".join(blocks(MIB))


async def test_an_early_answer_reaches_a_visitor_who_still_sends(encrypted: Open) -> None:
    async def refuse(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_head(stream)
        await stream.send_all(response(b"too much", "Connection: close", status="413 Content Too Large"))
        await receive_all(stream)

    place = await encrypted(refuse)
    async with await connect(place.public) as visitor, trio.open_nursery() as nursery:

        async def upload() -> None:
            with suppress(trio.BrokenResourceError):
                await visitor.send_all(request("/", "Content-Length: 100000000", method="POST"))
                while True:
                    await visitor.send_all(bytes(64 * 1024))

        nursery.start_soon(upload)
        assert (await Responses(visitor).next(method="POST")).status == 413
        nursery.cancel_scope.cancel()


async def test_an_answer_that_is_cut_short_by_the_end_of_the_connection_does_not_look_whole(
    server: RunningServer, authority: Authority, nursery: trio.Nursery
) -> None:
    """Without close_notify anybody could have ended it (RFC 8446, section 6.1)."""
    context = authority.server_context("localhost")

    async def cut(connection: trio.abc.HalfCloseableStream) -> None:
        stream = TlsVisitor(connection, context, is_server=True)
        await stream.shake_hands()
        await receive_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        await stream.aclose()

    service = await start_service_in(nursery, cut)
    local = LocalTarget(TcpAddress("localhost", service.address.port), is_encrypted=True)
    trust = Trust(ca=authority.path)
    await nursery.start(partial(forward_until_end, server.control, local, name="app", local_trust=trust))
    async with await connect(server.public) as visitor:
        await visitor.send_all(request())
        assert b"half of it" in await receive_until_reset(visitor)


async def test_an_upgrade_goes_through(encrypted: Open) -> None:
    async def switch(stream: trio.abc.HalfCloseableStream) -> None:
        await receive_head(stream)
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        async for piece in stream:
            await stream.send_all(piece)

    place = await encrypted(switch)
    async with await connect(place.public) as visitor:
        await visitor.send_all(request("/", "Connection: Upgrade", "Upgrade: echo"))
        head, rest = await receive_head(visitor)
        assert head.startswith(b"HTTP/1.1 101 ")
        data = b"".join(blocks(MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visitor.send_all, data)
            assert rest + await receive_exactly(visitor, len(data) - len(rest)) == data


async def test_many_visitors_each_have_a_connection_of_their_own(encrypted: Open) -> None:
    place = await encrypted(greet)
    async with trio.open_nursery() as nursery:

        async def visit(number: int) -> None:
            assert (await fetch(place.public, f"/{number}")).text == f"/{number} "

        for number in range(30):
            nursery.start_soon(visit, number)
    assert place.service.accepted == 30
