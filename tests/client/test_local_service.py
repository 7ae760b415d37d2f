"""The local service: where it may be, and what visitors are told when it is not there."""

import socket
from pathlib import Path

import pytest
import trio

from otun import Session, TcpAddress, UnixAddress
from otun.addresses import LocalAddress

from ..server.harness import RunningServer
from ..server.raw_client import see_no_streams_left
from ..server.services import Service, answering, receive_head, start_service
from ..server.visitors import Answer, ask, fetch, request
from .support import MIB, ForwardTo, Names


def check_names_the_address(answer: Answer, address: str) -> None:
    assert answer.status == 502
    assert answer.fields["Content-Type"].startswith("text/html")
    assert address in answer.text


async def fetch_when_it_works(server: RunningServer) -> Answer:
    """Ask until the answer is another one than 502."""
    with trio.fail_after(10):
        while (answer := await fetch(server.public)).status == 502:
            pass
    return answer


# Refused


async def test_a_service_that_refuses_gives_a_502_page_that_names_the_address(
    server: RunningServer, forward_to: ForwardTo, nobody_listens: TcpAddress
) -> None:
    await forward_to(nobody_listens)
    answer = await fetch(server.public)
    check_names_the_address(answer, str(nobody_listens))
    assert "refused" in answer.text


async def test_the_address_is_named_as_the_user_wrote_it(
    server: RunningServer, forward_to: ForwardTo, nobody_listens: TcpAddress
) -> None:
    await forward_to(nobody_listens.port)
    check_names_the_address(await fetch(server.public), f"localhost:{nobody_listens.port}")


@pytest.mark.parametrize("size", [1, 100_000, 3 * MIB])
async def test_the_502_page_arrives_although_a_body_was_on_its_way(
    server: RunningServer, forward_to: ForwardTo, nobody_listens: TcpAddress, size: int, server_sessions: list[Session]
) -> None:
    await forward_to(nobody_listens)
    with trio.fail_after(10):
        answer = await fetch(server.public, method="POST", body=bytes(size))
    check_names_the_address(answer, str(nobody_listens))
    with trio.fail_after(10):
        await see_no_streams_left(server_sessions[0])


async def test_a_head_request_gets_502_without_a_body(
    server: RunningServer, forward_to: ForwardTo, unreachable: LocalAddress
) -> None:
    await forward_to(unreachable)
    with trio.fail_after(10):
        received = await ask(server.public, request("/", "Connection: close", method="HEAD"))
    assert received.startswith(b"HTTP/1.1 502 ")
    assert received.endswith(b"\r\n\r\n"), "the answer to HEAD has no body"


async def test_100_visitors_of_a_service_that_refuses_all_get_a_page(
    server: RunningServer, forward_to: ForwardTo, nobody_listens: TcpAddress, server_sessions: list[Session]
) -> None:
    await forward_to(nobody_listens)

    async def visit() -> None:
        check_names_the_address(await fetch(server.public), str(nobody_listens))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(visit)
    with trio.fail_after(10):
        await see_no_streams_left(server_sessions[0])


async def test_a_service_that_comes_up_later_is_found(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery
) -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        await forward_to(TcpAddress("127.0.0.1", sock.getsockname()[1]))
        assert (await fetch(server.public)).status == 502
        sock.listen()
        await start_service(nursery, answering(b"up"), listener=trio.SocketListener(sock))
        assert (await fetch(server.public)).body == b"up"


async def test_a_service_that_restarts_is_found_again(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    await forward_to(UnixAddress(str(path)))
    for body in (b"first", b"second"):
        async with trio.open_nursery() as running:
            await _start_on_unix_socket(running, path, body)
            assert (await fetch(server.public)).body == body
            running.cancel_scope.cancel()
        assert (await fetch(server.public)).status == 502
        path.unlink()


async def test_a_service_that_closes_without_an_answer_gives_a_502_page(tunnel_to) -> None:
    async def read_and_close(connection: trio.SocketStream) -> None:
        await receive_head(connection)
        await connection.aclose()

    place = await tunnel_to(read_and_close)
    with trio.fail_after(10):
        assert (await fetch(place.public)).status == 502


# Names


@pytest.mark.parametrize("answers_on", ["127.0.0.1", "::1"])
async def test_localhost_may_answer_on_one_of_its_addresses_only(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery, answers_on: str
) -> None:
    Names(localhost=["::1", "127.0.0.1"] if answers_on == "127.0.0.1" else ["127.0.0.1", "::1"])
    port, refusing = await _start_on_one_address(nursery, answers_on)
    with refusing:
        await forward_to(port)
        for _ in range(5):
            assert (await fetch(server.public)).body == b"found"
        large = await fetch(server.public, method="POST", body=bytes(200_000))
        assert large.body == b"found"


async def _start_on_one_address(nursery: trio.Nursery, address: str) -> tuple[int, socket.socket]:
    """Listen on *address*; give the port, and a socket that makes the other loopback address refuse there."""
    listening, refusing = _bind_two(address, "::1" if address == "127.0.0.1" else "127.0.0.1")
    listening.listen()
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    await start_service(nursery, answering(b"found"), listener=listener)
    return listening.getsockname()[1], refusing


def _bind_two(first: str, second: str) -> tuple[socket.socket, socket.socket]:
    """Bind sockets to both addresses, with one port that is free on both."""
    for _ in range(20):
        sockets = [socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) for address in (first, second)]
        try:
            sockets[0].bind((first, 0))
            sockets[1].bind((second, sockets[0].getsockname()[1]))
        except OSError as error:
            reason = error
            for sock in sockets:
                sock.close()
        else:
            return sockets[0], sockets[1]
    pytest.skip(f"this machine does not have both loopback addresses: {reason}")


