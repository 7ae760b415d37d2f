"""Taking the place of a server that runs: its listening sockets, and its place in the state folder.

The two talk on the admin socket, over which a process can give open sockets to another one (SCM_RIGHTS, unix(7)).
Until the new server is ready, the running one goes on as if nothing had been; from then on it lets nobody in, and
drains.  At no time is a listening socket closed by both: connections that nobody has accepted yet wait in it.
"""

import array
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, cast

import trio

from ..errors import OtunError
from .absence import ExpectedTunnels
from .admin.handing_over import ADMIN_NAME, LOCK_NAME, TCP_NAME
from .admin.place import NAME, Place, address_of, opened_folder
from .sockets import KINDS, ListeningSockets

logger: logging.Logger = logging.getLogger(__name__)

ANSWER_TIMEOUT: Final = 20.0
"""Seconds for each of the two answers."""

_MAX_ANSWER: Final = 32 * 1024 * 1024
_READ_SIZE: Final = 64 * 1024
_DESCRIPTORS_AT_ONCE: Final = 253  # What Linux passes in one message (SCM_MAX_FD).


class Handoff:
    """What a running server has handed over.  It goes on serving until `complete`."""

    def __init__(
        self, call: "_Call", pid: int, place: Place, sockets: ListeningSockets, tunnels: ExpectedTunnels
    ) -> None:
        self._call = call
        self._pid = pid
        self.place: Place = place
        self.sockets: ListeningSockets = sockets
        self.tunnels: ExpectedTunnels = tunnels

    async def complete(self) -> None:
        """Have the other server leave: when this returns, it accepts nobody any more.  Raises `OtunError`."""
        await self._call.ask("leave")
        self._call.close()
        self.place.is_ours = True
        logger.info(
            "took the place of process %d, which drains; %d hosts and %d ports are expected back",
            self._pid,
            len(self.tunnels.routes),
            len(self.tunnels.ports),
        )


@asynccontextmanager
async def asked_for_handoff(folder: Path) -> AsyncIterator[Handoff | None]:
    """Ask the server that runs with the state *folder* for its place; None if there is no such server.

    If the body ends before `Handoff.complete`, that server goes on.  What was handed over is the body's, which must
    close it.  Raises `OtunError` when the server does not hand over.
    """
    sock = await _connect(folder)
    if sock is None:
        logger.info("no server runs with the state folder %s: there is none to replace", folder)
        yield None
        return
    with sock:
        call = _Call(sock, folder)
        answer = await call.ask("take_over")
        try:
            handoff = _read_answer(call, answer)
        except (KeyError, TypeError, ValueError) as error:
            raise OtunError(
                "the running server answers in a way that is not known here: is it another version?"
            ) from error
        yield handoff


def _read_answer(call: "_Call", answer: dict[str, object]) -> Handoff:
    names = cast("list[str]", answer["descriptors"])
    with ExitStack() as unused:
        for descriptor in call.descriptors:
            unused.callback(os.close, descriptor)
        if len(names) != len(call.descriptors):
            raise OtunError(
                f"the running server hands {len(names)} descriptors over, of which {len(call.descriptors)} have come: "
                "more files must be allowed to be open (ulimit -n)"
            )
        found: dict[str, list[int]] = {name: [] for name in names}
        for name, descriptor in zip(names, call.descriptors, strict=True):
            found[name].append(descriptor)
        routes = cast("list[tuple[str, str, str]]", answer["routes"])
        ports = cast("list[tuple[int, str]]", answer["ports"])
        tunnels = ExpectedTunnels(
            tuple((host, path, keeper) for host, path, keeper in routes),
            tuple((port, keeper) for port, keeper in ports),
        )
        pid = cast("int", answer["pid"])
        (lock,), (admin,) = found.pop(LOCK_NAME), found.pop(ADMIN_NAME)
        unused.pop_all()
    sockets = {name: tuple(socket.socket(fileno=each) for each in descriptors) for name, descriptors in found.items()}
    listening = ListeningSockets(
        **{kind: sockets.get(kind, ()) for kind in KINDS},
        tcp={int(name.removeprefix(TCP_NAME)): each for name, each in sockets.items() if name.startswith(TCP_NAME)},
    )
    place = Place(lock, socket.socket(fileno=admin), is_ours=False)
    return Handoff(call, pid, place, listening, tunnels)


async def _connect(folder: Path) -> trio.socket.SocketType | None:
    """Connect to the server that runs with the state *folder*, if there is one."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with opened_folder(folder) as descriptor:
            await sock.connect(address_of(folder, descriptor))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise OtunError(f"{folder / NAME}: {error.strerror or error}") from error
    return sock


class _Call:
    """A connection to a running server; *descriptors* are those that it has passed."""

    def __init__(self, sock: trio.socket.SocketType, folder: Path) -> None:
        self._sock = sock
        self._folder = folder
        self.descriptors: list[int] = []

    async def ask(self, do: str) -> dict[str, object]:
        """Have the server *do* something, and return its answer.  Raises `OtunError`."""
        try:
            with trio.fail_after(ANSWER_TIMEOUT):
                await self._sock.send(json.dumps({"do": do}).encode() + b"\n")
                line = await self._receive_line()
        except trio.TooSlowError:
            raise self._failure(f"did not answer within {ANSWER_TIMEOUT:.0f} seconds") from None
        except OSError as error:
            raise self._failure("has ended meanwhile, or has lost patience") from error
        answer = cast("dict[str, object]", json.loads(line))
        if answer["ok"] is not True:
            raise self._failure(f"does not hand over: {answer['error']}")
        return answer

    def close(self) -> None:
        """Say no more."""
        self._sock.close()

    def _failure(self, what: str) -> OtunError:
        return OtunError(f"the server that runs with the state folder {self._folder} {what}")

    async def _receive_line(self) -> bytes:
        received = bytearray()
        while not received.endswith(b"\n"):
            data, messages, _, _ = await self._sock.recvmsg(
                _READ_SIZE, socket.CMSG_SPACE(_DESCRIPTORS_AT_ONCE * array.array("i").itemsize)
            )
            self.descriptors += _descriptors_in(messages)
            received += data
            if not data or len(received) > _MAX_ANSWER:
                raise ConnectionError
        return bytes(received)


def _descriptors_in(messages: Iterable[tuple[int, int, bytes]]) -> Iterable[int]:
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found = array.array("i")
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
            for descriptor in found:
                os.set_inheritable(descriptor, False)
            yield from found
