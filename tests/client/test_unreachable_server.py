"""What the client says when there is no server, or something that is none."""

import socket

import pytest
import trio

from otun import (
    AddressError,
    InvalidName,
    OtunError,
    RegistrationRefused,
    ServerUnreachable,
    TcpAddress,
    forward,
    open_session,
    open_tunnel,
)
from otun.client.connecting import connect

from ..server.harness import RunningServer, open_descriptors
from ..server.raw_client import registered_client
from ..server.services import address_of, response
from .support import Names


async def fail_to_open(server: str | TcpAddress) -> str:
    with pytest.raises(ServerUnreachable) as caught:
        async with open_tunnel(server):
            raise AssertionError("the body must not run")
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


async def test_a_server_that_refuses_is_named_with_the_reason(engine, nobody_listens: TcpAddress) -> None:
    text = await fail_to_open(nobody_listens)
    assert text == f"cannot reach the server at {nobody_listens}: connection refused"


async def test_forward_says_the_same(engine, nobody_listens: TcpAddress) -> None:
    with pytest.raises(ServerUnreachable, match="refused"):
        await forward(str(nobody_listens), 3000)


async def test_a_host_that_is_not_known_is_named(engine) -> None:
    Names()
    text = await fail_to_open("tunnel.example.org")
    assert "tunnel.example.org:4443" in text
    assert "name" in text


@pytest.mark.parametrize("host", ["a..b", "x" * 64], ids=["an empty label", "a long label"])
@pytest.mark.parametrize("is_text", [True, False], ids=["text", "TcpAddress"])
async def test_a_host_that_can_be_no_name_is_named(engine, host: str, is_text: bool) -> None:
    with pytest.raises(OtunError) as caught:
        async with open_tunnel(f"{host}:4443" if is_text else TcpAddress(host, 4443)):
            pass
    assert host in str(caught.value)


async def test_all_addresses_of_a_server_are_tried(engine, server: RunningServer) -> None:
    Names(otun=["::1", "127.0.0.2", "127.0.0.1"])
    async with open_tunnel(TcpAddress("otun", server.control.port), name="app", plaintext=True) as tunnel:
        assert tunnel.name == "app"


class SilentNames(trio.abc.HostnameResolver):
    """A name service that does not answer."""

    async def getaddrinfo(self, *arguments: object, **keywords: object) -> list:
        await trio.sleep_forever()
        raise AssertionError

    async def getnameinfo(self, *arguments: object, **keywords: object) -> tuple[str, str]:
        raise NotImplementedError


async def test_connecting_takes_10_seconds_at_most(autojump_clock) -> None:
    trio.socket.set_custom_hostname_resolver(SilentNames())
    began = trio.current_time()
    with pytest.raises(ServerUnreachable, match="10 seconds"):
        await connect(TcpAddress("tunnel.example.org", 4443), timeout=10)
    assert trio.current_time() - began == pytest.approx(10)


# Something that is no otun server


async def answer_as_http(connection: trio.SocketStream) -> None:
    await connection.receive_some()
    await connection.send_all(response(b"what?", status="400 Bad Request"))


async def close(connection: trio.SocketStream) -> None:
    await connection.aclose()


async def read_and_close(connection: trio.SocketStream) -> None:
    await connection.receive_some()


async def greet_as_ssh(connection: trio.SocketStream) -> None:
    await connection.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
    async for _ in connection:
        pass


async def echo(connection: trio.SocketStream) -> None:
    async for piece in connection:
        await connection.send_all(piece)


@pytest.mark.parametrize(
    "stranger", [answer_as_http, close, read_and_close, greet_as_ssh, echo], ids=lambda stranger: stranger.__name__
)
async def test_something_that_is_no_otun_server_is_found_out(engine, start_service, stranger) -> None:
    service = await start_service(stranger)
    with trio.fail_after(5):
        text = await fail_to_open(service.address)
    assert f"the server at {service.address}" in text
    assert "otun" in text or "closed" in text


async def test_a_visitors_port_is_no_control_port(engine, server: RunningServer) -> None:
    with trio.fail_after(10):
        assert str(server.public) in await fail_to_open(server.public)


async def test_a_server_that_says_nothing_is_given_up(engine, start_service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(connection: trio.SocketStream) -> None:
        async for _ in connection:
            pass

    monkeypatch.setattr("otun.client.registration.REGISTRATION_TIMEOUT", 0.1)
    service = await start_service(say_nothing)
    with trio.fail_after(5):
        assert "answer" in await fail_to_open(service.address)


async def test_a_server_that_does_not_even_accept_is_given_up_and_leaves_no_descriptor(
    engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.registration.REGISTRATION_TIMEOUT", 0.1)
    for driver in ("task_driver", "board_driver"):
        monkeypatch.setattr(f"otun.mux.{driver}.CLOSE_TIMEOUT", 0.1)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        before = open_descriptors()
        with trio.fail_after(5):
            assert "answer" in await fail_to_open(address_of(sock))
        assert open_descriptors() == before


async def test_a_server_that_refuses_connections_leaves_no_descriptor(engine, nobody_listens: TcpAddress) -> None:
    before = open_descriptors()
    await fail_to_open(nobody_listens)
    assert open_descriptors() == before


# Refused


async def test_a_refusal_has_the_servers_words_and_code(engine, server: RunningServer) -> None:
    async with registered_client(server.control, "app"):
        with pytest.raises(RegistrationRefused) as caught:
            async with open_tunnel(server.control, name="app"):
                pass
        assert str(caught.value) == "subdomain 'app' is already in use"
        assert caught.value.code
        assert caught.value.is_retryable


async def test_a_refusal_by_the_go_server_has_neither_code_nor_hope(engine, start_service) -> None:
    async def refuse(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            control = await session.accept()
            await control.receive_some()
            await control.send_all(b'{"type":"error","message":"no room"}\n')
            await session.wait_closed()

    service = await start_service(refuse)
    with pytest.raises(RegistrationRefused) as caught:
        await forward(service.address, 3000)
    assert (str(caught.value), caught.value.code, caught.value.is_retryable) == ("no room", "", False)


@pytest.mark.parametrize("name", ["-", "a.b", "", "x" * 64], ids=repr)
async def test_a_name_that_is_none_is_refused_before_anything_is_sent(engine, name: str) -> None:
    with pytest.raises(InvalidName):
        async with open_tunnel("127.0.0.1:1", name=name):
            pass


@pytest.mark.parametrize("address", ["", ":4443", "host:0", "host:x", "a b:1", "::1:4443", "host:65536"])
async def test_an_address_that_is_none_is_refused(engine, address: str) -> None:
    with pytest.raises(AddressError):
        async with open_tunnel(address):
            pass


async def test_a_local_address_that_is_none_is_refused_before_a_tunnel_is_opened(engine, server: RunningServer) -> None:
    with pytest.raises(AddressError):
        await forward(server.control, "host:port", name="app")
    async with registered_client(server.control, "app"):
        pass
