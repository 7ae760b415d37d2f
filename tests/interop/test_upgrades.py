"""Upgrades, accepted and refused, of whatever protocol: what is HTTP and what is not, and no byte too few."""

import random
from typing import Final

import pytest
import trio
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from ..server.services import receive_all, response
from ..server.visitors import request
from .http_peers import LAST_CHUNK, Origin, Visitor, chunk, head
from .support import blocks
from .tenants import Tenants, host

pytestmark = pytest.mark.interop

MIB: Final = 1024 * 1024
EVERY_BYTE: Final = bytes(range(256))
UPGRADE: Final = ("Connection: Upgrade", "Upgrade: something-else")
ACCEPTED: Final = head("HTTP/1.1 101 Switching Protocols", *UPGRADE)


# The handshake


async def test_a_refusal_reaches_the_visitor_and_its_connection_goes_on(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert await origin.receive_body() == b""
            if asked.fields.get("upgrade") is None:
                await origin.send(response(asked.target.encode()))
            else:
                await origin.send(response(b"members only", status="403 Forbidden"))

    await tenants.open("one", serve)
    await tenants.open("two", serve)
    async with tenants.visit() as visitor:
        for turn, name in enumerate(("one", "two", "one")):
            protocol = ClientProtocol(parse_uri(f"ws://{host(name)}/"))
            protocol.send_request(protocol.connect())
            answer, body = await visitor.ask(*protocol.data_to_send())
            assert (answer.status, body) == (403, b"members only")
            answer, body = await visitor.ask(request(f"/{turn}", host=host(name)))
            assert (answer.status, body) == (200, f"/{turn}".encode())


async def test_requests_sent_behind_a_refused_upgrade_are_requests(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert await origin.receive_body() == b""
            status = "403 Forbidden" if "upgrade" in asked.fields else "200 OK"
            await origin.send(response(asked.fields["host"].encode(), status=status))

    for name in ("one", "two"):
        await tenants.open(name, serve)
    async with tenants.visit() as visitor:
        await visitor.send(request("/", *UPGRADE, host=host("one")), request(host=host("two")))
        for status, name in ((403, "one"), (200, "two")):
            answer = await visitor.receive_response()
            assert (answer.status, await visitor.receive_body()) == (status, host(name).encode())


async def test_a_request_with_a_body_may_offer_an_upgrade_that_is_ignored(tenants: Tenants) -> None:
    """As curl's `--http2` does with every request, whatever it has in its body."""

    async def serve(origin: Origin) -> None:
        while await origin.receive_request() is not None:
            await origin.send(response(await origin.receive_body()))

    await tenants.open("one", serve)
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    async with tenants.visit() as visitor:
        for body in (b"", b"x", request("/hidden", host=host("one")), b"".join(blocks(300_000))):
            sent = request("/", *offer, host=host("one"), method="POST", body=body)
            assert (await visitor.ask(sent, method="POST"))[1] == body
            sent = request("/", *offer, "Transfer-Encoding: chunked", host=host("one"), method="POST")
            pieces = chunk(body) if body else b""
            assert (await visitor.ask(sent, pieces, LAST_CHUNK, method="POST"))[1] == body
            assert (await visitor.ask(request(host=host("one"))))[1] == b""


async def test_a_socket_is_opened_on_a_connection_that_was_used_before(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert await origin.receive_body() == b""
            if "upgrade" in asked.fields:
                await origin.send(ACCEPTED, name.encode())
                await origin.send(await receive_all(origin.stream))
                await origin.stream.send_eof()
                return
            await origin.send(response(name.encode()))

    for name in ("one", "two"):
        await tenants.open(name, serve)
    async with tenants.visit() as visitor:
        assert (await visitor.ask(request(host=host("two"))))[0].status == 200
        await visitor.send(request("/", *UPGRADE, host=host("two")))
        assert (await visitor.receive_response(is_upgrading=True)).status == 101
        await visitor.send(EVERY_BYTE)
        await visitor.stream.send_eof()
        assert visitor.leave_http() + await receive_all(visitor.stream) == b"two" + EVERY_BYTE


async def test_the_handshake_s_fields_arrive(tenants: Tenants) -> None:
    sent = {
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": "chat, superchat",
        "sec-websocket-extensions": "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
        "origin": "http://elsewhere.example",
    }
    answered = {"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "sec-websocket-protocol": "chat"}

    async def serve(origin: Origin) -> None:
        asked = await origin.receive_request()
        assert asked is not None
        assert asked.fields | sent == asked.fields
        assert asked.fields["upgrade"].lower() == "websocket"
        fields = [f"{name}: {value}" for name, value in answered.items()]
        await origin.send(
            head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket", *fields)
        )
        await receive_all(origin.stream)

    await tenants.open("one", serve)
    fields = [f"{name}: {value}" for name, value in sent.items()]
    async with tenants.visit() as visitor:  # Firefox says "keep-alive, Upgrade".
        await visitor.send(
            request("/chat", "Connection: keep-alive, Upgrade", "Upgrade: websocket", *fields, host=host("one"))
        )
        answer = await visitor.receive_response(is_upgrading=True)
        assert answer.status == 101
        assert answer.fields | answered == answer.fields


# Other protocols


async def switch(origin: Origin) -> None:
    """Accept whatever upgrade the request asks for."""
    asked = await origin.receive_request()
    assert asked is not None
    assert asked.fields["upgrade"] == "something-else"
    assert "upgrade" in asked.fields["connection"].lower()
    await origin.send(ACCEPTED)


async def switched(visitor: Visitor, *early: bytes) -> bytes:
    """Ask for the upgrade, with *early* bytes right behind it: what came right behind the 101."""
    await visitor.send(request("/", *UPGRADE, host=host("one")), *early)
    answer = await visitor.receive_response(is_upgrading=True)
    assert answer.status == 101
    assert answer.fields["upgrade"] == "something-else"
    assert "upgrade" in answer.fields["connection"].lower()
    return visitor.leave_http()


async def test_another_protocol_has_any_bytes_both_ways_at_once(tenants: Tenants) -> None:
    async def send(stream: trio.SocketStream, data: bytes) -> None:
        chance = random.Random(len(data))
        position = 0
        while position < len(data):
            size = chance.choice([1, 100, 10_000, 100_000])
            await stream.send_all(data[position : position + size])
            position += size
        await stream.send_eof()

    upwards = b"".join(blocks(3 * MIB, 1)) + EVERY_BYTE
    downwards = EVERY_BYTE + b"".join(blocks(2 * MIB, 2))

    async def serve(origin: Origin) -> None:
        await switch(origin)
        early = origin.leave_http()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, origin.stream, downwards)
            assert early + await receive_all(origin.stream) == upwards

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        early = await switched(visitor)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, visitor.stream, upwards)
            assert early + await receive_all(visitor.stream) == downwards


async def test_a_visitor_who_ends_first_goes_on_receiving(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        await switch(origin)
        assert origin.leave_http() + await receive_all(origin.stream) == b"that is all"
        await origin.send(b"and this is the answer" * 10_000)
        await origin.stream.send_eof()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        assert await switched(visitor) == b""
        await visitor.send(b"that is all")
        await visitor.stream.send_eof()
        assert await receive_all(visitor.stream) == b"and this is the answer" * 10_000


@pytest.mark.parametrize("early", [b"", b"that is all", b"".join(blocks(300_000))], ids=["nothing", "11 B", "300 KB"])
async def test_a_visitor_may_end_before_the_upgrade_is_answered(tenants: Tenants, early: bytes) -> None:
    has_sent = trio.Event()

    async def serve(origin: Origin) -> None:
        asked = await origin.receive_request()
        assert asked is not None
        if len(early) < 1000:  # More may have to wait for the answer.
            await has_sent.wait()
        await origin.send(ACCEPTED)
        assert origin.leave_http() + await receive_all(origin.stream) == early
        await origin.send(b"and this is the answer" * 10_000)
        await origin.stream.send_eof()

    async def send(visitor: Visitor) -> None:
        await visitor.send(request("/", *UPGRADE, host=host("one")), early)
        await visitor.stream.send_eof()
        has_sent.set()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor, trio.open_nursery() as nursery:
        nursery.start_soon(send, visitor)
        assert (await visitor.receive_response(is_upgrading=True)).status == 101
        assert visitor.leave_http() + await receive_all(visitor.stream) == b"and this is the answer" * 10_000


async def test_an_origin_that_ends_first_goes_on_receiving(tenants: Tenants) -> None:
    received: list[bytes] = []
    has_ended = trio.Event()

    async def serve(origin: Origin) -> None:
        await switch(origin)
        await origin.send(b"that is all")
        await origin.stream.send_eof()
        received.append(origin.leave_http() + await receive_all(origin.stream))
        has_ended.set()

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        early = await switched(visitor)
        assert early + await receive_all(visitor.stream) == b"that is all"
        await visitor.send(b"and this is the answer" * 10_000)
        await visitor.stream.send_eof()
        await has_ended.wait()
    assert received == [b"and this is the answer" * 10_000]


async def test_bytes_right_behind_the_101_are_the_first_of_the_new_protocol(tenants: Tenants) -> None:
    async def serve(origin: Origin) -> None:
        asked = await origin.receive_request()
        assert asked is not None
        await origin.send(ACCEPTED, b"HTTP/1.1 200 OK\r\n\r\n", EVERY_BYTE)
        await origin.stream.send_eof()
        await receive_all(origin.stream)

    await tenants.open("one", serve)
    async with tenants.visit() as visitor:
        early = await switched(visitor)
        assert early + await receive_all(visitor.stream) == b"HTTP/1.1 200 OK\r\n\r\n" + EVERY_BYTE


@pytest.mark.parametrize(
    "early",
    [
        EVERY_BYTE,
        request("/for-two", host=host("two")),
        request("/for-nobody", host=host("nobody")),
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\n\r\n",
        b"".join(blocks(200_000)),
    ],
    ids=["every byte", "a request for another tenant", "a request for nobody", "no request", "a last chunk", "200 KB"],
)
async def test_bytes_that_follow_the_upgrade_before_its_answer_are_not_read_as_http(
    tenants: Tenants, early: bytes
) -> None:
    async def serve(origin: Origin) -> None:
        await switch(origin)
        received = origin.leave_http() + await receive_all(origin.stream)
        await origin.send(b"%d bytes" % len(received))
        await origin.stream.send_eof()
        assert received == early + b", and more"

    async def refuse(origin: Origin) -> None:
        asked = await origin.receive_request()
        assert asked is None, "this was for somebody else"

    await tenants.open("one", serve)
    await tenants.open("two", refuse)
    async with tenants.visit() as visitor:
        async with trio.open_nursery() as nursery:  # 200 KB may have to wait until they are welcome.
            nursery.start_soon(visitor.send, request("/", *UPGRADE, host=host("one")), early)
            answer = await visitor.receive_response(is_upgrading=True)
            assert answer.status == 101
        received = visitor.leave_http()
        await visitor.send(b", and more")
        await visitor.stream.send_eof()
        received += await receive_all(visitor.stream)
        assert received == b"%d bytes" % len(early + b", and more")
