"""The Trio shell around the admin socket: whom it serves, how many at a time, and for how long."""

import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

import trio

from ...switchboard import Listener, Switchboard
from ..records import Actor
from ..reports import Reports
from .handing_over import HandingOver, pass_descriptors
from .operations import Answer, Operations
from .people import describe_user
from .place import NAME
from .requests import BadCommand, Leave, Lines, TakeOver, parse_request

logger: logging.Logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 256
"""Connections at a time: each is an operator's command, which takes milliseconds; scripts give many at once."""

REQUEST_TIMEOUT: Final = 10.0
"""Seconds in which the next request must be there."""

ANSWER_TIMEOUT: Final = 10.0
"""Seconds in which its answer must be taken."""

_READ_SIZE: Final = 4096
_CREDENTIALS: Final = "iII"  # struct ucred: pid, uid, gid (unix(7)).


class AdminPort:
    """Takes connections, and serves each in a task in *tasks*."""

    def __init__(self, operations: Operations, handing_over: HandingOver, tasks: trio.Nursery) -> None:
        self._operations = operations
        self._handing_over = handing_over
        self._listener: Listener | None = None
        self._tasks = tasks
        self._connections = 0
        self._reports = Reports(trio.current_time, called="local user")

    def listen(self, board: Switchboard, sock: socket.socket) -> None:
        """Take connections on *sock*."""
        self._listener = Listener(board, sock, self.connected)

    def connected(self, sock: socket.socket) -> None:
        """Take a new connection, or turn it away."""
        pid, uid = peer_of(sock)
        if uid not in (0, os.geteuid()):  # Whatever has become of the socket's mode.
            self._reports.add(str(uid), f"turned away from {NAME}: it is another user's")
            _turn_away(sock, BadCommand("this socket is for the server's own user and root", "not_permitted"))
        elif self._connections >= MAX_CONNECTIONS:
            _turn_away(sock, BadCommand(f"there are {MAX_CONNECTIONS} connections already: try again", "busy"))
        else:
            self._connections += 1
            self._tasks.start_soon(self._serve, sock, pid, uid)

    async def _serve(self, sock: socket.socket, pid: int, uid: int) -> None:
        try:
            async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
                who = await trio.to_thread.run_sync(describe_user, uid, abandon_on_cancel=True)
                await self._converse(stream, Actor(who, f"{NAME}, process {pid}"))
        except trio.BrokenResourceError:
            pass  # It has left without waiting for its answer.
        except Exception:
            logger.exception("a connection to %s failed", NAME)
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream, by: Actor) -> None:
        lines = Lines()
        has_taken_over = False
        while (line := await _next_request(stream, lines)) is not None:
            try:
                match parse_request(line):
                    case TakeOver():
                        await self._hand_over(stream)
                        has_taken_over = True
                        continue
                    case Leave() if has_taken_over:
                        answer = self._leave(by)
                    case Leave():
                        raise BadCommand("nobody has taken over on this connection")
                    case request:
                        answer = await self._operations.answer(request, by)
                answer = {"ok": True, **answer}
            except BadCommand as error:
                answer = _refusal(error)
            if not await _say(stream, answer):
                return

    async def _hand_over(self, stream: trio.SocketStream) -> None:
        """Give another server what it needs to take this one's place, which goes on until it is told to leave.

        Raises `BadCommand`.
        """
        if self._handing_over.draining.is_under_way:
            raise BadCommand("it is about to end: start in a while, without --replace", "busy")
        descriptors = self._handing_over.descriptors()
        answer = {"ok": True, **self._handing_over.describe(descriptors)}
        with contextlib.ExitStack() as copies:  # The sockets may be closed before all have been passed.
            copied = []
            try:
                for _, number in descriptors:
                    copied.append(os.dup(number))
                    copies.callback(os.close, copied[-1])
            except OSError as error:
                raise BadCommand(f"its sockets cannot be passed: {error.strerror}", "busy") from error
            await _say(stream, answer, copied)

    def _leave(self, by: Actor) -> Answer:
        assert self._listener is not None
        if not self._handing_over.place.is_ours:
            raise BadCommand("another server has taken its place already", "busy")
        self._listener.abort()
        self._handing_over.leave(by.origin)
        return {}


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return the process at the other end of a Unix socket, and its user."""
    pid, uid, _ = struct.unpack(
        _CREDENTIALS, sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    )
    assert isinstance(pid, int)
    assert isinstance(uid, int)
    return pid, uid


async def _next_request(stream: trio.SocketStream, lines: Lines) -> bytes | None:
    """Return the next request; None if there is none, or none that can be told apart, which was answered."""
    try:
        with trio.fail_after(REQUEST_TIMEOUT):
            return await _next_line(stream, lines)
    except trio.TooSlowError:
        if lines.has_begun:
            await _say(stream, _refusal(BadCommand(f"no whole request within {REQUEST_TIMEOUT:.0f} seconds")))
    except BadCommand as error:  # There is no telling where the next one begins.
        await _say(stream, _refusal(error))
    return None


async def _next_line(stream: trio.SocketStream, lines: Lines) -> bytes | None:
    """Return the next request; None if there is none.  Raises `BadCommand`."""
    while (line := lines.next_line()) is None:
        data = await stream.receive_some(_READ_SIZE)
        if not data:
            return None
        lines.feed(data)
    return line


async def _say(stream: trio.SocketStream, answer: Answer, descriptors: Sequence[int] = ()) -> bool:
    """Send *answer*, with *descriptors* before it, and return whether it was taken."""
    with trio.move_on_after(ANSWER_TIMEOUT) as patience:
        await pass_descriptors(stream, descriptors)
        await stream.send_all(_encode(answer))
    return not patience.cancelled_caught


def _turn_away(sock: socket.socket, error: BadCommand) -> None:
    with contextlib.suppress(OSError):
        sock.send(_encode(_refusal(error)))
    sock.close()


def _refusal(error: BadCommand) -> Answer:
    return {"ok": False, "error": str(error), "code": error.code}


def _encode(answer: Answer) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"
