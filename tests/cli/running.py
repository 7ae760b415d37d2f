"""Servers and clients as processes, and what they have printed."""

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Ended, Program

    Start = Callable[..., Program]

TOKEN: Final = re.compile(r"otun_[A-Za-z0-9_-]{43}")

TOKEN_REFUSED: Final = 6
NAME_TAKEN: Final = 7
REFUSED: Final = 3
"""How clients end that were refused."""


@attrs.define(eq=False)
class RunningServer:
    """A server process that listens."""

    program: "Program"
    lines: dict[str, str]

    @property
    def control(self) -> str:
        """Where clients of this machine reach it."""
        return f"127.0.0.1:{self.lines['control'].rpartition(':')[2]}"

    @property
    def public(self) -> str:
        return self.lines["public"]

    @property
    def fingerprint(self) -> str:
        """Of its certificate, if its clients need one."""
        return self.lines["client"].partition("--fingerprint ")[2].partition(" ")[0]

    def read_token_file(self) -> Path:
        """Read the line that says where its token is."""
        line = self.program.read_line()
        assert line.startswith("token: in "), line
        return Path(line.removeprefix("token: in "))

    def stop(self) -> "Ended":
        """End it in an orderly way; what it has printed since, and logged."""
        ended = self.program.signal(signal.SIGTERM)
        assert ended.code == 0, ended.stderr
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended


def run_server(start: "Start", *arguments: str, control: str = "127.0.0.1:0") -> RunningServer:
    """Start `otun server` on free ports, and wait until it listens."""
    program = start("server", "--control", control, "--public", "127.0.0.1:0", *arguments)
    lines: dict[str, str] = {}
    while "client" not in lines:
        line = program.read_line()
        assert line, program.wait().stderr
        word, _, rest = line.partition(" ")
        lines[word.rstrip(":")] = rest
    return RunningServer(program, lines)


def run_client(start: "Start", server: RunningServer, *arguments: str) -> "Program":
    """Start `otun ARGUMENTS`, which is a client, so that it reaches *server*."""
    trust = ["--fingerprint", server.fingerprint] if server.fingerprint else []
    return start(*arguments, "--server", server.control, *trust)


def see_tunnel(client: "Program") -> str:
    """Wait until it has a tunnel; its URL."""
    url = client.read_line()
    assert url.partition(":")[0] in ("http", "tcp", "tls"), client.wait().stderr
    return url


def complaint(ended: "Ended") -> tuple[int, str]:
    """How a program has ended, and the one line that it has said about that."""
    line = ended.stderr.splitlines()[-1]
    assert ended.stderr.count("otun: ") == 1, ended.stderr
    assert line.isprintable()
    assert line.startswith("otun: ")
    return ended.code, line.removeprefix("otun: ")


def visit(server: RunningServer, url: str, path: str = "/", **fields: str) -> tuple[int, bytes]:
    """Make a request for a tunnel's *url*; the answer's status and body."""
    connection = http.client.HTTPConnection(server.public, timeout=20)
    try:
        host = url.partition("//")[2]
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request("GET", path, headers={"Host": host, "Connection": "close", **named})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def run_on_small_disk(script: str, folder: Path, *, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a shell's *script* where *folder*, its `$0`, is a file system of 256 KiB; `$1` is Python.

    It is one in a mount namespace of its own: the test is skipped where there can be none.
    """
    folder.mkdir()
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0" || exit 77\n'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        done = subprocess.run(
            [*command, mount + script, str(folder), sys.executable], capture_output=True, text=True, timeout=timeout
        )
    except FileNotFoundError:
        pytest.skip("this system has no unshare")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("this system does not let us mount anything")
    return done
