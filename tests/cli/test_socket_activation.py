"""Sockets that systemd has opened."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from otun.addresses import TcpAddress
from otun.cli.socket_activation import sockets_from_environment
from otun.errors import ConfigurationError
from otun.server import ServerSettings

# What systemd does: the sockets become descriptors 3 and up, and the variables say so to this very process.
LIKE_SYSTEMD = """
import os, sys
passed = [os.dup(int(each)) for each in sys.argv[1].split(",")]
high = [os.dup2(each, 100 + index) for index, each in enumerate(passed)]
for index, each in enumerate(high):
    os.dup2(each, 3 + index, inheritable=True)
os.closerange(100, 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)))
os.execv(sys.executable, [sys.executable, "-m", "otun.cli", *sys.argv[2:]])
"""


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]


def address_of(sock: socket.socket) -> TcpAddress:
    return TcpAddress(*sock.getsockname())


def passed(sockets: list[socket.socket], names: str | None, settings: ServerSettings) -> list[list[TcpAddress]]:
    """Which of them are for what: the addresses for control, public and https."""
    copies = [os.dup(sock.fileno()) for sock in sockets]
    first = 700
    for index, copy in enumerate(copies):
        os.dup2(copy, first + index)
        os.close(copy)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
    if names is not None:
        environ["LISTEN_FDNAMES"] = names
    found = sockets_from_environment(settings, environ, first)
    assert found is not None
    assert environ == {}
    addresses = [list(found.addresses(kind)) for kind in ("control", "public", "https")]
    found.close()
    return addresses


def settings_at(control: TcpAddress, public: TcpAddress | None = None) -> ServerSettings:
    return ServerSettings(control=control, public=public or TcpAddress("", 8080))


def test_names_say_what_sockets_are_for(sockets: list[socket.socket]) -> None:
    first, second, third = map(address_of, sockets)
    settings = settings_at(TcpAddress("", 1))
    assert passed(sockets, "https:control:http", settings) == [[second], [third], [first]]
    assert passed(sockets, "public:control:public", settings) == [[second], [first, third], []]


def test_without_names_addresses_do(sockets: list[socket.socket]) -> None:
    first, second, _ = map(address_of, sockets)
    settings = settings_at(TcpAddress("", second.port), first)
    assert passed(sockets[:2], None, settings) == [[second], [first], []]


def test_those_that_are_left_are_taken_in_order(sockets: list[socket.socket]) -> None:
    first, second, _ = map(address_of, sockets)
    assert passed(sockets[:2], None, settings_at(TcpAddress("", 1))) == [[first], [second], []]
    assert passed(sockets[:2], "unknown:unknown", settings_at(second)) == [[second], [first], []]
    assert passed(sockets[:2], "otun.socket:control", settings_at(TcpAddress("", 1))) == [[second], [first], []]


def test_more_than_there_is_use_for_is_a_mistake(sockets: list[socket.socket]) -> None:
    with pytest.raises(ConfigurationError, match="what are the sockets for that listen at 127") as caught:
        passed(sockets, None, settings_at(TcpAddress("", 1)))
    assert "FileDescriptorName=" in str(caught.value)


def test_what_is_no_tcp_socket_is_a_mistake(sockets: list[socket.socket]) -> None:
    with socket.socket(socket.AF_UNIX) as unix, pytest.raises(ConfigurationError, match=r"700 \(control\) is no TCP"):
        passed([unix], "control", settings_at(TcpAddress("", 1)))
    with pytest.raises(ConfigurationError, match=r"descriptor 900 \(unknown\) is no socket"):
        sockets_from_environment(ServerSettings(), {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}, 900)
    with pytest.raises(ConfigurationError, match="LISTEN_FDS: 'many' is no number"):
        sockets_from_environment(ServerSettings(), {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"})


@pytest.mark.parametrize("pid", ["", "1"])
def test_variables_for_another_process_are_removed_and_mean_nothing(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "control"}
    assert sockets_from_environment(ServerSettings(), environ) is None
    assert environ == {}


@pytest.fixture
def start_like_systemd(environment: pytest.MonkeyPatch, sockets: list[socket.socket]) -> Iterator["StartLikeSystemd"]:
    with ExitStack() as stack:
        yield StartLikeSystemd(stack, sockets)


class StartLikeSystemd:
    """Starts `otun ARGUMENTS` with the first *count* sockets."""

    def __init__(self, stack: ExitStack, sockets: list[socket.socket]) -> None:
        self._stack = stack
        self._sockets = sockets

    def __call__(self, count: int, *arguments: str) -> "subprocess.Popen[str]":
        numbers = [sock.fileno() for sock in self._sockets[:count]]
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", LIKE_SYSTEMD, ",".join(map(str, numbers)), *arguments],
                pass_fds=numbers,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        self._stack.callback(process.kill)
        return process


def test_a_server_serves_on_the_sockets_that_it_was_given(
    start_like_systemd: StartLikeSystemd, sockets: list[socket.socket]
) -> None:
    with socket.create_connection(sockets[1].getsockname()) as visitor:  # Before there is a server.
        visitor.sendall(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
        server = start_like_systemd(2, "server")
        assert server.stdout is not None
        assert server.stdout.readline() == f"control {address_of(sockets[0])}\n"
        assert server.stdout.readline() == f"public {address_of(sockets[1])}\n"
        assert visitor.recv(100).startswith(b"HTTP/1.1 404 ")
    server.terminate()
    assert server.wait(20) == 0


def test_it_takes_nobodys_place(start_like_systemd: StartLikeSystemd) -> None:
    server = start_like_systemd(2, "server", "--replace")
    assert server.communicate(timeout=20)[1] == (
        "otun: --replace: the sockets of this server come from systemd, not from another server\n"
    )
    assert server.returncode == 2
