"""Sessions over TLS: what stands inside the connection when they begin, and what is left when they end."""

import os
import socket
import ssl

import pytest
import trio
import trio.testing

from otun import SessionLimits
from otun.mux import SessionClosed, open_board_session
from otun.switchboard import TlsBuffers, TlsSocket, open_switchboard, shake_hands
from otun.yamux.frames import ACK, PING, SYN, encode_header

from ..switchboard.tls_peers import (
    HOST,
    VERSIONS,
    Puppet,
    client_context,
    is_empty,
    server_context,
    socket_pair,
    tls_pair,
    try_once,
    with_puppet,
)
from .cancelling import Moment, cancel_at_checkpoint
from .support import RawPeer, TlsStream, check_round_trip, pattern, receive_all, send_and_end, update

MOST_CHECKPOINTS = 500

moments = pytest.mark.parametrize("moment", ["while waiting", "when woken"])
engines = pytest.mark.parametrize("engine", ["epoll", "tasks"], indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tasks":
        monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", False)
    return request.param


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@engines
async def test_frames_that_came_with_the_end_of_the_handshake_are_read(engine) -> None:
    """In TLS 1.2 the server may speak right behind its Finished, and nothing announces what it says again."""
    ours, theirs = socket_pair()
    sock = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
    puppet = Puppet(theirs, server_context(ssl.TLSVersion.TLSv1_2), is_server=True)
    with theirs:
        for _ in range(2):
            assert not try_once(sock.handshake)
            puppet.take_in()
            if try_once(lambda: _step(puppet)):
                puppet.tls.write(encode_header(PING, SYN, 0, 7))
            puppet.let_out()
        sock.handshake()
        limits = SessionLimits(keepalive_interval=1e6)  # No ping of its own, whose answer would show the rest.
        async with open_switchboard() as board, open_board_session(board, sock, "client", limits=limits):
            await trio.lowlevel.wait_readable(theirs)
            answer = puppet.read()
            assert encode_header(PING, ACK, 0, 7) in answer
            puppet.sock.sendall(puppet.goodbye())


def _step(puppet: Puppet) -> None:
    try:
        puppet.tls.do_handshake()
    except ssl.SSLWantReadError:
        raise BlockingIOError from None


@engines
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
async def test_sessions_share_their_memory_and_mind_only_their_own_streams(engine, version) -> None:
    buffers = TlsBuffers()
    async with open_switchboard() as board, trio.open_nursery() as nursery:

        async def converse(number: int) -> None:
            client_side, server_side = tls_pair(version, buffers=buffers)
            body = pattern(300_000 + number)[number:]
            async with (
                open_board_session(board, client_side, "client") as client,
                open_board_session(board, server_side, "server") as server,
            ):
                async with trio.open_nursery() as both:
                    ours = await client.open_stream()
                    theirs = await server.accept()
                    both.start_soon(send_and_end, ours, body)
                    both.start_soon(send_and_end, theirs, body[::-1])
                    assert await receive_all(theirs) == body
                    assert await receive_all(ours) == body[::-1]
                await check_round_trip(client, server)

        for number in range(20):
            nursery.start_soon(converse, number)
    assert is_empty(buffers)


@engines
async def test_a_peer_that_leaves_without_a_goodbye_has_failed(engine) -> None:
    sock, puppet = with_puppet()
    puppet.read()
    async with open_switchboard() as board, open_board_session(board, sock, "server") as session:
        puppet.sock.sendall(puppet.encrypt(update(1, flags=SYN)))
        await session.accept()
        puppet.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(SessionClosed, match="without a TLS goodbye") as raised:
            await session.accept()
        assert not raised.value.is_clean
    puppet.sock.close()


@engines
async def test_a_peer_that_says_goodbye_has_ended_in_order(engine) -> None:
    sock, puppet = with_puppet()
    async with open_switchboard() as board, open_board_session(board, sock, "server") as session:
        await trio.testing.wait_all_tasks_blocked()
        puppet.sock.sendall(puppet.encrypt(update(1, flags=SYN)) + puppet.goodbye())
        await session.accept()
        with pytest.raises(SessionClosed) as raised:
            await session.accept()
        assert raised.value.is_clean
        puppet.sock.shutdown(socket.SHUT_WR)
    puppet.take_in()
    assert puppet.has_ended()
    puppet.sock.close()


@engines
async def test_garbage_ends_the_session_and_what_came_before_counts(engine) -> None:
    sock, puppet = with_puppet()
    with puppet.sock:
        async with open_switchboard() as board, open_board_session(board, sock, "server") as session:
            puppet.sock.sendall(puppet.encrypt(update(1, flags=SYN)) + b"\x17\3\3\0\x20" + bytes(32))
            assert (await session.accept()).id == 1
            with pytest.raises(SessionClosed, match="the connection to the peer was lost: "):
                await session.accept()


@engines
@moments
async def test_a_session_that_is_cancelled_at_any_checkpoint_leaves_nothing(engine, moment: Moment) -> None:
    buffers = TlsBuffers()
    before = open_descriptors()
    for count in range(1, MOST_CHECKPOINTS):
        client_side, server_side = tls_pair(buffers=buffers)
        async with open_switchboard() as board, open_board_session(board, server_side, "server") as server:
            await trio.testing.wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living

            async def converse(client_side=client_side, board=board, server=server) -> None:
                async with open_board_session(board, client_side, "client") as client:
                    async with trio.open_nursery() as nursery:
                        ours = await client.open_stream()
                        theirs = await server.accept()
                        nursery.start_soon(send_and_end, ours, pattern(600_000))
                        assert await receive_all(theirs) == pattern(600_000)
                        await theirs.aclose()
                    await client.ping()

            was_cancelled = await cancel_at_checkpoint(converse, count, moment)
            assert client_side.fileno() == -1
            await server.wait_closed()
            await trio.testing.wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living <= tasks
        assert is_empty(buffers)
        if not was_cancelled:
            break
    assert count > 5
    assert not was_cancelled
    assert open_descriptors() == before


@moments
async def test_a_handshake_that_is_cancelled_at_any_checkpoint_leaves_its_socket_to_be_closed(moment: Moment) -> None:
    buffers = TlsBuffers()
    for count in range(1, MOST_CHECKPOINTS):
        ours, theirs = socket_pair()
        client = TlsSocket(ours, client_context(), TlsBuffers(), is_server=False, server_name=HOST)
        server = TlsSocket(theirs, server_context(), buffers, is_server=True)
        with client, server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shake_hands, client)
                was_cancelled = await cancel_at_checkpoint(lambda server=server: shake_hands(server), count, moment)
                nursery.cancel_scope.cancel()
            assert is_empty(buffers)
            assert server.fileno() != -1
        if not was_cancelled:
            break
    assert count > 2


@engines
async def test_a_hand_driven_peer_that_ends_its_direction_only_gets_the_rest(engine) -> None:
    client_side, server_side = tls_pair()
    async with open_switchboard() as board, open_board_session(board, server_side, "server") as session:
        peer = RawPeer(TlsStream(client_side))
        await peer.send(update(1, flags=SYN))
        stream = await session.accept()
        await stream.send_all(b"before your end")
        assert await peer.body_of(1, 15) == b"before your end"
        await peer.transport.send_eof()
        await session.wait_closed()
        with trio.fail_after(5):
            assert await peer.rest() == []
        await peer.transport.aclose()
