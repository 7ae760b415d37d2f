"""Those on an encrypted port who are no clients, and those who never get that far."""

from contextlib import AsyncExitStack, suppress

import pytest
import trio

from otun import (
    TcpAddress,
    Trust,
    open_tunnel,
)
from otun.server.control_port import MAX_UNREGISTERED

from ..tls.issuing import Authority
from .fixtures import StartServer
from .harness import RunningServer, open_descriptors
from .log_lines import LogLines
from .raw_client import registered_client
from .services import answering, receive_all
from .test_strangers import STRANGERS, client_hello, many_descriptors
from .tls_client import (
    EVERYWHERE,
    connect_tls,
    context_for,
    encrypted_client,
    reached,
)
from .visitors import fetch, reset

__all__ = ["many_descriptors"]

NOISE = STRANGERS | {
    "SSLv2": bytes.fromhex("80 2e 01 00 02 00 15 00 00 00 10 07 00 c0 03 00 80 01 00 80 06 00 40") + bytes(25),
    "TLS and then junk": client_hello() + bytes(range(256)),
    "TLS in the middle": client_hello()[:100],
    "TLS without sense": b"\x16\x03\x01\x00\x05hello" * 20,
    "TLS with a NUL and a bell in its name": client_hello().replace(b"app.example", b"a\0\x1b[31m\a.ex"),
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("port", ["control", "https"])
@pytest.mark.parametrize("sent", NOISE.values(), ids=NOISE)
async def test_noise_is_one_line_in_the_log_and_no_more(
    start_server: StartServer, authority: Authority, server_log: LogLines, port: str, sent: bytes
) -> None:
    server = await start_server(
        control=EVERYWHERE,
        open=True,
        https=TcpAddress("127.0.0.1", 0),
        certificates=(authority.issue("127.0.0.1", "app.localhost"),),
    )
    address = reached(server.control) if port == "control" else server.server.https_addresses[0]
    async with await trio.open_tcp_stream(address.host, address.port) as stranger:
        await stranger.send_all(sent)
        await stranger.send_eof()
        with suppress(trio.BrokenResourceError):
            await receive_all(stranger)
    await server_log.wait_for(1)
    # Whatever else it might have to say, it has said before it serves the next one.
    async with open_tunnel(reached(server.control), name="app", trust=Trust(ca=authority.path)):
        line, *others = server_log.lines
    assert line.startswith("client: ended" if port == "control" else "visitor: no TLS connection: ")
    assert len(line) < 200
    assert len(others) == 1
    assert others[0].startswith("client: opened tunnel app at ")


async def test_who_says_nothing_or_goes_without_a_word_is_no_line_in_the_log(
    encrypted: RunningServer, server_log: LogLines
) -> None:
    for _ in range(5):
        async with await trio.open_tcp_stream("127.0.0.1", encrypted.control.port):
            pass
    async with registered_client(encrypted.control):
        pass
    assert (await server_log.wait_for(1))[0].startswith("client: opened tunnel app at ")


HALF = {"silence": b"", "half a ClientHello": client_hello()[:100], "a ClientHello": client_hello()}


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
async def test_of_2000_connections_that_do_not_go_on_only_so_many_are_kept(
    encrypted: RunningServer,
    nursery: trio.Nursery,
    many_descriptors: None,
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
) -> None:
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 1000)  # Nobody is closed for that.
    async with registered_client(encrypted.control) as client, AsyncExitStack() as stack:
        nursery.start_soon(client.serve, answering(b"served"))
        turned_away = 0

        async def see_end(stream: trio.SocketStream) -> None:
            nonlocal turned_away
            with suppress(trio.BrokenResourceError):
                await receive_all(stream)
            turned_away += 1
            if turned_away == 2000 - MAX_UNREGISTERED:
                are_enough.set()

        are_enough = trio.Event()
        watching = await stack.enter_async_context(trio.open_nursery())
        for _ in range(2000):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", encrypted.control.port))
            watching.start_soon(see_end, stream)
            if sent:
                with suppress(trio.BrokenResourceError):  # It may have been turned away already.
                    await stream.send_all(sent)
        await are_enough.wait()
        assert (await fetch(encrypted.public)).body == b"served"
        assert turned_away == 2000 - MAX_UNREGISTERED
        watching.cancel_scope.cancel()


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
async def test_connections_that_do_not_go_on_are_closed(
    encrypted: RunningServer, authority: Authority, monkeypatch: pytest.MonkeyPatch, server_log: LogLines, sent: bytes
) -> None:
    monkeypatch.setattr("otun.server.arrival.HELLO_TIMEOUT", 0.2)
    before = open_descriptors()
    async with AsyncExitStack() as stack:
        streams = []
        for _ in range(50):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", encrypted.control.port))
            await stream.send_all(sent)
            streams.append(stream)
        for stream in streams:
            await receive_all(stream)
    while len(open_descriptors()) > len(before):
        async with encrypted_client(encrypted.control, context_for(authority.path)) as barrier:
            await barrier.register()
    problem = {
        HALF["half a ClientHello"]: ["no whole ClientHello within 0.2 seconds"],
        HALF["a ClientHello"]: ["the handshake took too long"],
    }.get(sent, [])
    lines = [line for line in server_log.lines if "before it was encrypted" in line]
    assert lines == [f"client: ended before it was encrypted: {text}" for text in problem] * 50


async def test_failed_handshakes_leave_nothing(
    encrypted: RunningServer, authority: Authority, stranger: Authority
) -> None:
    before = open_descriptors()
    for number in range(60):
        stream = await trio.open_tcp_stream("127.0.0.1", encrypted.control.port)
        match number % 3:
            case 0:
                await stream.send_all(client_hello())
                reset(stream)
            case 1:
                await stream.send_all(client_hello()[: number + 1])
                await stream.aclose()
            case _:
                await stream.aclose()
                with pytest.raises(trio.BrokenResourceError):
                    await connect_tls(encrypted.control, context_for(stranger.path))
    while len(open_descriptors()) > len(before):
        async with encrypted_client(encrypted.control, context_for(authority.path)) as barrier:
            await barrier.register()


async def test_a_client_that_vanishes_behind_its_handshake_leaves_nothing(
    encrypted: RunningServer, authority: Authority
) -> None:
    before = open_descriptors()
    for _ in range(10):
        stream = await connect_tls(encrypted.control, context_for(authority.path))
        reset(stream.transport_stream)
    while len(open_descriptors()) > len(before):
        async with encrypted_client(encrypted.control, context_for(authority.path)) as barrier:
            await barrier.register()


async def test_those_who_have_failed_take_up_no_room(
    encrypted: RunningServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.client_gate.MAX_UNREGISTERED", 2)
    for sent in NOISE.values():
        async with await trio.open_tcp_stream("127.0.0.1", encrypted.control.port) as stranger:
            await stranger.send_all(sent)
            await stranger.send_eof()
            with suppress(trio.BrokenResourceError):
                await receive_all(stranger)
    async with open_tunnel(encrypted.control, name="app", trust=Trust(ca=authority.path)):
        pass
