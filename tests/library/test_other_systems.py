"""otun where Linux's own things are missing: the names are taken away before it is imported."""

import subprocess
import sys

import pytest

# Trio itself needs epoll on Linux: it is imported before, and gets everything back after otun has looked for it.
PROGRAM = """
import errno, select, socket, sys, time
from functools import partial
import trio

of_epoll = {name: value for name, value in vars(select).items() if name.lower().startswith("epoll")}
for module, names in {
    select: of_epoll,
    socket: [
        *["SOCK_NONBLOCK", "SOCK_CLOEXEC", "TCP_NOTSENT_LOWAT", "TCP_USER_TIMEOUT"],
        *["TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"],
    ],
    time: ["CLOCK_BOOTTIME"],
    errno: ["ENONET"],
}.items():
    for name in names:
        delattr(module, name)
sys.platform = "darwin"

import otun
from otun.switchboard import open_switchboard
from otun.switchboard.task_board import TaskBoard

vars(select).update(of_epoll)

BODY = bytes(range(256)) * 8192

async def answer(service):
    await service.receive_some()
    await service.send_all(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY) + BODY)

async def main():
    loopback = otun.TcpAddress("127.0.0.1", 0)
    async with open_switchboard() as board:
        assert isinstance(board, TaskBoard)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(otun.serve, otun.ServerSettings(control=loopback, public=loopback))
        services = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        local = "127.0.0.1:%d" % services[0].socket.getsockname()[1]
        await nursery.start(otun.forward, server.control_addresses[0], local)
        public = server.public_addresses[0]
        async with await trio.open_tcp_stream(public.host, public.port) as visitor:
            await visitor.send_all(b"GET / HTTP/1.1\\r\\nHost: app\\r\\nConnection: close\\r\\n\\r\\n")
            received = b"".join([piece async for piece in visitor])
        assert received.partition(b"\\r\\n\\r\\n")[2] == BODY, received[:300]
        nursery.cancel_scope.cancel()

trio.run(main)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are what they are")
def test_a_request_goes_through_the_tunnel() -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
