"""Raw TCP tunnels, several tunnels over one session, and the header at the beginning of each stream."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio

from otun import (
    RegistrationRefused,
    SessionClosed,
    Stream,
    TcpAddress,
    Tunnel,
    TunnelSettings,
    forward,
    open_session,
    open_tunnel,
    open_tunnels,
)
from otun.proxy_protocol import TUNNEL_ID, ProxyHeader, ProxyHeaderReader

from .conversation import conversation, tenant
from .harness import RunningServer
from .raw_client import raw_client
from .services import address_of, answering, receive_all, response
from .visitors import ask, connect, fetch, receive_exactly, receive_until_reset, request, reset


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has, below those that the system gives to clients."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


@attrs.frozen
class Place:
    """A server with ports for TCP tunnels."""

    server: RunningServer
    ports: list[int]

    @property
    def control(self) -> TcpAddress:
        return self.server.control

    @property
    def public(self) -> TcpAddress:
        return self.server.public


@pytest.fixture
async def place(start_server) -> Place:
    """A server with four of them."""
    ports = free_ports(4)
    return Place(await start_server(tcp_ports=tuple(range(port, port + 1) for port in ports)), ports)


def at(port: int) -> TcpAddress:
    return TcpAddress("127.0.0.1", port)


def port_of(tunnel: Tunnel) -> int:
    """The port that a tunnel's URL names."""
    scheme, _, rest = tunnel.url.partition("://")
    assert scheme == "tcp"
    return int(rest.rpartition(":")[2])