async def test_a_name_that_is_not_known_gives_a_502_page(server: RunningServer, forward_to: ForwardTo) -> None:
    Names()
    await forward_to("printer.home:9100")
    check_names_the_address(await fetch(server.public), "printer.home:9100")


async def test_a_name_that_becomes_known_later_is_found(
    server: RunningServer, forward_to: ForwardTo, start_service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otun.client.local_service.RESOLVE_INTERVAL", 0.05)
    names = Names()
    service = await start_service(answering(b"known"))
    await forward_to(TcpAddress("app.internal", service.address.port))
    assert (await fetch(server.public)).status == 502
    names.addresses["app.internal"] = ["127.0.0.1"]
    assert (await fetch_when_it_works(server)).body == b"known"


@pytest.mark.parametrize("host", ["a..b", "x" * 64], ids=["an empty label", "a long label"])
async def test_a_host_that_can_be_no_name_gives_a_502_page(
    server: RunningServer, forward_to: ForwardTo, host: str
) -> None:
    await forward_to(TcpAddress(host, 80))
    check_names_the_address(await fetch(server.public), host)


# Unix sockets


async def test_a_unix_socket_is_forwarded_to(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery, tmp_path: Path
) -> None:
    service = await _start_on_unix_socket(nursery, tmp_path / "app.sock")
    await forward_to(f"unix:{tmp_path / 'app.sock'}")
    assert (await fetch(server.public)).body == b"unix"
    assert (await fetch(server.public, method="POST", body=bytes(2 * MIB))).body == b"unix"
    assert service.accepted == 2


async def _start_on_unix_socket(
    nursery: trio.Nursery, path: Path, body: bytes = b"unix", *, backlog: int = 128
) -> Service:
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(backlog)
    return await start_service(nursery, answering(body), listener=trio.SocketListener(sock))


async def test_a_unix_socket_that_comes_up_later_is_found(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await forward_to(UnixAddress(str(tmp_path / "app.sock")))
    check_names_the_address(await fetch(server.public), f"unix:{tmp_path / 'app.sock'}"[:60])
    await _start_on_unix_socket(nursery, tmp_path / "app.sock")
    assert (await fetch(server.public)).body == b"unix"


async def test_100_visitors_at_once_are_served_by_a_unix_socket_with_a_short_queue(
    server: RunningServer, forward_to: ForwardTo, nursery: trio.Nursery, tmp_path: Path
) -> None:
    await _start_on_unix_socket(nursery, tmp_path / "app.sock", backlog=5)
    await forward_to(f"unix:{tmp_path / 'app.sock'}")
    statuses: list[int] = []

    async def visit() -> None:
        statuses.append((await fetch(server.public)).status)

    async with trio.open_nursery() as visitors:
        for _ in range(100):
            visitors.start_soon(visit)
    assert statuses == [200] * 100


async def test_a_path_that_is_no_socket_gives_a_502_page(
    server: RunningServer, forward_to: ForwardTo, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no socket")
    await forward_to(UnixAddress(str(tmp_path / "file")))
    assert (await fetch(server.public)).status == 502


async def test_a_path_that_is_too_long_for_a_unix_socket_gives_a_502_page(
    server: RunningServer, forward_to: ForwardTo
) -> None:
    tunnel = await forward_to(UnixAddress("/tmp/" + "x" * 200))
    with trio.fail_after(10):
        assert (await fetch(server.public)).status == 502
        assert (await fetch(server.public)).status == 502
    assert "open" in repr(tunnel), "a visitor does not end the tunnel"
