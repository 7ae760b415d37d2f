"""Where a server listens, and what it says when it cannot."""

import socket

import pytest
import trio

from otun import ListenError, Server, ServerSettings, TcpAddress, serve

from .harness import loopback_settings, open_descriptors, run_server
from .raw_client import registered_client
from .services import answering
from .visitors import fetch


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")

PORTS = pytest.mark.parametrize("port", ["control", "public"])


async def fail_to_listen(port: str, address: TcpAddress) -> str:
    before = open_descriptors()
    with pytest.raises(ListenError) as caught:
        await serve(loopback_settings(**{port: address}))
    assert open_descriptors() == before
    text = str(caught.value)
    assert "\n" not in text
    assert str(address) in text
    return text


@PORTS
async def test_a_port_in_use_is_said_in_one_line(engine, port: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert "in use" in await fail_to_listen(port, TcpAddress("127.0.0.1", sock.getsockname()[1]))


@needs_ipv6
@PORTS
async def test_a_port_in_use_on_one_of_the_addresses_is_said_too(engine, port: str) -> None:
    with socket.socket() as sock:
        sock.bind(("0.0.0.0", 0))
        sock.listen()
        assert "in use" in await fail_to_listen(port, TcpAddress("", sock.getsockname()[1]))


@PORTS
async def test_an_address_of_another_machine_is_said_in_one_line(engine, port: str) -> None:
    assert "address" in await fail_to_listen(port, TcpAddress("192.0.2.1", 4443))


class NoNames(trio.abc.HostnameResolver):
    """A name service that knows no name."""

    async def getaddrinfo(self, *arguments: object, **keywords: object) -> list:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, *arguments: object, **keywords: object) -> tuple[str, str]:
        raise NotImplementedError


@PORTS
async def test_an_unknown_host_is_said_in_one_line(engine, port: str) -> None:
    trio.socket.set_custom_hostname_resolver(NoNames())
    assert "host" in await fail_to_listen(port, TcpAddress("nowhere.invalid", 4443))


@PORTS
@pytest.mark.parametrize("host", ["a..b", "x" * 64], ids=["an empty label", "a long label"])
async def test_a_host_that_can_be_no_name_is_said_in_one_line(engine, port: str, host: str) -> None:
    await fail_to_listen(port, TcpAddress(host, 4443))


async def test_both_ports_may_not_be_the_same(engine) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = TcpAddress("127.0.0.1", sock.getsockname()[1])
    with pytest.raises(ListenError, match="in use"):
        await serve(ServerSettings(control=address, public=address))


async def test_port_0_gives_a_free_port_that_is_reported(start_server) -> None:
    server = await start_server()
    assert server.server.control_addresses[0].host == "127.0.0.1"
    assert 0 < server.control.port != server.public.port > 0


@needs_ipv6
async def test_an_empty_host_listens_on_ipv4_and_ipv6_with_one_port(engine, nursery: trio.Nursery) -> None:
    everywhere = TcpAddress("", 0)
    running = await run_server(
        nursery, loopback_settings(control=everywhere, public=everywhere, allow_plaintext=True, open=True)
    )
    for addresses in (running.server.control_addresses, running.server.public_addresses):
        assert len(addresses) == 2
        assert len({address.port for address in addresses}) == 1
    for control in ("127.0.0.1", "::1"):
        async with registered_client(TcpAddress(control, running.control.port)) as client:
            nursery.start_soon(client.serve, answering(control.encode()))
            for public in ("127.0.0.1", "::1"):
                answer = await fetch(TcpAddress(public, running.public.port))
                assert answer.body == control.encode()
            await client.session.aclose()


@needs_ipv6
async def test_an_ipv6_address_is_listened_on(engine, nursery: trio.Nursery) -> None:
    running = await run_server(nursery, loopback_settings(control=TcpAddress("::1", 0), public=TcpAddress("::1", 0)))
    assert str(running.public) == f"[::1]:{running.public.port}"
    async with registered_client(running.control) as client:
        nursery.start_soon(client.serve, answering(b"six"))
        assert (await fetch(running.public, host=f"[::1]:{running.public.port}")).body == b"six"


async def test_a_name_is_listened_on(engine, nursery: trio.Nursery) -> None:
    running = await run_server(nursery, loopback_settings(public=TcpAddress("localhost", 0)))
    hosts = {address.host for address in running.server.public_addresses}
    assert hosts <= {"127.0.0.1", "::1"}
    assert hosts


async def test_the_ports_can_be_taken_again_at_once(engine, nursery: trio.Nursery) -> None:
    first = await run_server(nursery, loopback_settings())
    async with registered_client(first.control) as client:
        nursery.start_soon(client.serve, answering(b""))
        await fetch(first.public)
        await first.stop()
    second = await run_server(nursery, ServerSettings(control=first.control, public=first.public))
    assert second.server == Server((first.control,), (first.public,), is_open=True)


def test_a_server_listens_everywhere_on_4443_and_8080_unless_told_otherwise() -> None:
    settings = ServerSettings()
    assert (settings.control, settings.public) == (TcpAddress("", 4443), TcpAddress("", 8080))