def tcp(port: int | None = None, **changes: object) -> TunnelSettings:
    return TunnelSettings(kind="tcp", remote_port=port, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def forwarding(place: Place, local: TcpAddress, settings: TunnelSettings, **options: object):
    """Forward as a client does, until the body ends."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(forward, place.control, local, settings, **options))
        nursery.cancel_scope.cancel()


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Send everything back, and the end."""
    async for piece in stream:
        await stream.send_all(piece)
    await stream.send_eof()


async def converse(address: TcpAddress, sent: bytes) -> bytes:
    """Send *sent* and the end, and receive until the other side's."""

    async def send() -> None:
        await visitor.send_all(sent)
        await visitor.send_eof()

    async with await connect(address) as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        return await receive_all(visitor)


# Ports


async def test_a_tunnel_gets_the_port_that_it_asks_for(place: Place, start_service) -> None:
    service = await start_service(echo)
    port = place.ports[2]
    async with forwarding(place, service.address, tcp(port)) as tunnel:
        assert tunnel.url == f"tcp://127.0.0.1:{port}"
        assert tunnel.name == f"tcp-{port}"
        assert await converse(at(port), b"hello") == b"hello"


async def test_a_tunnel_that_asks_for_none_gets_any_until_there_is_none(place: Place) -> None:
    async with AsyncExitStack() as stack:
        tunnels = [await stack.enter_async_context(open_tunnel(place.control, tcp())) for _ in place.ports]
        assert sorted(map(port_of, tunnels)) == place.ports
        with pytest.raises(RegistrationRefused) as caught:
            async with open_tunnel(place.control, tcp()):
                pass
        assert (caught.value.code, caught.value.is_retryable) == ("no_port_free", True)


async def test_the_url_names_the_domain_if_there_is_one(start_server) -> None:
    (port,) = free_ports(1)
    server = await start_server(tcp_ports=(range(port, port + 1),), domain="tunnel.example")
    async with open_tunnel(server.control, tcp(name="ssh")) as tunnel:
        assert tunnel.url == f"tcp://tunnel.example:{port}"
        assert tunnel.name == "ssh"


async def refusal(place: Place | RunningServer, **fields: object) -> tuple[object, object]:
    async with raw_client(place.control) as client:
        answer = await client.register(**({"kind": "tcp"} | fields))
        assert answer["type"] == "error", answer
        return answer["code"], answer.get("retryable", False)


@pytest.mark.parametrize("wanted", [0, -1, 1, 22, 65536, 10**9, "outside"])
async def test_a_port_outside_the_ranges_is_refused(place: Place, wanted: int | str) -> None:
    if wanted == "outside":
        wanted = place.ports[-1] + 1
    assert await refusal(place, remote_port=wanted) == ("port_not_allowed", False)


async def test_a_server_without_ports_refuses_tcp_tunnels(start_server) -> None:
    server = await start_server(tcp_ports=())
    assert await refusal(server) == ("port_not_allowed", False)
    assert await refusal(server, remote_port=20_000) == ("port_not_allowed", False)


async def test_a_port_that_another_tunnel_has_is_taken(place: Place) -> None:
    port = place.ports[0]
    async with open_tunnel(place.control, tcp(port)):
        assert await refusal(place, remote_port=port) == ("port_taken", True)


async def test_a_port_that_another_program_has_is_taken_and_left_out(place: Place) -> None:
    with socket.create_server(("127.0.0.1", place.ports[0])):
        assert await refusal(place, remote_port=place.ports[0]) == ("port_taken", True)
        async with AsyncExitStack() as stack:
            tunnels = [await stack.enter_async_context(open_tunnel(place.control, tcp())) for _ in place.ports[1:]]
            assert sorted(map(port_of, tunnels)) == place.ports[1:]
            assert await refusal(place) == ("no_port_free", True)


async def test_a_port_is_free_again_when_its_client_has_gone(place: Place) -> None:
    for _ in range(3):
        answer: dict[str, object] = {"code": "port_taken"}
        while answer.get("code") == "port_taken":  # Until the server has seen the last one go.
            async with raw_client(place.control) as client:
                answer = await client.register(kind="tcp", remote_port=place.ports[0])
        assert answer["type"] == "registered"


async def test_nobody_listens_on_the_port_of_a_client_that_has_gone(place: Place) -> None:
    port = place.ports[0]
    async with open_tunnel(place.control, tcp(port)), await connect(at(port)):
        pass
    while True:
        try:
            async with await connect(at(port)):
                pass
        except OSError:
            break


async def test_an_unknown_kind_is_refused(place: Place) -> None:
    assert await refusal(place, kind="udp") == ("kind_unknown", False)


@pytest.mark.parametrize("name", ["a_b", "x" * 64, "\x1b[2J", "a.b", "-"])
async def test_a_name_is_a_name_for_tcp_tunnels_too(place: Place, name: str) -> None:
    assert await refusal(place, subdomain=name) == ("name_invalid", False)


async def test_a_token_is_asked_for(start_server) -> None:
    (port,) = free_ports(1)
    server = await start_server(tcp_ports=(range(port, port + 1),), tokens=frozenset(("t",)))
    assert await refusal(server) == ("bad_token", False)
    async with open_tunnel(server.control, tcp(), token="t") as tunnel:
        assert port_of(tunnel) == port


# Bytes


async def test_bytes_pass_in_both_directions_and_each_ends_by_itself(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        received = await receive_all(connection)  # The visitor's end comes first …
        await connection.send_all(b"%d bytes" % len(received))  # … and then the answer.
        await connection.send_eof()

    service = await start_service(serve)
    async with (
        forwarding(place, service.address, tcp(place.ports[0])),
        await connect(at(place.ports[0])) as visitor,
    ):
        await visitor.send_all(bytes(range(256)) * 1000)
        await visitor.send_eof()
        assert await receive_all(visitor) == b"256000 bytes"


async def test_a_service_may_finish_before_its_visitor(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        await connection.send_all(b"bye")
        await connection.send_eof()
        received.append(await receive_all(connection))
        has_received.set()

    received: list[bytes] = []
    has_received = trio.Event()
    service = await start_service(serve)
    async with (
        forwarding(place, service.address, tcp(place.ports[0])),
        await connect(at(place.ports[0])) as visitor,
    ):
        assert await receive_all(visitor) == b"bye"
        await visitor.send_all(b"still there")
        await visitor.send_eof()
        await has_received.wait()
        assert received == [b"still there"]


async def test_a_service_may_speak_first(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        await connection.send_all(b"220 ready\r\n")
        await echo(connection)

    service = await start_service(serve)
    async with (
        forwarding(place, service.address, tcp(place.ports[0])),
        await connect(at(place.ports[0])) as visitor,
    ):
        assert await receive_exactly(visitor, 11) == b"220 ready\r\n"
        await visitor.send_all(b"\0\xff")
        assert await receive_exactly(visitor, 2) == b"\0\xff"


async def test_what_looks_like_http_is_bytes_like_any_other(place: Place, start_service) -> None:
    service = await start_service(echo)
    sent = request("/", "X-Forwarded-For: 6.6.6.6", "Connection: Host", host="other.localhost") + b"PROXY TCP4 x\r\n"
    exchanges: list[object] = []
    async with forwarding(place, service.address, tcp(place.ports[0]), on_exchange=exchanges.append):
        assert await converse(at(place.ports[0]), sent) == sent
    assert not exchanges


async def test_much_comes_through_whole(place: Place, start_service) -> None:
    service = await start_service(echo)
    sent = random.Random(1).randbytes(5_000_000)
    async with forwarding(place, service.address, tcp(place.ports[0])):
        assert await converse(at(place.ports[0]), sent) == sent


async def test_a_service_that_cannot_be_reached_resets_the_visitor(place: Place, nobody_listens: TcpAddress) -> None:
    async with (
        forwarding(place, nobody_listens, tcp(place.ports[0])),
        await connect(at(place.ports[0])) as visitor,
    ):
        assert await receive_until_reset(visitor) == b""


async def test_a_service_that_resets_resets_the_visitor(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        await receive_exactly(connection, 5)
        reset(connection)

    service = await start_service(serve)
    async with (
        forwarding(place, service.address, tcp(place.ports[0])),
        await connect(at(place.ports[0])) as visitor,
    ):
        await visitor.send_all(b"hello")
        assert await receive_until_reset(visitor) == b""


async def test_a_visitor_that_resets_resets_the_service(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        await connection.send_all(b"hello")
        with pytest.raises(trio.BrokenResourceError):
            await receive_all(connection)
        has_ended.set()

    has_ended = trio.Event()
    service = await start_service(serve)
    async with forwarding(place, service.address, tcp(place.ports[0])):
        visitor = await connect(at(place.ports[0]))
        await receive_exactly(visitor, 5)
        reset(visitor)
        await has_ended.wait()


@pytest.mark.parametrize("how", ["leaves", "vanishes"])
async def test_visitors_end_with_the_session(place: Place, how: str) -> None:
    async with AsyncExitStack() as outer, AsyncExitStack() as stack:
        client = await stack.enter_async_context(raw_client(place.control))
        await client.register(kind="tcp", remote_port=place.ports[0])
        visitor = await outer.enter_async_context(await connect(at(place.ports[0])))
        stream = await client.session.accept()
        await stream.send_all(b"hello")
        assert await receive_exactly(visitor, 5) == b"hello"
        if how == "vanishes":
            await client.vanish()
        else:
            await stack.aclose()
        assert await receive_until_reset(visitor) == b""


async def test_visitors_end_with_the_server(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register(kind="tcp", remote_port=place.ports[0])
        async with await connect(at(place.ports[0])) as visitor:
            await client.session.accept()
            await place.server.stop()
            assert await receive_until_reset(visitor) == b""
        with pytest.raises(OSError, match=r"."):
            await connect(at(place.ports[0]))


async def test_no_more_visitors_than_max_streams_are_taken_and_places_are_freed(start_server) -> None:
    (port,) = free_ports(1)
    server = await start_server(tcp_ports=(range(port, port + 1),), max_streams=2)
    async with raw_client(server.control) as client:
        await client.register(kind="tcp")
        visitors = [await connect(at(port)) for _ in range(2)]
        streams = [await client.session.accept() for _ in visitors]
        async with await connect(at(port)) as third:
            with suppress(trio.BrokenResourceError):
                assert await third.receive_some() == b""
        reset(visitors[0])
        with pytest.raises(trio.BrokenResourceError):
            await streams[0].receive_some()
        async with await connect(at(port)) as fourth:
            stream = await client.session.accept()
            await stream.send_all(b"hello")
            assert await receive_exactly(fourth, 5) == b"hello"
        await visitors[1].aclose()


async def test_a_tcp_tunnel_is_not_reached_over_http(place: Place, start_service) -> None:
    service = await start_service(answering(b"tcp"))
    async with forwarding(place, service.address, tcp(place.ports[0], name="app")):
        assert (await fetch(place.public)).fields["Otun-Error"] == "no_tunnel_yet"
        async with tenant(place.control, "app"):
            assert (await fetch(place.public)).text == "app 1 /"


# Several tunnels over one session


async def test_http_and_tcp_tunnels_share_a_session(place: Place) -> None:
    async def answer_with(text: bytes, stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(text)

    wanted = [TunnelSettings(name="app"), tcp(place.ports[0]), TunnelSettings(name="other"), tcp(place.ports[1])]
    async with open_tunnels(place.control, wanted) as tunnels, trio.open_nursery() as nursery:
        for number, tunnel in enumerate(tunnels):
            text = b"%d" % number if tunnel.url.startswith("tcp:") else response(b"%d" % number)
            nursery.start_soon(tunnel.serve, partial(answer_with, text))
        assert [tunnel.name for tunnel in tunnels] == ["app", f"tcp-{place.ports[0]}", "other", f"tcp-{place.ports[1]}"]
        for _ in range(3):
            assert (await fetch(place.public)).text == "0"
            assert await ask(at(place.ports[0]), b"?") == b"1"
            assert (await fetch(place.public, host="other.localhost")).text == "2"
            assert await ask(at(place.ports[1]), b"?") == b"3"
        nursery.cancel_scope.cancel()


async def test_a_further_tunnel_that_is_refused_ends_them_all_and_nobody_elses(place: Place) -> None:
    async with tenant(place.control, "app"):
        with pytest.raises(RegistrationRefused) as caught:
            async with open_tunnels(place.control, [TunnelSettings(name="first"), TunnelSettings(name="app")]):
                pytest.fail("they are not all open")
        assert (caught.value.code, caught.value.is_retryable) == ("name_taken", True)
        assert "app" in str(caught.value)
        while (await fetch(place.public, host="first.localhost")).status != 404:
            pass
        assert (await fetch(place.public)).text == "app 1 /"


async def test_sixty_four_tunnels_are_taken_and_no_more(place: Place) -> None:
    settings = [TunnelSettings(name=f"t{number}") for number in range(65)]
    async with open_tunnels(place.control, settings[:64]) as tunnels:
        assert [tunnel.name for tunnel in tunnels] == [f"t{number}" for number in range(64)]
    while (await fetch(place.public, host="t63.localhost")).status != 404:
        pass
    with pytest.raises(RegistrationRefused) as caught:
        async with open_tunnels(place.control, settings):
            pass
    assert caught.value.code == "too_many_tunnels"


async def test_a_client_that_asks_for_too_many_keeps_those_that_it_has(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register("t0")
        for number in range(1, 64):
            assert (await client.register(f"t{number}", id=str(number)))["type"] == "registered"
        answer = await client.register("t64", id="64")
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "too_many_tunnels", "64")
        await client.say({"type": "heartbeat"})
        assert (await client.hear())["type"] == "heartbeat_ack"


async def test_refused_tunnels_do_not_count(place: Place) -> None:
    async with tenant(place.control, "app"), raw_client(place.control) as client:
        await client.register("first")
        for number in range(70):
            answer = await client.register("app", id=f"try {number}")
            assert answer["code"] == "name_taken", number
        assert (await client.register("second", id="try 70"))["type"] == "registered"


async def test_a_refused_tunnel_may_be_asked_for_again_under_its_id(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register("first")
        async with tenant(place.control, "app"):
            assert (await client.register("app", id="2"))["code"] == "name_taken"
        while (await client.register("app", id="2"))["type"] != "registered":
            pass


@pytest.mark.parametrize("fields", [{}, {"id": ""}, {"id": "1"}], ids=["none", "empty", "used"])
async def test_a_further_registration_without_an_id_of_its_own_ends_the_session(
    place: Place, fields: dict[str, object]
) -> None:
    async with tenant(place.control, "other"), raw_client(place.control) as client:
        await client.register("app", id="1")
        await client.say({"type": "register", "subdomain": "second", **fields})
        assert (await client.hear_farewell())["code"] == "bad_message"
        assert (await fetch(place.public, host="other.localhost")).status == 200


async def test_each_tunnel_shows_its_token(start_server) -> None:
    server = await start_server(tokens=frozenset(("t",)))
    async with raw_client(server.control) as client:
        assert (await client.register("app", token="t"))["type"] == "registered"
        answer = await client.register("second", id="2")
        assert (answer["code"], answer["id"]) == ("bad_token", "2")


async def test_an_id_that_no_header_has_room_for_is_refused(place: Place) -> None:
    async with tenant(place.control, "other"), raw_client(place.control) as client:
        answer = await client.register("app", id="x" * 65_000, stream_header=True)
        assert answer["type"] == "error"
    assert (await fetch(place.public, host="app.localhost")).status == 404


# The header at the beginning of each stream


async def read_stream_header(stream: Stream) -> tuple[ProxyHeader, bytes]:
    reader = ProxyHeaderReader(is_v1_allowed=False)
    while True:
        piece = await stream.receive_some()
        assert piece
        header = reader.feed(piece)
        if header is not None:
            return header, reader.rest


async def test_a_client_that_knows_no_stream_header_gets_none(place: Place) -> None:
    """So do clients in Go, and those of earlier versions."""
    async with raw_client(place.control) as client:
        answer = await client.register("app")
        assert not answer.get("stream_header")
        async with await connect(place.public) as visitor:
            await visitor.send_all(request("/x"))
            stream = await client.session.accept()
            assert (await stream.receive_some()).startswith(b"GET /x HTTP/1.1\r\n")


async def test_nor_does_one_with_a_tcp_tunnel(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register(kind="tcp", remote_port=place.ports[0])
        async with await connect(at(place.ports[0])) as visitor:
            await visitor.send_all(b"hello")
            assert await receive_exactly(await client.session.accept(), 5) == b"hello"


async def test_the_answer_to_a_client_without_new_fields_has_what_it_knows(place: Place) -> None:
    async with raw_client(place.control) as client:
        answer = await client.register("app")
        assert (answer["type"], answer["subdomain"]) == ("registered", "app")
        assert str(answer["url"]).startswith("http://app.localhost:")


@pytest.mark.parametrize("tunnel_id", ["", "2", "bücher"])
async def test_a_stream_of_http_begins_with_the_visitors_address_and_the_tunnels_id(
    place: Place, tunnel_id: str
) -> None:
    async with raw_client(place.control) as client:
        answer = await client.register("app", id=tunnel_id, stream_header=True)
        assert answer["stream_header"] is True
        assert answer.get("id", "") == tunnel_id
        async with await connect(place.public) as visitor:
            await visitor.send_all(request("/x"))
            header, rest = await read_stream_header(await client.session.accept())
            assert header.source == address_of(visitor.socket)
            assert header.destination == place.public
            assert header.tlv(TUNNEL_ID) == tunnel_id.encode()
            assert TUNNEL_ID == 0xE0
            assert rest.startswith(b"GET /x ") or not rest


async def test_a_stream_has_one_header_however_many_requests_pass(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register("app", stream_header=True)
        async with conversation(place.public) as visitor:
            await visitor.send("/1")
            stream = await client.session.accept()
            _, rest = await read_stream_header(stream)
            await receive_exactly_behind(stream, rest, b"/1")
            await stream.send_all(response(b"1"))
            await visitor.receive()
            await visitor.send("/2")
            assert (await stream.receive_some()).startswith(b"GET /2 ")


async def receive_exactly_behind(stream: Stream, rest: bytes, target: bytes) -> None:
    """Receive a request's head, which *rest* is the beginning of."""
    while b"\r\n\r\n" not in rest:
        rest += await stream.receive_some()
    assert rest.startswith(b"GET " + target)


async def test_a_stream_of_a_tcp_tunnel_has_one_too(place: Place) -> None:
    async with raw_client(place.control) as client:
        await client.register("http", stream_header=True)
        await client.register(kind="tcp", remote_port=place.ports[0], id="ssh", stream_header=True)
        async with await connect(at(place.ports[0])) as visitor:
            header, _ = await read_stream_header(await client.session.accept())
            assert header.source == address_of(visitor.socket)
            assert header.destination == at(place.ports[0])
            assert header.tlv(TUNNEL_ID) == b"ssh"


async def test_accept_tells_the_visitors_address(place: Place) -> None:
    async with open_tunnels(place.control, [TunnelSettings(name="app"), tcp(place.ports[0])]) as (app, raw):
        async with await connect(place.public) as visitor:
            await visitor.send_all(request("/x"))
            async with await app.accept() as stream:
                assert stream.visitor == address_of(visitor.socket)
                assert (await stream.receive_some()).startswith(b"GET /x ")
        async with await connect(at(place.ports[0])) as visitor, await raw.accept() as stream:
            assert stream.visitor == address_of(visitor.socket)


async def test_a_tcp_service_is_told_the_visitors_address(place: Place, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        received = await receive_all(connection)
        await connection.send_all(received)
        await connection.send_eof()

    service = await start_service(serve)
    settings = tcp(place.ports[0])
    async with (
        forwarding(place, service.address, settings, proxy_protocol=True),
        await connect(at(place.ports[0])) as visitor,
    ):
        await visitor.send_all(b"hello")
        await visitor.send_eof()
        reader = ProxyHeaderReader(is_v1_allowed=False)
        header = reader.feed(await receive_all(visitor))
        assert header == ProxyHeader(address_of(visitor.socket), at(place.ports[0]))
        assert reader.rest == b"hello"


# Servers of earlier versions, and bad ones


@asynccontextmanager
async def old_server(start_service, *answers: bytes) -> AsyncIterator[TcpAddress]:
    """A server that answers registrations with *answers*, one after the other, and then opens a stream."""

    async def serve(connection: trio.SocketStream) -> None:
        with suppress(SessionClosed):
            async with open_session(connection, "server") as session:
                control = await session.accept()
                for answer in answers:
                    await control.receive_some()
                    await control.send_all(answer)
                async with await session.open_stream() as stream:
                    await stream.send_all(b"hello")
                    await session.wait_closed()

    yield (await start_service(serve)).address


GRANTED = b'{"type":"registered","url":"http://app.example","subdomain":"app"}\n'


async def test_a_server_that_knows_no_stream_header_takes_one_tunnel_and_the_client_says_so(
    engine, start_service
) -> None:
    async with old_server(start_service, GRANTED) as address:
        with pytest.raises(RegistrationRefused, match="takes one tunnel for each client"):
            async with open_tunnels(address, [TunnelSettings(name="app"), TunnelSettings(name="second")]):
                pass


async def test_one_tunnel_on_such_a_server_works(engine, start_service) -> None:
    async with (
        old_server(start_service, GRANTED) as address,
        open_tunnel(address, name="app") as tunnel,
        await tunnel.accept() as stream,
    ):
        assert stream.visitor is None
        assert await receive_exactly(stream, 5) == b"hello"


async def test_a_stream_whose_header_is_bad_is_refused_and_the_tunnel_goes_on(engine, start_service) -> None:
    async def serve(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(GRANTED.replace(b"}", b',"stream_header":true}'))
            for sent in (b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", header + b"hello"):
                stream = await session.open_stream()
                await stream.send_all(sent)
                streams.append(stream)
            for stream in streams[:2]:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            await session.wait_closed()

    streams: list[Stream] = []
    header = bytes.fromhex("0d0a0d0a000d0a515549540a2111000f 01020304 05060708 0001 0002 e00000")
    service = await start_service(serve)
    async with open_tunnel(service.address, name="app") as tunnel:
        stream = await tunnel.accept()
        assert stream.visitor == TcpAddress("1.2.3.4", 1)
        assert await receive_exactly(stream, 5) == b"hello"
