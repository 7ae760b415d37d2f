"""py-libp2p for the interop tests: its virtual environment, and connections to its yamux."""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

import attrs
import trio

import otun

from .support import Program, Start

REQUIREMENT: Final = "libp2p==0.8.1"
"""Pinned, because the tests state its bugs as well.  It brings trio-typing, which must not reach our environment."""

COMMAND_SIZE: Final = 32

_INSTALL_LIMIT: Final = 600


class InstallationFailed(Exception):
    """py-libp2p could not be installed; the text says why."""


def install(folder: Path) -> Path:
    """Give the Python of the environment in *folder*, which is made unless it is there.

    Several processes may ask at once; one makes it.
    """
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has_it(python):
            _call(sys.executable, "-m", "venv", folder)
            _call(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REQUIREMENT)
    return python


def _has_it(python: Path) -> bool:
    """Whether py-libp2p is there in the pinned version.  That is written last: then what it needs is there, too."""
    if not python.exists():
        return False
    look = "from importlib.metadata import version; print(version('libp2p'))"
    found = subprocess.run([python, "-c", look], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return f"libp2p=={found.stdout.strip()}" == REQUIREMENT


def _call(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_INSTALL_LIMIT)
    except subprocess.TimeoutExpired:
        raise InstallationFailed(f"{command[2]} did not end within {_INSTALL_LIMIT} s") from None
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise InstallationFailed("; ".join(said[-3:]) or f"status {done.returncode}")


@attrs.frozen
class Libp2p:
    """Starts py-libp2p as the other end of a connection."""

    python: Path
    start: Start

    async def connect(
        self, our_role: Literal["client", "server"], *options: str, buffer_size: int | None = None
    ) -> tuple[trio.SocketStream, Program]:
        """Give our end of a new connection, and the program at the other end.

        It connects if we are the server.  *buffer_size* is that of our socket's receive buffer.
        """
        command = [self.python, Path(__file__).with_name("libp2p_peer.py")]
        if our_role == "client":
            program = await self.start(*command, "server", *options)
            port = int((await program.wait_for_output("listening ")).split()[1])
            return await trio.open_tcp_stream("127.0.0.1", port), program
        with trio.socket.socket() as listener:
            if buffer_size is not None:
                listener.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, buffer_size)
            await listener.bind(("127.0.0.1", 0))
            listener.listen()
            program = await self.start(*command, "client", str(listener.getsockname()[1]), *options)
            sock, _ = await listener.accept()
            return trio.SocketStream(sock), program


def command(*words: object) -> bytes:
    """What a stream to py-libp2p must begin with."""
    return " ".join(map(str, words)).encode().ljust(COMMAND_SIZE)


async def ask(session: otun.Session, *words: object) -> otun.Stream:
    """Open a stream that begins with a command."""
    stream = await session.open_stream()
    await stream.send_all(command(*words))
    return stream
