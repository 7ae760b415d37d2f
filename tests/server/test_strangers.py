"""Those on the control port who are no clients, and clients that open what is not theirs to open."""

import resource
import ssl
from contextlib import AsyncExitStack

import pytest
import trio

from otun import StreamReset
from otun.yamux.frames import SYN, WINDOW_UPDATE, encode_header

from .harness import RunningServer, open_descriptors
from .raw_client import raw_client, registered_client
from .services import answering
from .visitors import fetch, reset


def client_hello() -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="app.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


STRANGERS = {
    "garbage": bytes(range(255, 0, -1)) * 40,
    "TLS": client_hello(),
    "HTTP": b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "JSON without yamux": b'{"type":"register","subdomain":"app"}\n',
    "zeros": bytes(12) + bytes(range(1, 200)),
}


@pytest.mark.parametrize("sent", STRANGERS.values(), ids=STRANGERS)
async def test_a_stranger_ends_his_connection_only_and_leaves_one_line_in_the_log(
    server: RunningServer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"still here"))
        caplog.set_level("INFO", "otun")
        caplog.clear()
        async with await trio.open_tcp_stream("127.0.0.1", server.control.port) as stranger:
            await stranger.send_all(sent)
            await stranger.send_eof()
            async for _ in stranger:
                pass
        await client.session.ping()
        lines = [record for record in caplog.records if record.name.startswith("otun")]
        assert len(lines) == 1
        assert not lines[0].exc_info
        assert "\n" not in lines[0].getMessage()
        assert (await fetch(server.public)).body == b"still here"


async def test_a_stranger_who_sends_rubbish_need_not_finish_to_be_closed(server: RunningServer) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.control.port) as stranger:
        await stranger.send_all(STRANGERS["HTTP"])
        async for _ in stranger:
            pass


@pytest.fixture
def many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this system allows fewer than 4096 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_1000_silent_connections_do_not_stop_a_client_and_its_visitors(
    server: RunningServer, nursery: trio.Nursery, many_descriptors: None
) -> None:
    silent = [await trio.open_tcp_stream("127.0.0.1", server.control.port) for _ in range(1000)]
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        assert (await fetch(server.public)).body == b"served"
    for connection in silent:
        await trio.aclose_forcefully(connection)


async def test_beyond_a_number_of_silent_connections_others_are_closed_until_there_is_room(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.server.client_gate.MAX_UNREGISTERED", 5)
    async with registered_client(server.control, "registered"):
        async with AsyncExitStack() as stack:
            for _ in range(5):
                silent = await stack.enter_async_context(raw_client(server.control))
                await silent.session.ping()  # The server has it.
            async with await trio.open_tcp_stream("127.0.0.1", server.control.port) as turned_away:
                assert await turned_away.receive_some() == b""
        async with registered_client(server.control, "app"):
            pass


@pytest.mark.parametrize("port", ["control", "public"])
async def test_connections_that_are_reset_at_once_leave_nothing(
    server: RunningServer, nursery: trio.Nursery, port: str
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        before = open_descriptors()
        for number in range(100):
            connection = await trio.open_tcp_stream("127.0.0.1", getattr(server, port).port)
            if number % 2:
                await connection.send_all(b"GET / HTTP/1.1\r\n")
            reset(connection)
        assert (await fetch(server.public)).body == b"served"
        await client.see_no_streams_but_control()
        with trio.fail_after(10):
            while len(open_descriptors()) > len(before):
                await client.session.ping()


async def test_1000_silent_visitors_do_not_stop_another_one(
    server: RunningServer, nursery: trio.Nursery, many_descriptors: None
) -> None:
    async with registered_client(server.control) as client:
        nursery.start_soon(client.serve, answering(b"served"))
        silent = [await trio.open_tcp_stream("127.0.0.1", server.public.port) for _ in range(1000)]
        assert (await fetch(server.public)).body == b"served"
        for connection in silent:
            await trio.aclose_forcefully(connection)


async def test_streams_that_a_client_opens_besides_the_control_stream_are_reset(server: RunningServer) -> None:
    async with registered_client(server.control) as client:
        for _ in range(3):
            stream = await client.session.open_stream()
            with pytest.raises(StreamReset):
                await stream.receive_some()
        await client.say({"type": "heartbeat"})
        assert await client.hear() == {"type": "heartbeat_ack"}


async def test_a_stream_opened_in_one_breath_with_the_control_stream_is_reset(server: RunningServer) -> None:
    async with raw_client(server.control) as client:
        # Nothing has left yet: both SYNs are in one segment.
        extra = await client.session.open_stream()
        assert (await client.register("app"))["type"] == "registered"
        with trio.fail_after(5), pytest.raises(StreamReset):
            await extra.receive_some()


async def test_a_client_that_opens_streams_without_end_does_not_disturb_others(server: RunningServer) -> None:
    async with registered_client(server.control, "honest") as honest:
        async with await trio.open_tcp_stream("127.0.0.1", server.control.port) as flooder:
            try:
                for first in range(1, 400_000, 20_000):
                    ids = range(first, first + 20_000, 2)
                    await flooder.send_all(b"".join([encode_header(WINDOW_UPDATE, SYN, one, 0) for one in ids]))
            except trio.BrokenResourceError:
                pass  # The server has had enough.
        await honest.say({"type": "heartbeat"})
        assert await honest.hear() == {"type": "heartbeat_ack"}
