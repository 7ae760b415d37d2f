"""The control protocol spoken by a program of its own, with what the public API offers."""

import pytest
import trio

from otun import ControlChannel, RegistrationRefused, control, forward, open_session

from ..server.harness import RunningServer
from ..server.services import answering
from ..server.visitors import fetch


async def test_a_client_can_be_written_with_the_public_names(server: RunningServer, nursery: trio.Nursery) -> None:
    transport = await trio.open_tcp_stream(server.control.host, server.control.port)
    async with open_session(transport, "client") as session:
        channel = ControlChannel(await session.open_stream())
        await channel.send(control.Register("app"))
        granted = await channel.receive()
        assert isinstance(granted, control.Registered)
        assert granted.subdomain == "app"
        nursery.start_soon(session.serve, answering(b"hello"))
        assert (await fetch(server.public)).body == b"hello"
        await channel.send(control.Heartbeat())
        assert await channel.receive() == control.HeartbeatAck()


async def test_a_server_can_say_why_it_refuses(engine, start_service) -> None:
    async def refuse(connection: trio.SocketStream) -> None:
        async with open_session(connection, "server") as session:
            channel = ControlChannel(await session.accept())
            message: control.Message = await channel.receive()
            assert message == control.Register(
                "app", token="t", local="localhost:3000", stream_header=True, health=True, resume=""
            )
            await channel.send(control.Error("no room", code="full", retryable=True))
            await session.wait_closed()

    service = await start_service(refuse)
    with pytest.raises(RegistrationRefused) as caught:
        await forward(service.address, 3000, name="app", token="t")
    assert (str(caught.value), caught.value.code, caught.value.is_retryable) == ("no room", "full", True)


def test_every_message_is_public() -> None:
    assert set(control.__all__) == {"Message", *(kind.__name__ for kind in control.Message.__args__)}
