"""A client that is stopped for a while, and another one with the same token; in real time, as it takes 15 seconds."""

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import trio

from otun import RegistrationRefused, open_tunnel

from .running import NAME_TAKEN, REFUSED, RunningServer, complaint, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Program

    Start = Callable[..., Program]

TOKEN = "of-the-whole-team"


async def take_over(server: RunningServer) -> int:
    """Try until the name can be had, and answer a visitor; how often that was in vain."""
    for attempt in range(1000):
        try:
            async with open_tunnel(server.control, name="app", token=TOKEN) as tunnel, trio.open_nursery() as nursery:
                nursery.start_soon(tunnel.serve, answer)
                status = await trio.to_thread.run_sync(visit, server, tunnel.url)
                assert status == (200, b"new")
                nursery.cancel_scope.cancel()
                return attempt
        except RegistrationRefused as refusal:
            if (refusal.code, refusal.is_retryable) != ("name_taken", True):
                raise
        await trio.sleep(0.2)
    raise AssertionError("the name was never free")


async def answer(visitor: trio.abc.HalfCloseableStream) -> None:
    await visitor.receive_some()
    await visitor.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")


def test_a_stopped_client_loses_its_name_and_is_told_so_when_it_goes_on(
    start: "Start", local_port: int, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("OTUN_TOKENS", TOKEN)
    server = run_server(start)
    environment.setenv("OTUN_TOKEN", TOKEN)
    client = run_client(start, server, "http", str(local_port), "--name", "app", "--log-level", "error")
    url = see_tunnel(client)
    other = run_client(start, server, "http", "9", "--name", "app", "--log-level", "error")
    code, line = complaint(other.wait())
    assert code == NAME_TAKEN
    assert "'app'" in line
    assert "15 s" in line
    assert visit(server, url) == (200, b"hello")  # It was not disturbed.
    client.process.send_signal(signal.SIGSTOP)
    assert trio.run(take_over, server) > 1
    client.process.send_signal(signal.SIGCONT)
    code, line = complaint(client.wait())
    assert "another session of this client has taken its place" in line
    assert code == REFUSED
