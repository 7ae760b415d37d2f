"""A server that takes the place of another one."""

import json
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import trio.testing

from otun import ConfigurationError, ExpectedTunnels, ListeningSockets, OtunError, ServerSettings, TcpAddress
from otun.server.admin.handing_over import HandingOver, pass_descriptors
from otun.server.admin.place import LOCK, NAME, StateFolderBusy, claimed_place
from otun.server.admin.requests import BadCommand
from otun.server.hub import Hub
from otun.server.sockets import fitting

from .harness import LOOPBACK, RunningServer, loopback_settings, open_descriptors, run_server
from .log_lines import LogLines
from .raw_client import port_of, raw_client, registered_client
from .services import receive_head, response
from .test_listening import needs_ipv6
from .visitors import Responses, connect, fetch, receive_exactly, request

Start = Callable[..., Awaitable[RunningServer]]

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start(nursery: trio.Nursery, folder: Path) -> Start:
    """Start a server with the state folder; keyword arguments are its settings."""

    async def start(*, replace: bool = False, **changes: object) -> RunningServer:
        return await run_server(nursery, loopback_settings(state=folder, **changes), replace=replace)

    return start


async def fails(starting: Awaitable[RunningServer]) -> BaseException:
    """Why a server does not start."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - in a group
        await starting
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


async def is_there(server: RunningServer) -> bool:
    """Whether it lets clients and visitors in, and has its admin socket."""
    async with registered_client(server.control, "there") as client, await connect(server.public) as visitor:
        await visitor.send_all(request(host="there.localhost"))
        stream = await client.session.accept()
        await receive_head(stream)
        await stream.send_all(response())
        return (await Responses(visitor).next()).status == 200


async def test_the_new_one_listens_where_the_old_one_did_and_that_ends(
    start: Start, folder: Path, server_log: LogLines
) -> None:
    old = await start()
    new = await start(replace=True)
    assert (new.control, new.public) == (old.control, old.public)
    assert old.server.is_draining
    await old.wait_ended()
    assert await is_there(new)
    assert any(line.endswith("takes the place of this server") for line in server_log.lines)
    assert f"took the place of process {os.getpid()}, which drains; 0 hosts and 0 ports are expected back" in (
        server_log.lines
    )
    async with await trio.open_unix_socket(folder / NAME) as admin:  # It is still there, and the new one's.
        await admin.send_all(b'{"do":"status"}\n')
        assert b'"draining":false' in bytes(await admin.receive_some())
    with pytest.raises(StateFolderBusy):
        claimed_place(folder).__enter__()
    await new.stop()
    assert NAME not in os.listdir(folder)
    with claimed_place(folder):
        pass


async def test_places_are_passed_on_again_and_again_and_nothing_leaks(start: Start) -> None:
    server = await start()
    await is_there(server)
    before = len(open_descriptors())
    for _ in range(3):
        old, server = server, await start(replace=True)
        await old.wait_ended()
    assert await is_there(server)
    # In one process, SQLite closes the file of a database later than asked.
    while len(open_descriptors()) > before + 1:
        await trio.testing.wait_all_tasks_blocked()


async def test_visitors_who_are_there_are_served_to_the_end_by_the_old_one(start: Start) -> None:
    old = await start()
    async with registered_client(old.control) as client, await connect(old.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        await receive_head(stream)
        new = await start(replace=True)
        async with registered_client(new.control):  # The name is free there.
            assert (await fetch(new.public, host="none.localhost")).status == 404
            await stream.send_all(response(b"old"))
            answer = await Responses(visitor).next()
            assert (answer.body, answer.fields["Connection"]) == (b"old", "close")
            await client.session.aclose()
            await visitor.aclose()  # The server waits for that for a while.
            await old.wait_ended()


async def test_the_new_one_is_told_which_tunnels_to_expect(start: Start) -> None:
    old = await start(allow_hostnames=("*.example.org",))
    async with raw_client(old.control) as client:
        await client.register("app", id="1", hostnames=["shop.example.org"], path="/api")
        url = str((await client.register(kind="tcp", id="2"))["url"])
        keeper = f"address {LOOPBACK.host}"
        new = await start(replace=True)
        assert old.server.handoff is None
        assert new.server.handoff is not None
        assert new.server.handoff.tunnels == ExpectedTunnels(
            routes=(("app.localhost", "/api", keeper), ("shop.example.org", "/api", keeper)),
            ports=((int(url.rpartition(":")[2]), keeper),),
        )


async def test_visitors_of_a_tcp_tunnel_wait_for_its_client_to_come_back(start: Start) -> None:
    old = await start()
    async with raw_client(old.control) as client:
        port = int(str((await client.register(kind="tcp"))["url"]).rpartition(":")[2])
        new = await start(replace=True)
        async with await trio.open_tcp_stream("127.0.0.1", port) as visitor:
            await visitor.send_all(b"hello")
            async with raw_client(new.control) as again:
                other = await again.register(kind="tcp", id="1")  # Not just anybody gets it.
                assert other["type"] == "registered"
                assert not str(other["url"]).endswith(f":{port}")
                assert (await again.register(kind="tcp", remote_port=port, id="2"))["type"] == "registered"
                assert await receive_exactly(await again.session.accept(), 5) == b"hello"


@pytest.mark.parametrize("hold", [0, 0.05])
async def test_ports_that_nobody_comes_back_for_are_free_after_a_while(start: Start, hold: float) -> None:
    old = await start()
    async with raw_client(old.control) as client:
        port = int(str((await client.register(kind="tcp"))["url"]).rpartition(":")[2])
        await start(replace=True, hold=hold)
        await old.wait_ended()
    while True:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port):
                await trio.testing.wait_all_tasks_blocked(0.01)
        except OSError:
            return


async def test_what_the_new_settings_do_not_have_is_listened_at_no_more(start: Start, folder: Path) -> None:
    (free,) = await free_ports(1)
    old = await start()
    new = await start(replace=True, public=free)
    assert new.public == free
    assert new.control == old.control
    await old.wait_ended()
    with pytest.raises(OSError, match=r"."):
        await connect(old.public)
    assert await is_there(new)


async def free_ports(count: int) -> list[object]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [type(LOOPBACK)("127.0.0.1", sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


async def test_a_new_one_that_fails_leaves_the_old_one_as_it_was(
    start: Start, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        elsewhere = type(LOOPBACK)("127.0.0.1", taken.getsockname()[1])
        assert "in use" in str(await fails(start(replace=True, public=elsewhere)))
    assert "No such file" in str(await fails(start(replace=True, client_ca=tmp_path / "none.pem")))

    class BrokenHub(Hub):
        def __init__(self, *arguments: object) -> None:
            raise OtunError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("otun.server.server.Hub", BrokenHub)
        assert str(await fails(start(replace=True))) == "broken"
    assert not old.server.is_draining
    assert await is_there(old)
    assert isinstance(await fails(start()), StateFolderBusy)
    assert {LOCK, NAME} <= set(os.listdir(folder))
    new = await start(replace=True)
    assert await is_there(new)


async def test_nobody_leaves_because_somebody_has_asked(start: Start, folder: Path) -> None:
    server = await start()
    async with await trio.open_unix_socket(folder / NAME) as admin:
        await admin.send_all(b'{"do":"leave"}\n')
        assert b"nobody has taken over" in bytes(await admin.receive_some())
        await admin.send_all(b'{"do":"take_over"}\n')
        await admin.receive_some()
    assert await is_there(server)
    assert not server.server.is_draining


async def test_of_two_that_want_the_place_one_gets_it(start: Start, folder: Path) -> None:
    """Both would listen on the same sockets, and each know half of the tunnels."""
    server = await start()
    async with registered_client(server.control) as client, await connect(server.public) as visitor:
        await visitor.send_all(request())
        await client.session.accept()  # So that the server stays for a while.
        async with AsyncExitStack() as stack:
            rivals = [await stack.enter_async_context(await trio.open_unix_socket(folder / NAME)) for _ in range(2)]
            for do in ("take_over", "leave"):
                answers = []
                for rival in rivals:
                    await rival.send_all(b'{"do":"%s"}\n' % do.encode())
                    answers.append(json.loads(await receive_line(rival)))
        assert answers[0]["ok"]
        assert (answers[1]["ok"], answers[1].get("code")) == (False, "busy")


async def receive_line(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        received += await stream.receive_some()
    return received


async def test_a_server_that_drains_hands_nothing_over(start: Start) -> None:
    old = await start()
    async with registered_client(old.control) as client, await connect(old.public) as visitor:
        await visitor.send_all(request())
        stream = await client.session.accept()
        old.server.drain()
        assert "it is about to end" in str(await fails(start(replace=True)))
        await stream.send_all(response())
        await client.session.aclose()
        assert (await Responses(visitor).next()).status == 200
        await visitor.aclose()  # The server waits for that for a while.
        await old.wait_ended()


async def test_an_older_server_that_cannot_hand_over_is_left_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: bytes) -> None:
        raise BadCommand("a request wants 'take_over', which this server cannot do")

    old = await start()
    with monkeypatch.context() as patch:
        patch.setattr("otun.server.admin.port.parse_request", refuse)
        assert "does not hand over: a request wants 'take_over'" in str(await fails(start(replace=True)))
    assert await is_there(old)


async def test_an_answer_of_another_version_is_one_error_and_the_old_one_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = HandingOver.describe
    old = await start()
    with monkeypatch.context() as patch:
        patch.setattr(HandingOver, "describe", lambda *arguments: before(*arguments) | {"routes": [["app.localhost"]]})
        assert "is it another version?" in str(await fails(start(replace=True)))
    assert await is_there(old)


async def test_without_a_server_it_just_starts(start: Start, server_log: LogLines) -> None:
    server = await start(replace=True)
    assert server.server.handoff is None
    assert await is_there(server)
    assert server_log.lines[0].startswith("no server runs with the state folder ")


async def test_without_a_state_folder_nobody_is_found(nursery: trio.Nursery) -> None:
    error = await fails(run_server(nursery, loopback_settings(), replace=True))
    assert isinstance(error, ConfigurationError)
    assert "--state DIR" in str(error)


async def test_a_great_many_sockets_are_handed_over(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otun.server.admin.handing_over._DESCRIPTORS_AT_ONCE", 3)
    old = await start()
    async with raw_client(old.control) as client:
        urls = [str((await client.register(kind="tcp", id=str(number)))["url"]) for number in range(10)]
        new = await start(replace=True)
        assert new.server.handoff is not None
        ports = [port for port, _ in new.server.handoff.tunnels.ports]
        assert ports == [int(url.rpartition(":")[2]) for url in urls]
        assert set(new.server.handoff.sockets.tcp) == set(ports)


async def test_a_socket_that_is_closed_while_they_are_handed_over_does_no_harm(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be somebody else's by then."""
    old = await start()
    assert old.server._draining is not None
    hub = old.server._draining._hub
    async with raw_client(old.control) as client:
        port = port_of(await client.register(kind="tcp"))

        async def pass_later(stream: trio.SocketStream, descriptors: Sequence[int]) -> None:
            if descriptors:
                await client.session.aclose()
            while port in hub.tcp_ports:
                await trio.testing.wait_all_tasks_blocked()
            await pass_descriptors(stream, descriptors)

        monkeypatch.setattr("otun.server.admin.port.pass_descriptors", pass_later)
        new = await start(replace=True)
    assert new.server.handoff is not None
    assert list(new.server.handoff.sockets.tcp) == [port]


