"""A stream joined with a socket that encrypts: ends stay ends, and what was cut short looks cut short."""

import contextlib
import socket
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
import trio.testing

from otun.mux import Patch, Session, Stream, StreamReset, open_board_session
from otun.switchboard import Switchboard, open_switchboard
from otun.yamux import YamuxStream

from ..switchboard.tls_peers import VERSIONS, Puppet, nothing_can_leave, with_puppet
from .support import pattern, receive_all, receive_exactly, send_and_end

versions = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@pytest.fixture(params=["epoll", "tasks"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tasks":
        monkeypatch.setattr("otun.switchboard.opening.HAS_EPOLL", False)
    return request.param


@attrs.define
class Joined:
    """A stream, the patch at its other end, and who speaks TLS with that."""

    board: Switchboard
    stream: Stream
    patch: Patch
    puppet: Puppet
    ended: trio.Event

    async def hear(self, size: int) -> bytes:
        """Read *size* bytes that the patch sends."""
        received = b""
        while len(received) < size:
            await trio.lowlevel.wait_readable(self.puppet.sock)
            received += self.puppet.read()
        return received

    async def hear_goodbye(self) -> None:
        while not self.puppet.has_ended():
            await trio.lowlevel.wait_readable(self.puppet.sock)
            assert self.puppet.read() == b""

    async def say(self, ciphertext: bytes) -> None:
        while ciphertext:
            await trio.lowlevel.wait_writable(self.puppet.sock)
            ciphertext = ciphertext[self.puppet.sock.send(ciphertext) :]


@contextlib.asynccontextmanager
async def joined(version=VERSIONS[-1], *, pair=None) -> AsyncIterator[Joined]:
    sock, puppet = with_puppet(version, pair=pair)
    puppet.read()
    ended = trio.Event()
    made: list[Patch] = []

    class Owner:
        def patch_ended(self, patch: Patch) -> None:
            ended.set()

    ours, theirs = socket.socketpair()
    async with (
        open_switchboard() as board,
        open_board_session(board, ours, "client") as client,
        open_board_session(board, theirs, "server") as server,
    ):

        def join(stream: YamuxStream) -> None:
            stream.acknowledge()
            patch = Patch(board, sock, Owner())
            patch.attach(stream)
            stream.handler = patch
            board.put(sock, patch)
            made.append(patch)

        server.deliver_to(join)
        stream = await client.open_stream()
        await _until_joined(client, made)
        yield Joined(board, stream, made[0], puppet, ended)
    puppet.sock.close()


async def _until_joined(session: Session, made: list[Patch]) -> None:
    while not made:
        await session.ping()


@versions
async def test_both_directions_and_their_ends_pass(version) -> None:
    body = pattern(1_000_000)
    async with joined(version) as all_of_it, trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, all_of_it.stream, body)
        assert await all_of_it.hear(len(body)) == body
        await all_of_it.hear_goodbye()
        puppet = all_of_it.puppet
        nursery.start_soon(all_of_it.say, puppet.encrypt(body) + puppet.goodbye())
        assert await receive_all(all_of_it.stream) == body
        await all_of_it.ended.wait()


@versions
async def test_the_socket_may_end_first(version) -> None:
    body = pattern(300_000)
    async with joined(version) as all_of_it, trio.open_nursery() as nursery:
        puppet = all_of_it.puppet
        nursery.start_soon(all_of_it.say, puppet.encrypt(b"question") + puppet.goodbye())
        assert await receive_all(all_of_it.stream) == b"question"
        nursery.start_soon(send_and_end, all_of_it.stream, body)
        received = b""
        while len(received) < len(body):
            # OpenSSL reads on after its goodbye.
            await trio.lowlevel.wait_readable(puppet.sock)
            received += puppet.read()
        assert received == body
        await all_of_it.ended.wait()


async def test_a_socket_that_ends_without_a_goodbye_resets_the_stream_behind_its_data() -> None:
    async with joined() as all_of_it:
        await all_of_it.say(all_of_it.puppet.encrypt(b"cut sho"))
        assert await receive_exactly(all_of_it.stream, 7) == b"cut sho"
        all_of_it.puppet.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(StreamReset):
            await all_of_it.stream.receive_some()
        await all_of_it.ended.wait()


async def test_a_reset_of_the_stream_ends_the_socket_without_a_goodbye() -> None:
    async with joined() as all_of_it:
        await all_of_it.stream.send_all(b"cut sho")
        assert await all_of_it.hear(7) == b"cut sho"
        all_of_it.stream.reset()
        await all_of_it.ended.wait()
        all_of_it.puppet.take_in()
        assert not all_of_it.puppet.has_ended()


@versions
async def test_an_end_whose_goodbye_does_not_fit_reaches_the_socket_later(version) -> None:
    async with joined(version) as all_of_it:
        with nothing_can_leave(all_of_it.patch.sock, all_of_it.puppet):
            await all_of_it.stream.send_eof()
            await all_of_it.say(all_of_it.puppet.encrypt(b"meanwhile"))
            assert await receive_exactly(all_of_it.stream, 9) == b"meanwhile"
            assert not all_of_it.patch.is_finished
        await all_of_it.hear_goodbye()
        assert all_of_it.patch.is_finished


async def test_a_patch_whose_time_is_up_lets_the_others_go_ahead_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records of a byte each take 20 times as long as others, for each of which there would be another turn."""
    monkeypatch.setattr("otun.mux.patch.SECONDS_PER_CALL", -1.0)
    body = pattern(20_000)
    async with joined() as all_of_it, trio.open_nursery() as nursery:
        turns = 0
        call_again = all_of_it.board.call_again

        def count(member: object) -> None:
            nonlocal turns
            turns += member is all_of_it.patch
            call_again(member)

        monkeypatch.setattr(all_of_it.board, "call_again", count)
        nursery.start_soon(all_of_it.say, all_of_it.puppet.encrypt(body, 1) + all_of_it.puppet.goodbye())
        assert await receive_all(all_of_it.stream) == body
        assert turns >= 4
