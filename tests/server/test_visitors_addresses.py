"""Visitors of raw TCP and of TLS that passes through: only where they come from can be looked at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
import trio

from otun import Stream, TcpAddress
from otun.tls.self_made import own_certificate

from ..tls.hello_wire import hello, sni
from .harness import LOOPBACK, RunningServer
from .raw_client import RawClient, port_of, raw_client
from .visitors import connect

HELLO = hello(sni(b"app.tunnel.example"))

RULES = [
    ({}, True),
    ({"allow_ip": ["127.0.0.0/8"]}, True),
    ({"allow_ip": ["192.0.2.0/24"]}, False),
    ({"deny_ip": ["127.0.0.1"]}, False),
    ({"deny_ip": ["192.0.2.0/24"]}, True),
    ({"allow_ip": ["127.0.0.0/8"], "deny_ip": ["127.0.0.1"]}, False),
]
each_rule = pytest.mark.parametrize(("rules", "is_admitted"), RULES, ids=range(len(RULES)))


@asynccontextmanager
async def echoing(server: RunningServer, **fields: object) -> AsyncIterator[tuple[RawClient, dict[str, object]]]:
    """A tunnel that answers each visitor with what it sends."""

    async def echo(stream: Stream) -> None:
        await stream.send_all(await stream.receive_some())
        await stream.send_eof()

    async with trio.open_nursery() as nursery, raw_client(server.control) as client:
        answer = await client.register("app", **fields)
        assert answer["type"] == "registered", answer
        assert set(answer.get("protections", [])) == fields.keys() & {"allow_ip", "deny_ip"}
        nursery.start_soon(client.serve, echo)
        yield client, answer


async def is_served(address: TcpAddress, sent: bytes, expected: bytes, local_address: str | None = None) -> bool:
    """Whether a visitor gets back what it sends; else the connection must be closed without a word."""
    try:
        async with await trio.open_tcp_stream(address.host, address.port, local_address=local_address) as visitor:
            await visitor.send_all(sent)
            received = b""
            async for piece in visitor:
                received += piece
    except trio.BrokenResourceError:
        return False
    assert received in (b"", expected)
    return received == expected


@each_rule
async def test_raw_tcp(server: RunningServer, rules: dict[str, object], is_admitted: bool) -> None:
    async with echoing(server, kind="tcp", **rules) as (client, answer):
        port = port_of(answer)
        address = TcpAddress("127.0.0.1", port)
        assert await is_served(address, b"hello", b"hello") == is_admitted
        if not is_admitted:
            await client.see_no_streams_but_control()


async def test_on_a_tcp_port_nobody_speaks_for_others(start_server) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with echoing(server, kind="tcp", allow_ip=["192.0.2.0/24"]) as (_, answer):
        address = TcpAddress("127.0.0.1", port_of(answer))
        line = b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 80\r\n"
        assert not await is_served(address, line + b"hello", line + b"hello")


@pytest.fixture
def tls_settings(tmp_path: Path) -> dict[str, object]:
    certificate = own_certificate(tmp_path, "tunnel.example")
    return {"domain": "tunnel.example", "https": LOOPBACK, "certificates": (certificate,)}


@each_rule
async def test_tls_that_passes_through(
    start_server, tls_settings: dict[str, object], rules: dict[str, object], is_admitted: bool
) -> None:
    server = await start_server(**tls_settings)
    async with echoing(server, kind="tls", **rules):
        assert await is_served(server.server.https_addresses[0], HELLO, HELLO) == is_admitted


async def test_tls_behind_a_proxy_that_speaks_for_others(start_server, tls_settings: dict[str, object]) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.2/32"),), **tls_settings)
    address = server.server.https_addresses[0]
    good, bad = (f"PROXY TCP4 {source} 203.0.113.1 4711 443\r\n".encode() for source in ("192.0.2.1", "192.0.3.1"))
    async with echoing(server, kind="tls", allow_ip=["192.0.2.0/24"]):
        assert await is_served(address, good + HELLO, HELLO, "127.0.0.2")
        assert not await is_served(address, bad + HELLO, HELLO, "127.0.0.2")
        assert not await is_served(address, HELLO, HELLO, "127.0.0.2")


async def test_a_stranger_cannot_speak_for_others_over_tls(start_server, tls_settings: dict[str, object]) -> None:
    server = await start_server(trusted_proxies=(ip_network("127.0.0.2/32"),), **tls_settings)
    async with echoing(server, kind="tls", allow_ip=["192.0.2.0/24"]) as (client, _):
        line = b"PROXY TCP4 192.0.2.1 203.0.113.1 4711 443\r\n"
        async with await connect(server.server.https_addresses[0]) as visitor:
            await visitor.send_all(line + HELLO)
            assert b"400 Bad Request" in await visitor.receive_some()
        await client.see_no_streams_but_control()