# Sockets from elsewhere


async def test_sockets_that_listen_already_are_used(nursery: trio.Nursery) -> None:
    control, public = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    given = ListeningSockets((control,), (public,))
    server = await run_server(nursery, loopback_settings(), sockets=given)
    assert (server.control, server.public) == (given.addresses("control")[0], given.addresses("public")[0])
    assert await is_there(server)
    await server.stop()
    assert control.fileno() == public.fileno() == -1


def listen_on_both() -> socket.socket:
    """What systemd opens for a port without an address."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    sock.listen()
    return sock


@needs_ipv6
async def test_a_socket_that_takes_ipv4_as_well_is_as_good_as_one_for_each(nursery: trio.Nursery) -> None:
    given = ListeningSockets((listen_on_both(),), (listen_on_both(),))
    settings = loopback_settings(open=True, allow_plaintext=True)
    server = await run_server(nursery, settings, sockets=given)
    assert [address.host for address in server.server.public_addresses] == ["::", "0.0.0.0"]
    async with raw_client(attrs.evolve(server.control, host="127.0.0.1")) as client:
        await client.register("app", id="0")
        async with await trio.open_tcp_stream("127.0.0.1", server.public.port) as visitor:
            await visitor.send_all(request(host="app.localhost"))
            head, _ = await receive_head(await client.session.accept())
            assert b"X-Forwarded-For: 127.0.0.1\r\n" in head
        url = urlsplit(str((await client.register(kind="tcp", id="1"))["url"]))
        assert url.hostname == "127.0.0.1"
        for host in ("127.0.0.1", "::1"):
            async with await trio.open_tcp_stream(host, url.port):
                await client.session.accept()
    wildcard = ServerSettings(control=TcpAddress("", server.control.port), public=TcpAddress("127.0.0.1", 0))
    kept = await fitting(wildcard, given)
    assert kept.control == given.control
    assert not kept.public
    await server.stop()


async def test_a_socket_that_does_not_listen_is_refused_and_all_are_closed(nursery: trio.Nursery) -> None:
    before = open_descriptors()
    for wrong in (socket.socket(), socket.socket(type=socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX)):
        given = ListeningSockets((socket.create_server(("127.0.0.1", 0)),), (wrong,))
        error = await fails(run_server(nursery, loopback_settings(), sockets=given))
        assert isinstance(error, ConfigurationError)
        assert "no listening TCP socket" in str(error)
    assert open_descriptors() == before


async def test_a_socket_for_what_the_server_does_not_have_is_refused(nursery: trio.Nursery) -> None:
    given = ListeningSockets(https=(socket.create_server(("127.0.0.1", 0)),))
    error = await fails(run_server(nursery, loopback_settings(), sockets=given))
    assert str(error) == "a socket was handed over for --https, which the settings do not have"
